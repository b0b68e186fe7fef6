"""The looks of the page in every language: on narrow and wide screens, with the keyboard, in light and dark."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

pytest.importorskip("gradio", reason="the page needs gradio")
pytest.importorskip("selenium", reason="the tests in a browser need selenium")


from .tab import Server, Tab

pytestmark = pytest.mark.slow
Visit: TypeAlias = Callable[..., Tab]
LANGUAGES = ("en", "zh")

#: titles of the folded parts of the form, by key
PARTS = ("model.change", "sampling", "lora", "machine", "absent")
#: elements that reach beyond the window, sideways
OUTSIDE = """
const boxes = 'input, textarea, button, pre, video, p, label, li, summary, figcaption';
return [...document.querySelectorAll(boxes)].filter((item) => {
  const box = item.getBoundingClientRect();
  return box.width > 0 && getComputedStyle(item).visibility !== 'hidden'
    && (box.right > innerWidth + 1 || box.left < -1);
}).map((item) => item.outerHTML.slice(0, 120));
"""
#: labels, notes and buttons whose text is cut off
CUT = """
return [...document.querySelectorAll('label, button, span, p, li, summary, h1, figcaption')].filter((item) => {
  const style = getComputedStyle(item), box = item.getBoundingClientRect();
  return box.width > 1 && box.height > 1 && item.textContent.trim() && style.visibility !== 'hidden'
    && (style.overflowX !== 'visible' || style.textOverflow === 'ellipsis')
    && (item.scrollWidth > item.clientWidth + 1 || item.scrollHeight > item.clientHeight + 2);
}).map((item) => item.outerHTML.slice(0, 160));
"""
#: contrast of text, placeholders and the edges of checkboxes: [[element, ratio] of those below WCAG AA, least of text]
CONTRAST = """
const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
const solid = (colour) => {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
  return [r, g, b, a / 255];
};
const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
const linear = (v) => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
const light = ([r, g, b]) => .2126 * linear(r) + .7152 * linear(g) + .0722 * linear(b);
const ratio = (one, other) => {
  const [a, b] = [light(one), light(other)].sort((x, y) => y - x);
  return (a + .05) / (b + .05);
};
const page = matchMedia('(prefers-color-scheme: dark)').matches ? [0, 0, 0] : [255, 255, 255];
const behind = (item) => {
  const layers = [];
  for (let at = item; at; at = at.parentElement) layers.unshift(solid(getComputedStyle(at).backgroundColor));
  return layers.reduce((sum, layer) => over(layer, sum), page);
};
const found = [];
let least = 21;
const check = (item, what, colour, below, limit) => {
  const reached = ratio(over(solid(colour), below), below);
  if (limit > 4) least = Math.min(least, reached);
  if (reached < limit) found.push([what, item.outerHTML.slice(0, 160), reached]);
};
let looked = 0;
for (const item of document.querySelectorAll(
    'h1, p, span, label, button, summary, li, a, input, textarea, pre, strong, figcaption, div, code')) {
  const box = item.getBoundingClientRect();
  if (!box.width || !box.height) continue;
  looked += 1;
  const style = getComputedStyle(item);
  const field = ['INPUT', 'TEXTAREA'].includes(item.tagName);
  const ticked = ['checkbox', 'radio'].includes(item.type);
  const own = [...item.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (own || (field && !ticked && item.value)) check(item, 'text', style.color, behind(item), 4.5);
  if (field && item.placeholder && !item.value)
    check(item, 'placeholder', getComputedStyle(item, '::placeholder').color, behind(item), 4.5);
  if (ticked && !item.checked) check(item, 'edge', style.borderColor, behind(item.parentElement), 3);
}
return [looked > 20 ? found : ['the page is not there'], least];
"""


def resize(driver: Any, width: int) -> None:
    """Set the width of the window; narrow ones are telephones."""
    sizes = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", sizes)


def prefer(driver: Any, scheme: str) -> None:
    """Set the user's preference for light or dark."""
    features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", features)


@pytest.mark.parametrize("width", [400, 1600])
@pytest.mark.parametrize("language", LANGUAGES)
def test_it_fits_its_window(visit: Visit, server: Server, driver: Any, language: str, width: int) -> None:
    resize(driver, width)
    tab = visit(server, language)
    assert tab.script("return document.documentElement.scrollWidth") <= width
    assert tab.script(OUTSIDE) == []
    tab.generate("a fox in a window", steps=2)
    tab.done()
    tab.until(lambda: tab.find("#result video"))
    for key in (*PARTS, "record"):
        tab.part(tab.texts(key))
    tab.choose("size", tab.texts("size.free"))
    tab.settled()
    assert tab.script("return document.documentElement.scrollWidth") <= width
    assert tab.script(OUTSIDE) == []
    assert tab.script(CUT) == []
    left = tab.script("return document.querySelector('#prompt').getBoundingClientRect()")
    right = tab.script("return document.querySelector('#status').getBoundingClientRect()")
    assert (right["left"] > left["right"]) == (width == 1600)


def test_a_telephone_scrolls_to_the_video(visit: Visit, server: Server, driver: Any) -> None:
    """Where the form fills the window, a click on Generate scrolls to the video."""
    resize(driver, 400)
    tab = visit(server)
    tab.generate("a fox on a telephone", steps=2)
    tab.done()
    inside = "const box = document.querySelector('#status').getBoundingClientRect();"
    tab.until(lambda: tab.script(f"{inside} return box.top >= -1 && box.bottom <= innerHeight + 1"))
    tab.until(lambda: tab.find("#result video"))
    video = inside.replace("#status", "#result video")
    tab.until(lambda: tab.script(f"{video} return box.top < innerHeight / 2"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_everything_can_be_read(
    visit: Visit,
    server: Server,
    driver: Any,
    language: str,
    scheme: str,
    record_property: Callable[..., None],
) -> None:
    """Text has a contrast of at least 4.5 to 1, as WCAG AA requires, and checkboxes 3 to 1."""
    prefer(driver, scheme)
    tab = visit(server, language)
    assert tab.script("return document.body.classList.contains('dark')") == (scheme == "dark")
    tab.settled()
    found, least = tab.script(CONTRAST)
    assert found == []
    for key in PARTS:
        tab.part(tab.texts(key))
    tab.generate("a fox at night", steps=2)
    tab.done()
    tab.until(lambda: "a fox at night" in tab.text("#results"))
    tab.choose("size", tab.texts("size.free"))
    tab.number("width", 250)
    tab.problem("width must be divisible")
    tab.settled()
    found, later = tab.script(CONTRAST)
    assert found == []
    record_property("contrast", f"{min(least, later):.2f}")
    sys.stdout.write(f"least contrast of text, {language} {scheme}: {min(least, later):.2f}\n")
