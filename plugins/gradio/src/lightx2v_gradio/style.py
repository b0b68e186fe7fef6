"""Theme and styles of the page, and its scripts for the browser."""

from __future__ import annotations

from typing import Any

import gradio as gr

_FONTS = [
    "system-ui", "-apple-system", "Segoe UI", "Roboto", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC",
    "sans-serif",
]  # fmt: skip
_MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "monospace"]

CSS = """
.gradio-container { max-width: 1500px !important; width: 100%; margin: 0 auto !important; padding: 0 !important; }
.gradio-container > .main { padding: 1rem !important; }
.lx-top { align-items: center; flex-wrap: nowrap !important; }
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
#status:not(:has([role])), body:has(#status [role]) #empty { display: none; }
#empty .lx-dim { margin: .2rem 0 0; }
.lx-sample { margin: .8rem 0 0; display: flex; flex-wrap: wrap; gap: .8rem; align-items: center; }
.lx-sample video { width: min(100%, 12rem); aspect-ratio: 1; object-fit: contain; border-radius: 6px;
  background: #000; }
.lx-sample figcaption { flex: 1 1 12rem; font-size: .9em; color: var(--body-text-color-subdued); }
.lx-examples { display: flex; flex-wrap: wrap; gap: .4rem; margin: 0; padding: 2px; list-style: none; }
.lx-examples li { margin: 0; }
.lx-examples button { padding: .3rem .7rem; text-align: left; font-size: .9em; font-weight: 400;
  overflow-wrap: anywhere; border: 1px solid var(--input-border-color); border-radius: 1rem;
  background: var(--background-fill-primary); color: var(--body-text-color); }
.lx-examples button:hover { border-color: var(--color-accent); }
.lx-queue { margin: 0 0 0 1.3rem; list-style: decimal; }
.lx-queue button { background: none; padding: .15rem 0; text-align: left; text-decoration: underline;
  overflow-wrap: anywhere; }
.lx-queue button[aria-current] { font-weight: 600; text-decoration: none; }
.lx-gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: .6rem; margin: 0;
  list-style: none; padding: 2px; }
.lx-queue button, .lx-gallery button { font-weight: 400; }
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
@media (max-width: 760px) {
  .lx-right { min-height: 100vh; }  /* so that the page can scroll to the status */
}
@media (max-width: 640px) {
  .gradio-container > .main, .lx-card { padding: .6rem !important; }
}
:focus-visible { outline: 3px solid var(--color-accent) !important; outline-offset: 2px; }
@media (prefers-reduced-motion: reduce) { .lx-bar > div { transition: none; } }
"""
#: puts the id of the shown job into the address, so that a reload finds it again
SHOW_IN_ADDRESS = """(id) => {
    const address = new URL(window.location.href);
    if (id) { address.searchParams.set('job', id); } else { address.searchParams.delete('job'); }
    window.history.replaceState(null, '', address);
}"""
#: the job submitted since a tab opened, else the one found then
THE_LATER = "(entered, job) => job || entered"
#: scrolls to the job on narrow windows, where the form would hide it
TO_THE_VIDEO = """(problem, refused) => {
    if (problem || refused) { return; }
    const scroll = () => {
        const status = document.querySelector('#status');
        if (!status || status.getBoundingClientRect().top < window.innerHeight - 80) { return; }
        const still = window.matchMedia('(prefers-reduced-motion: reduce)').matches;
        status.scrollIntoView({block: 'start', behavior: still ? 'instant' : 'smooth'});
    };
    window.requestAnimationFrame(() => window.requestAnimationFrame(scroll));  // once it is rendered
}"""
#: reports a click on a job in a list. The list is rendered again, so the script restores the focus.
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


#: reports a click on an example prompt
PROMPT_PRESSED = """
element.addEventListener('click', (event) => {
    const button = event.target.closest('[data-prompt]');
    if (button) { trigger('click', {prompt: button.dataset.prompt}); }
});
"""


def page_style() -> dict[str, Any]:
    """Return the theme and styles for ``mount_gradio_app``; no font is loaded from another host."""
    theme = gr.themes.Default(primary_hue="indigo", font=_FONTS, font_mono=_MONO).set(
        # Gradio's own colours of notes and borders fall below WCAG AA
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
