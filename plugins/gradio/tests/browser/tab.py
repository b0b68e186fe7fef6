"""A tab with the page, and the actions of a user."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeAlias

from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from lightx2v_gradio.texts import TEXTS

#: see conftest.py
Server: TypeAlias = Any
#: generous: the machine may be busy
PATIENCE = 180.0

#: true during a transition; endless animations do not count
MOVING = """
return document.getAnimations().some((animation) =>
  animation.playState === 'running' && animation.effect.getComputedTiming().endTime !== Infinity);
"""


class Tab:
    """A tab with the page."""

    def __init__(self, driver: Any, server: Server, language: str = "en") -> None:
        self.driver, self.server, self.texts = driver, server, TEXTS[language]
        self.handle = driver.current_window_handle

    def open(self, path: str = "") -> Tab:
        self.driver.get(self.server.url + path)
        self.until(lambda: self.find("#prompt textarea"))
        self.until(lambda: self.find("#forecast .lx-forecast"))
        return self

    def here(self) -> Tab:
        self.driver.switch_to.window(self.handle)
        return self

    def until(self, look: Callable[[], Any], seconds: float = PATIENCE) -> Any:
        """Wait until ``look`` finds something, and return it. Errors of the browser while the page is rendered are
        retried."""
        end = time.monotonic() + seconds
        last = ""
        while time.monotonic() < end:
            try:
                if value := look():
                    return value
            except WebDriverException as exc:
                last = str(exc).partition("\n")[0]
            time.sleep(0.1)
        state = {name: self.text(f"#{name}") for name in ("status", "problem", "refused", "forecast")}
        raise AssertionError(f"timed out: {last} {state}\n{self.server.log.read_text()[-2000:]}")

    def find(self, selector: str) -> Any:
        """Return the first visible element, None without one."""
        return self._seen(selector, lambda element: element)

    def text(self, selector: str) -> str:
        """Return the text of the first visible element, empty without one."""
        return str(self._seen(selector, lambda element: element.text) or "")

    def _seen(self, selector: str, read: Callable[[Any], Any]) -> Any:
        """Read from the first visible element, again if it was replaced in between."""
        for _ in range(50):
            try:
                for element in self.driver.find_elements(By.CSS_SELECTOR, selector):
                    if element.is_displayed():
                        return read(element)
                return None
            except StaleElementReferenceException:
                time.sleep(0.02)
        raise AssertionError(f"{selector} never stays")

    def upload(self, name: str, file: object) -> None:
        """Give a file to an input for files."""

        def given() -> bool:
            inputs = self.driver.find_elements(By.CSS_SELECTOR, f"#{name} input[type=file]")
            if inputs:
                inputs[0].send_keys(str(file))
            return bool(inputs)

        self.until(given)

    def click(self, selector: str) -> None:
        def clicked() -> bool:
            element = self.find(selector)
            if element is None:
                return False
            self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
            element.click()  # fails while something is on its way across it
            return True

        self.until(clicked)

    def part(self, title: str) -> None:
        """Open a folded part of the form by its title."""

        def opened() -> bool:
            for element in self.driver.find_elements(By.CSS_SELECTOR, "button.label-wrap"):
                if title in element.text:
                    if "open" not in element.get_attribute("class").split():
                        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
                        element.click()
                    return True
            return False

        self.until(opened)

    def write(self, selector: str, text: object) -> None:
        def written() -> bool:
            element = self.find(selector)
            if element is None:
                return False
            element.send_keys(Keys.CONTROL, "a")
            element.send_keys(str(text), Keys.TAB)
            return True

        self.until(written)

    def number(self, name: str, value: object) -> None:
        self.write(f"#{name} input", value)

    def choose(self, name: str, label: str) -> None:
        def chosen() -> bool:
            box = self.find(f"#{name} input")
            if box is None:
                return False
            self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", box)
            box.click()
            options = self.driver.find_elements(By.CSS_SELECTOR, "[role=option]")
            for option in options:
                if label in option.text:
                    option.click()
                    return True
            return False

        self.until(chosen)

    def generate(self, prompt: str, **numbers: object) -> None:
        self.write("#prompt textarea", prompt)
        if numbers:
            self.part(self.texts("sampling"))
        for name, value in numbers.items():
            self.number(name, value)
        self.click("#generate")

    def start_of(self, key: str) -> str:
        """Return the start of a text in the language of the tab, up to its first placeholder."""
        return self.texts.catalogue[key].partition("{")[0]

    def done(self) -> str:
        """Wait for the end of a video."""
        return self.status(self.start_of("status.done"))

    def status(self, words: str) -> str:
        return str(self.until(lambda: words in (text := self.text("#status")) and text))

    def job(self) -> str:
        return str(
            self.until(lambda: "job=" in self.driver.current_url and self.driver.current_url)
        ).partition("job=")[2]

    def problem(self, words: str) -> str:
        """Wait for an error of the form or of the button that was pressed, and return it: one message, not two."""
        return str(
            self.until(lambda: words in (text := self.text("#problem") + self.text("#refused")) and text)
        )

    def attribute(self, selector: str, name: str) -> str:
        """Return an attribute of the first visible element, empty without one."""
        return str(self._seen(selector, lambda element: element.get_attribute(name)) or "")

    def settled(self) -> None:
        """Wait for the end of all transitions."""
        self.until(lambda: not self.script(MOVING))

    def script(self, code: str, *arguments: Any) -> Any:
        return self.driver.execute_script(code, *arguments)
