"""The page can be used on a telephone and on a wide screen, with the keyboard alone, in light and in dark."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

pytest.importorskip("gradio", reason="the page needs gradio")
pytest.importorskip("selenium", reason="the tests in a browser need selenium")

from selenium.webdriver import ActionChains
from selenium.webdriver.common.keys import Keys

from .tab import Server, Tab

pytestmark = pytest.mark.slow
Visit: TypeAlias = Callable[[Any], Tab]


#: parts of the form that are folded at first
PARTS = ("Another model", "Sampling", "LoRA files", "Precision, speed and memory", "What is not here")
#: what reaches beyond the window, sideways
OUTSIDE = """
return [...document.querySelectorAll('input, textarea, button, pre, video, p, label')].filter((item) => {
  const box = item.getBoundingClientRect();
  return box.width > 0 && getComputedStyle(item).visibility !== 'hidden'
    && (box.right > innerWidth + 1 || box.left < -1);
}).map((item) => item.outerHTML.slice(0, 120));
"""
#: what is drawn too faintly, as [element, contrast]: text, what stands in empty fields, and the edges of fields
FAINT = """
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
const check = (item, what, colour, below, least) => {
  const reached = ratio(over(solid(colour), below), below);
  if (reached < least) found.push([what, item.outerHTML.slice(0, 160), reached]);
};
let looked = 0;
for (const item of document.querySelectorAll('h1, p, span, label, button, summary, li, a, input, textarea, pre')) {
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
return looked > 20 ? found : ['the page is not there'];
"""


def resize(driver: Any, width: int) -> None:
    """A window of a width, of a telephone when it is narrow."""
    sizes = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", sizes)


def prefer(driver: Any, scheme: str) -> None:
    """What the system of the user says about light and dark."""
    features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", features)


@pytest.mark.parametrize("width", [400, 1600])
def test_it_fits_its_window(visit: Visit, server: Server, driver: Any, width: int) -> None:
    resize(driver, width)
    tab = visit(server)
    tab.generate("a fox in a window", steps=2)
    tab.status("Done in")
    tab.until(lambda: tab.find("#result video"))
    for title in (*PARTS, "Run record"):
        tab.part(title)
    tab.choose("size", "another size")
    tab.settled()
    assert tab.script("return document.documentElement.scrollWidth") <= width
    assert tab.script(OUTSIDE) == []
    left = tab.script("return document.querySelector('#prompt').getBoundingClientRect()")
    right = tab.script("return document.querySelector('#status').getBoundingClientRect()")
    assert (right["left"] > left["right"]) == (width == 1600)


def test_a_telephone_shows_what_was_asked_for(visit: Visit, server: Server, driver: Any) -> None:
    """Where the form fills the window, the window goes to the video when one is asked for."""
    resize(driver, 400)
    tab = visit(server)
    tab.generate("a fox on a telephone", steps=2)
    tab.status("Done in")
    inside = "const box = document.querySelector('#status').getBoundingClientRect();"
    tab.until(lambda: tab.script(f"{inside} return box.top >= -1 && box.bottom <= innerHeight + 1"))


def focused(tab: Tab) -> str:
    """The id of what has the focus, or of what is around it."""
    find = (
        "let at = document.activeElement; while (at && !at.id) at = at.parentElement; return at ? at.id : ''"
    )
    return str(tab.script(find))


def press(tab: Tab, *keys: str) -> None:
    ActionChains(tab.driver).send_keys(*keys).perform()


def tabbed(tab: Tab, name: str) -> list[str]:
    """Press Tab until something has the focus; returns what had it on the way."""
    seen: list[str] = []
    while name not in seen:
        assert len(seen) < 60, seen
        press(tab, Keys.TAB)
        seen.append(focused(tab))
    return list(dict.fromkeys(seen))


def test_with_the_keyboard_alone(tab: Tab) -> None:
    assert focused(tab) == "prompt"
    press(tab, "a fox without a mouse")
    assert tabbed(tab, "generate") == ["size", "frames", "seed", "random_seed", "generate"]
    assert tab.script("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    press(tab, Keys.ENTER)
    tab.status("Done in")
    tab.until(lambda: "a fox without a mouse" in tab.text("#results"))
    # back to the form, to another choice of a list
    ActionChains(tab.driver).key_down(Keys.SHIFT).send_keys(Keys.TAB * 4).key_up(Keys.SHIFT).perform()
    assert focused(tab) == "size"
    before = tab.attribute("#size input", "value")
    press(tab, Keys.ARROW_DOWN)
    press(tab, Keys.ARROW_DOWN, Keys.ENTER)
    tab.until(lambda: tab.attribute("#size input", "value") not in ("", before))
    # a folded part is opened, and what is in it is reached
    tabbed(tab, "generate")
    for _ in range(20):
        press(tab, Keys.TAB)
        if "Sampling" in tab.script("return document.activeElement.textContent"):
            break
    press(tab, Keys.ENTER)
    tab.until(lambda: tab.find("#steps input"))
    tabbed(tab, "steps")
    # and the settings of the video come back
    tabbed(tab, "reuse")
    press(tab, Keys.ENTER)
    tab.until(lambda: tab.attribute("#size input", "value") == before)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_can_be_read(visit: Visit, server: Server, driver: Any, scheme: str) -> None:
    """Text stands out from what is behind it at least 4.5 to 1, as WCAG AA wants, and boxes to tick 3 to 1."""
    prefer(driver, scheme)
    tab = visit(server)
    assert tab.script("return document.body.classList.contains('dark')") == (scheme == "dark")
    tab.settled()
    assert tab.script(FAINT) == []
    for part in PARTS:
        tab.part(part)
    tab.generate("a fox at night", steps=2)
    tab.status("Done in")
    tab.until(lambda: "a fox at night" in tab.text("#results"))
    tab.choose("size", "another size")
    tab.number("width", 250)
    tab.problem("width must be divisible")
    tab.settled()
    assert tab.script(FAINT) == []
