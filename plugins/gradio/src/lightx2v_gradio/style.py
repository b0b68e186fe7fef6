"""The theme and the styles of the page, and the few lines of script that run in the browser."""

from __future__ import annotations

from typing import Any

import gradio as gr

_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
_MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "monospace"]

CSS = """
.gradio-container { max-width: 1500px !important; width: 100%; margin: 0 auto !important; padding: 0 !important; }
.gradio-container > .main { padding: 1rem !important; }
.lx-title .html-container { padding-left: 0; padding-right: 0; }
.lx-title h1 { font-size: 1.35rem; margin: 0; }
.lx-title p { margin: .15rem 0 0; color: var(--body-text-color-subdued); }
.lx-card { border: 1px solid var(--border-color-primary); border-radius: 8px; padding: .8rem 1rem !important;
  background: var(--background-fill-secondary); }
.lx-card .lx-card { border: 0; padding: 0 !important; background: none; }
.lx-card .html-container { padding: 0; }
.lx-model { margin: 0; overflow-wrap: anywhere; }
.lx-dim { color: var(--body-text-color-subdued); font-size: .9em; }
.lx-problem { border-left: 4px solid #c62828; background: color-mix(in srgb, #c62828 12%, transparent);
  padding: .6rem .8rem; border-radius: 4px; overflow-wrap: anywhere; }
.lx-forecast { margin: 0; }
.lx-notes { margin: .3rem 0 0 1.1rem; font-size: .9em; overflow-wrap: anywhere; list-style: disc; }
.lx-plan summary { cursor: pointer; margin-top: .3rem; }
.lx-plan pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .8rem; max-height: 28rem; overflow: auto;
  background: var(--background-fill-secondary); padding: .6rem; border-radius: 4px; }
.lx-state { margin: 0; font-weight: 600; }
.lx-said { display: flex; justify-content: space-between; gap: 1rem; flex-wrap: wrap; margin-bottom: .35rem; }
.lx-bar { height: .8rem; border-radius: .4rem; background: var(--border-color-primary); overflow: hidden; }
.lx-bar > div { height: 100%; background: var(--color-accent); transition: width .4s linear; }
.lx-preview { margin: .6rem 0 0; text-align: center; }
.lx-preview img { width: 100%; max-height: 420px; object-fit: contain; border-radius: 6px; background: #0004; }
.lx-preview figcaption { color: var(--body-text-color-subdued); font-size: .85em; }
.lx-result { width: 100%; max-height: 70vh; object-fit: contain; border-radius: 6px; background: #000; }
.lx-links { margin: .5rem 0 0; }
.lx-links a { text-decoration: underline; color: var(--link-text-color); }
.lx-head { font-weight: 600; margin: 0 0 .2rem; }
.lx-queue { margin: 0 0 0 1.3rem; list-style: decimal; }
.lx-queue button { text-align: left; text-decoration: underline; overflow-wrap: anywhere; padding: .15rem 0; }
.lx-queue button[aria-current] { font-weight: 600; text-decoration: none; }
.lx-gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: .6rem; margin: 0;
  list-style: none; padding: 2px; }
.lx-gallery button { display: block; width: 100%; height: 100%; padding: .4rem; text-align: left; font-size: .85em;
  overflow-wrap: anywhere; border: 1px solid var(--border-color-primary); border-radius: 6px;
  background: var(--background-fill-secondary); color: var(--body-text-color); }
.lx-gallery button[aria-current] { border-color: var(--color-accent); box-shadow: 0 0 0 1px var(--color-accent); }
.lx-gallery img { width: 100%; aspect-ratio: 16 / 10; object-fit: contain; margin: 0 0 .3rem; border-radius: 4px;
  background: #0004; }
.lx-numbers > * { min-width: 130px !important; }
.lx-numbers > .form { align-items: end; background: var(--block-background-fill); }
.lx-numbers:not(:has(.block)), .lx-lora:not(:has(.block)) { display: none; }
input[role=combobox] { text-overflow: ellipsis; padding-right: 1.6rem !important; }
#problem:not(:has(*[role])), #refused:not(:has(*[role])), #jobs:not(:has(p)), #preview:not(:has(img)),
#result:not(:has(a)), #results:not(:has(li)), #lora_note:not(:has(p, li)) { display: none; }
@media (max-width: 640px) {
  .gradio-container > .main, .lx-card { padding: .6rem !important; }
}
:focus-visible { outline: 3px solid var(--color-accent) !important; outline-offset: 2px; }
@media (prefers-reduced-motion: reduce) { .lx-bar > div { transition: none; } }
"""
#: tells the address bar which job is shown, so that a reload finds it again
SHOW_IN_ADDRESS = """(id) => {
    const address = new URL(window.location.href);
    if (id) { address.searchParams.set('job', id); } else { address.searchParams.delete('job'); }
    window.history.replaceState(null, '', address);
}"""
#: what was asked for since a tab opened, else what it found then
THE_LATER = "(entered, job) => job || entered"
#: where the form fills the window, as on a telephone, what was asked for would be below it
TO_THE_VIDEO = """(problem, refused) => {
    const status = document.querySelector('#status');
    if (problem || refused || !status || status.getBoundingClientRect().top < window.innerHeight - 80) { return; }
    const still = window.matchMedia('(prefers-reduced-motion: reduce)').matches;
    status.scrollIntoView({block: 'start', behavior: still ? 'instant' : 'smooth'});
}"""
#: a job in a list was pressed. The list is drawn anew then, so the focus is put back to where it was.
PRESSED = """
let last = null;
element.addEventListener('click', (event) => {
    const button = event.target.closest('[data-job]');
    if (!button) { return; }
    last = button.dataset.job;
    trigger('click', {job: last});
});
element.addEventListener('focusout', (event) => { if (event.relatedTarget) { last = null; } });
new MutationObserver(() => {
    if (last && (document.activeElement === document.body || !document.activeElement)) {
        element.querySelector(`[data-job="${last}"]`)?.focus({preventScroll: true});
    }
}).observe(element, {childList: true, subtree: true});
"""


def page_style() -> dict[str, Any]:
    """Theme and styles for ``mount_gradio_app``: no font comes from elsewhere."""
    theme = gr.themes.Default(primary_hue="indigo", font=_FONTS, font_mono=_MONO).set(
        # what explains has to be read, too
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        input_border_color="*neutral_400",
        input_border_color_dark="*neutral_500",
        checkbox_border_color="*neutral_500",
        checkbox_border_color_dark="*neutral_400",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
    )
    return {"theme": theme, "css": CSS}
