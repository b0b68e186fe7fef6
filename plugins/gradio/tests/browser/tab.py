"""A tab with the page, and what a user does there."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeAlias

from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

#: see conftest.py
Server: TypeAlias = Any
#: generous: the machine may be busy
PATIENCE = 180.0

#: whether anything is on its way to somewhere; what goes round and round is not
MOVING = """
return document.getAnimations().some((item) =>
  item.playState === 'running' && item.effect.getComputedTiming().endTime !== Infinity);
"""


class Tab:
    """A tab with the page."""

    def __init__(self, driver: Any, server: Server) -> None:
        self.driver, self.server = driver, server
        self.handle = driver.current_window_handle

    def open(self, path: str = "") -> Tab:
        self.driver.get(self.server.url + path)
        self.until(lambda: self.find("#prompt textarea"))
        self.until(lambda: "Plan:" in self.text("#forecast"))
        return self

    def here(self) -> Tab:
        self.driver.switch_to.window(self.handle)
        return self

    def until(self, look: Callable[[], Any], seconds: float = PATIENCE) -> Any:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if found := look():
                    return found
            except StaleElementReferenceException:
                pass
            time.sleep(0.1)
        state = {name: self.text(f"#{name}") for name in ("status", "problem", "refused", "forecast")}
        raise AssertionError(f"it never happened: {state}\n{self.server.log.read_text()[-2000:]}")

    def find(self, selector: str) -> Any:
        found = [item for item in self.driver.find_elements(By.CSS_SELECTOR, selector) if item.is_displayed()]
        return found[0] if found else None

    def text(self, selector: str) -> str:
        item = self.find(selector)
        return "" if item is None else str(item.text)

    def click(self, selector: str) -> None:
        def clicked() -> bool:
            item = self.find(selector)
            if item is None:
                return False
            self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", item)
            try:
                item.click()
            except WebDriverException:  # something is still on its way across it
                return False
            return True

        self.until(clicked)

    def part(self, title: str) -> None:
        """Open a part of the form that is folded."""

        def opened() -> bool:
            for item in self.driver.find_elements(By.CSS_SELECTOR, "button.label-wrap"):
                if title in item.text:
                    if "open" not in item.get_attribute("class").split():
                        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", item)
                        item.click()
                    return True
            return False

        self.until(opened)

    def write(self, selector: str, text: object) -> None:
        item = self.until(lambda: self.find(selector))
        item.send_keys(Keys.CONTROL, "a")
        item.send_keys(str(text), Keys.TAB)

    def number(self, name: str, value: object) -> None:
        self.write(f"#{name} input", value)

    def choose(self, name: str, label: str) -> None:
        def chosen() -> bool:
            box = self.find(f"#{name} input")
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
            self.part("Sampling")
        for name, value in numbers.items():
            self.number(name, value)
        self.click("#generate")

    def status(self, words: str) -> str:
        return str(self.until(lambda: words in (said := self.text("#status")) and said))

    def job(self) -> str:
        return str(
            self.until(lambda: "job=" in self.driver.current_url and self.driver.current_url)
        ).partition("job=")[2]

    def problem(self, words: str) -> str:
        """What is said of the form or of the button that was pressed; one message, not two."""
        return str(
            self.until(lambda: words in (said := self.text("#problem") + self.text("#refused")) and said)
        )

    def attribute(self, selector: str, name: str) -> str:
        """An attribute of what is shown; empty when it has none or is not there."""
        item = self.find(selector)
        return "" if item is None else str(item.get_attribute(name) or "")

    def settled(self) -> None:
        """Wait until nothing moves any more: what is folded out, what fades in."""
        self.until(lambda: not self.script(MOVING))

    def script(self, code: str, *arguments: Any) -> Any:
        return self.driver.execute_script(code, *arguments)
