"""A headless Chromium, and a tab of it with the page."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .tab import Server, Tab

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio",
    "--window-size=1400,1100",
)  # fmt: skip


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium; the tests are skipped without it."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="the tests in a browser need selenium")
    browser, service = shutil.which("chromium"), shutil.which("chromedriver")
    if not (browser and service):
        pytest.skip("chromium and chromedriver are not installed (tests/browser/chromium.py does it)")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    chrome = started(lambda: webdriver.Chrome(options=options, service=webdriver.ChromeService(service)))
    chrome.set_page_load_timeout(240)
    chrome.set_script_timeout(120)
    yield chrome
    chrome.quit()


def started(start: Callable[[], Any]) -> Any:
    """Start a browser. Its driver waits a minute for it, which is too short while its files are read from a busy disk;
    the next try reads them from memory."""
    from selenium.common.exceptions import SessionNotCreatedException

    for _ in range(3):
        try:
            return start()
        except SessionNotCreatedException as exc:
            reason = exc
    raise reason


@pytest.fixture
def visit(driver: Any) -> Iterator[Callable[..., Tab]]:
    """Opens the page of a server as a new visitor, in a language; resets the browser and cancels jobs afterwards."""
    from .tab import Tab

    opened: list[Tab] = []

    def visitor(server: Server, language: str = "en") -> Tab:
        driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
        if language != "en":
            cookie = {"name": "lightx2v_language", "value": language, "url": server.url}
            driver.execute_cdp_cmd("Network.setCookie", cookie)
        opened.append(Tab(driver, server, language).open())
        return opened[-1]

    yield visitor
    for tab in opened:
        tidy(tab)
    for handle in driver.window_handles[1:]:
        driver.switch_to.window(handle)
        driver.close()
    driver.switch_to.window(driver.window_handles[0])
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def tidy(tab: Tab) -> None:
    """Cancel the jobs that a failed test left, so that the next one does not wait for them."""
    from selenium.common.exceptions import WebDriverException

    tab.here()
    end = time.monotonic() + 60
    while (button := tab.find("#cancel") or tab.find("#jobs [data-job]")) and time.monotonic() < end:
        with contextlib.suppress(WebDriverException):  # it ended just now
            button.click()
        time.sleep(0.5)


@pytest.fixture
def tab(visit: Callable[[Server], Tab], server: Server) -> Tab:
    """The page of the tiny model."""
    return visit(server)
