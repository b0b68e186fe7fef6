"""The language of the page: the browser's, then that of the switch, which keeps the form and the job."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest

pytest.importorskip("gradio", reason="the page needs gradio")
pytest.importorskip("selenium", reason="the tests in a browser need selenium")

from selenium.webdriver import ActionChains
from selenium.webdriver.common.keys import Keys

from lightx2v_gradio.texts import TEXTS

from .tab import Server, Tab

pytestmark = pytest.mark.slow
Visit: TypeAlias = Callable[..., Tab]

#: texts of the page that a reader sees or hears, without those of the core and of plugins
TEXTS_SHOWN = """
const own = (item) => !item.closest('[lang=en], #model, #absent, #results, [role=listbox], #record, script, style');
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const texts = [];
while (walker.nextNode()) {
  const item = walker.currentNode.parentElement;
  if (own(item) && item.checkVisibility()) texts.push(walker.currentNode.textContent.trim());
}
for (const item of document.querySelectorAll('[aria-label], [title], [alt]')) {
  if (!own(item) || !item.checkVisibility()) continue;
  for (const name of ['aria-label', 'title', 'alt']) texts.push(item.getAttribute(name) || '');
}
return texts.filter((text) => text);
"""


@pytest.fixture
def accepting(driver: Any) -> Iterator[Callable[[str], None]]:
    """Sets the languages of the browser."""
    agent = driver.execute_script("return navigator.userAgent")

    def accept(languages: str) -> None:
        driver.execute_cdp_cmd(
            "Network.setUserAgentOverride", {"userAgent": agent, "acceptLanguage": languages}
        )

    yield accept
    accept("en-US,en")


def in_language(tab: Tab, language: str) -> None:
    """Wait for the page in a language."""
    label = TEXTS[language]("prompt")
    tab.until(lambda: label == tab.text("#prompt label > span:first-child, #prompt [data-testid=block-info]"))
    tab.until(lambda: tab.find("#forecast .lx-forecast"))
    assert tab.script("return document.documentElement.lang") == TEXTS[language].tag
    assert tab.text("#generate") == TEXTS[language]("generate")
    assert tab.text("#language") == TEXTS[language]("page.other_language")


def test_the_browser_chooses_and_the_switch_persists(
    visit: Visit, server: Server, accepting: Callable[[str], None]
) -> None:
    accepting("zh-CN,zh,en")
    tab = visit(server)
    in_language(tab, "zh")
    # the switch, with a key; the form stays
    tab.write("#prompt textarea", "一只狐狸")
    tab.part(TEXTS["zh"]("sampling"))
    tab.number("steps", 3)
    for language, key in (("en", Keys.ENTER), ("zh", Keys.SPACE), ("en", Keys.SPACE)):
        tab.script("document.querySelector('#language').focus()")
        ActionChains(tab.driver).send_keys(key).perform()
        in_language(tab, language)
        tab.until(lambda: tab.attribute("#prompt textarea", "value") == "一只狐狸")
    # a reload keeps the language, a job's address too
    tab.driver.refresh()
    in_language(tab, "en")
    tab.generate("a fox with an address", steps=2)
    tab.status(tab.start_of("status.done"))
    address = tab.driver.current_url
    assert "job=" in address
    tab.click("#language")
    in_language(tab, "zh")
    assert tab.driver.current_url == address
    tab.status(TEXTS["zh"].catalogue["status.done"].partition("{")[0])
    tab.until(lambda: tab.find("#result video"))
    tab.driver.get(address)
    in_language(tab, "zh")
    tab.until(lambda: tab.find("#result video"))


def test_two_tabs_have_two_languages(visit: Visit, server: Server) -> None:
    """A switch in one tab leaves the texts of another one alone until it is loaded again."""
    tab = visit(server)
    tab.driver.switch_to.new_window("tab")
    other = Tab(tab.driver, server, "zh").open()
    other.click("#language")
    in_language(other, "zh")
    tab.here()
    tab.generate(" ")
    assert tab.problem("no prompt") == TEXTS["en"]("error.prompt")
    tab.generate("a fox in two languages", steps=2)
    tab.status("Done in")
    assert "Download video" in tab.text("#result")
    other.here()
    other.generate(" ")
    assert other.problem("没有提示词") == TEXTS["zh"]("error.prompt")


def test_chinese_pages_have_no_english_texts(visit: Visit, server: Server) -> None:
    tab = visit(server, "zh")
    tab.generate("狐狸", steps=2)
    tab.done()
    for key in ("model.change", "sampling", "lora", "machine", "absent", "record"):
        tab.part(tab.texts(key))
    tab.choose("size", tab.texts("size.free"))
    tab.until(lambda: "狐狸" in tab.text("#results"))
    tab.settled()
    texts = tab.script(TEXTS_SHOWN)
    assert len(texts) > 50
    # names: of the product, in brackets, of a scheduler, a LoRA file, a key, a unit
    names = re.compile(
        r"lightx2v-core|English|\([^)]*\)|unipc|swirl|Shift\+Enter|GB|MB|CFG|LoRA|VAE|sdpa|FPS"
    )
    english = [text for text in texts if re.search("[A-Za-z]{2}", names.sub("", text))]
    assert english == []
