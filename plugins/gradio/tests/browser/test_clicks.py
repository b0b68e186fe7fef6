"""A click on Generate results in a video, also while answers of the page are delayed."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest

pytest.importorskip("gradio", reason="the page needs gradio")
pytest.importorskip("selenium", reason="the tests in a browser need selenium")

from selenium.webdriver.common.action_chains import ActionChains

from .tab import Server, Tab

pytestmark = [pytest.mark.slow, pytest.mark.load]
Records: TypeAlias = Callable[[Any], list[dict[str, Any]]]

#: holds the answers of some listeners back until ``LET_GO`` runs
LATE = """
const numbers = %s, plain = window.fetch;
window.held = 0;
window.letGo = [];
window.fetch = async (...given) => {
  const answer = await plain(...given);
  const body = (given[1] || {}).body;
  if (typeof body === 'string' && numbers.includes((JSON.parse(body) || {}).fn_index)) {
    window.held += 1;
    await new Promise((done) => window.letGo.push(done));
  }
  return answer;
};
"""
LET_GO = "for (const done of window.letGo.splice(0)) { done(); }"


@pytest.fixture
def late(driver: Any, server: Server, visit: Callable[[Server], Tab]) -> Iterator[Callable[..., Tab]]:
    """Opens the page with the answers of listeners, by name, held back."""
    scripts = []

    def opened(*names: str) -> Tab:
        with urllib.request.urlopen(f"{server.url}config", timeout=60) as answer:
            listeners = json.load(answer)["dependencies"]
        numbers = [listener["id"] for listener in listeners if listener["api_name"] in names]
        assert len(numbers) >= len(names)
        script = driver.execute_cdp_cmd(
            "Page.addScriptToEvaluateOnNewDocument", {"source": LATE % json.dumps(numbers)}
        )
        scripts.append(script["identifier"])
        return visit(server)

    yield opened
    for script in scripts:
        driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", {"identifier": script})


def held(tab: Tab, count: int = 1) -> None:
    """Wait until so many answers are held back."""
    tab.until(lambda: tab.script("return window.held") >= count)


def made(tab: Tab, server: Server, record: Records, before: int, prompt: str) -> None:
    tab.until(lambda: prompt in tab.text("#results") and "Done in" in tab.text("#status"))
    assert [run["request"]["prompt"] for run in record(server)[before:]] == [prompt]
    assert "job=" in tab.driver.current_url


def test_before_the_page_has_come_to_itself(
    late: Callable[..., Tab], server: Server, record: Records
) -> None:
    """A new tab requests its contents when it opens; the answer must not undo a click in between."""
    before = len(record(server))
    tab = late("_enter")
    held(tab)
    tab.generate("a fox before anything")
    tab.until(tab.job)
    tab.script(LET_GO)
    made(tab, server, record, before, "a fox before anything")


def test_while_a_message_comes_and_goes(late: Callable[..., Tab], server: Server, record: Records) -> None:
    """The button does not move between press and release, also when an error of the form appears."""
    before = len(record(server))
    tab = late("_check")
    tab.write("#prompt textarea", "a fox under a finger")
    tab.number("frames", 6)
    held(tab)
    button = tab.until(lambda: tab.find("#generate"))
    tab.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    tab.settled()
    ActionChains(tab.driver).click_and_hold(button).perform()
    tab.until(lambda: tab.script(LET_GO) or tab.text("#problem"))
    ActionChains(tab.driver).release().perform()
    # the click was answered: with the error, once
    assert "frames" in tab.problem("frames")
    tab.number("frames", 5)
    ActionChains(tab.driver).click_and_hold(button).perform()
    tab.until(lambda: tab.script(LET_GO) or not tab.text("#problem"))
    ActionChains(tab.driver).release().perform()
    made(tab, server, record, before, "a fox under a finger")


def test_right_after_a_field_was_changed(late: Callable[..., Tab], server: Server, record: Records) -> None:
    """The answer to the check of the last change arrives after the click."""
    before = len(record(server))
    tab = late("_check")
    tab.generate("a fox in a hurry", steps=3, frames=9)
    held(tab)
    tab.until(tab.job)
    tab.script(LET_GO)
    made(tab, server, record, before, "a fox in a hurry")
    assert record(server)[-1]["request"]["frames"] == 9


def test_while_the_click_before_is_on_its_way(
    late: Callable[..., Tab], server: Server, record: Records
) -> None:
    """Who clicks twice wants two videos, however long the first answer takes."""
    before = len(record(server))
    tab = late("_submit")
    tab.generate("a fox and its twin")
    held(tab)
    tab.click("#generate")
    held(tab, 2)
    tab.script(LET_GO)
    tab.until(lambda: len(record(server)) == before + 2)
    assert [run["request"]["prompt"] for run in record(server)[before:]] == ["a fox and its twin"] * 2
