"""The page with the keyboard alone, in every language."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pytest

pytest.importorskip("gradio", reason="the page needs gradio")
pytest.importorskip("selenium", reason="the tests in a browser need selenium")

from selenium.webdriver import ActionChains
from selenium.webdriver.common.keys import Keys

from .tab import Server, Tab

pytestmark = pytest.mark.slow
Visit: TypeAlias = Callable[..., Tab]

#: numbers all controls in their order on the page; a group of radio buttons is one
CONTROLS = """
let number = 0;
const groups = new Set();
for (const item of document.querySelectorAll('a[href], button, input, textarea, select, summary, video[controls]')) {
  const box = item.getBoundingClientRect(), style = getComputedStyle(item);
  if (item.disabled || item.tabIndex < 0 || item.type === 'file' || !item.checkVisibility()) continue;
  if (box.width < 1 || box.height < 1 || style.visibility === 'hidden') continue;
  if (item.type === 'radio') {
    if (groups.has(item.name)) continue;
    groups.add(item.name);
  }
  item.dataset.control = number;
  number += 1;
}
return [...document.querySelectorAll('[data-control]')].map((item) => item.outerHTML.slice(0, 120));
"""
#: the control with the focus: [number, whether a ring of 2 pixels or more is drawn around it]
FOCUS = """
const item = document.activeElement, style = getComputedStyle(item);
const ring = style.outlineStyle === 'solid' && parseFloat(style.outlineWidth) >= 2;
return [item.dataset.control === undefined ? -1 : Number(item.dataset.control), ring];
"""


def focused(tab: Tab) -> str:
    """Return the id of the element with the focus, or of the nearest one around it."""
    find = """
        let at = document.activeElement;
        while (at && (!at.id || at.id.startsWith('html-'))) at = at.parentElement;  // those ids are Gradio's
        return at ? at.id : '';
    """
    return str(tab.script(find))


def press(tab: Tab, *keys: str) -> None:
    ActionChains(tab.driver).send_keys(*keys).perform()


def press_back(tab: Tab, count: int) -> None:
    """Press Shift and Tab."""
    ActionChains(tab.driver).key_down(Keys.SHIFT).send_keys(Keys.TAB * count).key_up(Keys.SHIFT).perform()


def tabbed(tab: Tab, name: str) -> list[str]:
    """Press Tab until an element has the focus; return the ids on the way."""
    seen: list[str] = []
    while name not in seen:
        assert len(seen) < 60, seen
        press(tab, Keys.TAB)
        seen.append(focused(tab))
    return list(dict.fromkeys(seen))


def test_with_the_keyboard_alone(tab: Tab) -> None:
    assert focused(tab) == "prompt"
    press(tab, "a fox without a mouse")
    assert tabbed(tab, "generate") == ["examples", "size", "frames", "seed", "random_seed", "generate"]
    assert tab.script("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    press(tab, Keys.ENTER)
    tab.status("Done in")
    tab.until(lambda: "a fox without a mouse" in tab.text("#results"))
    # back to the form, to another choice of a list
    press_back(tab, 4)
    assert focused(tab) == "size"
    before = tab.attribute("#size input", "value")
    press(tab, Keys.ARROW_DOWN)
    press(tab, Keys.ARROW_DOWN, Keys.ENTER)
    tab.until(lambda: tab.attribute("#size input", "value") not in ("", before))
    # a folded part is opened, and its fields are reached
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


def test_an_example_is_chosen_with_a_key(tab: Tab) -> None:
    tabbed(tab, "examples")
    example = tab.script("return document.activeElement.textContent")
    press(tab, Keys.SPACE)
    tab.until(lambda: tab.attribute("#prompt textarea", "value") == example)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_tab_reaches_every_control_in_order(visit: Visit, server: Server, language: str) -> None:
    tab = visit(server, language)
    tab.generate("a fox on the keys", steps=2)
    tab.done()
    tab.until(lambda: tab.find("#result video"))
    for key in ("model.change", "sampling", "lora", "machine", "absent", "record"):
        tab.part(tab.texts(key))
    tab.choose("size", tab.texts("size.free"))
    tab.settled()
    controls = tab.script(CONTROLS)
    assert len(controls) > 35
    tab.script("document.querySelector('#language').focus(); window.scrollTo(0, 0)")
    press_back(tab, 1)
    reached: list[int] = []
    for _ in range(3 * len(controls)):  # a video has controls of its own
        press(tab, Keys.TAB)
        number, ring = tab.script(FOCUS)
        if number < 0 or reached[-1:] == [number]:
            continue
        if number in reached:
            break
        assert ring, controls[number]
        reached.append(number)
    missed = [controls[number] for number in set(range(len(controls))) - set(reached)]
    assert missed == []
    assert reached == sorted(reached)
