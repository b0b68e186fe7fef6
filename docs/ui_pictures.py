"""The images of docs/ui.md: ``python docs/ui_pictures.py PROMPT... -- [options of lightx2v-core ui]``.

Starts the page, uses it in a headless Chromium, and writes docs/pictures/ui-*.png. Needs lightx2v-gradio[page],
selenium, chromium and chromedriver, and a Chinese font (fonts-wqy-microhei).
"""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

PICTURES = Path(__file__).resolve().parent / "pictures"
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--hide-scrollbars",
)  # fmt: skip
#: largest image, in bytes
LARGEST = 150_000


def main(prompts: tuple[str, ...], options: tuple[str, ...]) -> None:
    """Take every image."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "lightx2v_core", "ui", *options, "--output", folder, "--port", "0"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        try:
            url = next(line.split()[1] for line in process.stdout if line.startswith("open http"))
            chrome = webdriver.ChromeOptions()
            chrome.binary_location = "/usr/bin/chromium"
            for flag in (*FLAGS, f"--user-data-dir={folder}/chromium"):
                chrome.add_argument(flag)
            driver = webdriver.Chrome(options=chrome, service=Service("/usr/bin/chromedriver"))
            driver.set_page_load_timeout(600)
            try:
                take_all(driver, url, prompts)
            finally:
                driver.quit()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def take_all(driver: Any, url: str, prompts: tuple[str, ...]) -> None:
    """Bring the page into each state and take its image: start, error, running, done, Chinese; wide and narrow, light
    and dark."""
    window(driver, 1600, 900, "light")
    driver.get(url)
    until(lambda: "Plan:" in text(driver, "#forecast"))
    own = attribute(driver, "#size input", "value")
    until(lambda: playing(driver, "#empty"))
    take(driver, "ui-start")
    write(driver, "#prompt textarea", prompts[0])
    window(driver, 400, 860, "light")
    choose(driver, "size", "Custom size")
    write(driver, "#width input", 250)
    write(driver, "#height input", 160)
    until(lambda: "must be divisible" in text(driver, "#problem"))
    to(driver, "#size")
    take(driver, "ui-wrong")
    window(driver, 1600, 900, "light")
    choose(driver, "size", own)
    until(lambda: not text(driver, "#problem"))
    shown(driver, "#random_seed input").click()
    write(driver, "#seed input", 1)
    for prompt in prompts:
        ask(driver, prompt)
        until(lambda: "Done in" in text(driver, "#status") and playing(driver))
    write(driver, "#seed input", 2)
    fold(driver, "Sampling")
    until(lambda: shown(driver, "#steps input"))
    write(driver, "#steps input", 200)
    fold(driver, "Sampling")
    for prompt in prompts[:2]:
        ask(driver, prompt)
    until(lambda: shown(driver, "#jobs [data-job]"))
    shown(driver, "#jobs [data-job]").click()
    until(lambda: int(attribute(driver, "#status [role=progressbar]", "aria-valuenow") or 0) > 40)
    until(lambda: shown(driver, "#preview img"))
    to(driver, "body")
    take(driver, "ui-working")
    for left in (1, 0):  # the videos of this state are not needed
        until(lambda: shown(driver, "#cancel")).click()
        until(lambda: "Cancelled" in text(driver, "#status"))
        if left:
            until(lambda: shown(driver, "#jobs [data-job]")).click()
    first = driver.find_elements(By.CSS_SELECTOR, "#results [data-job]")[-1].get_attribute("data-job")
    for width, scheme, name in ((1600, "dark", "ui-done"), (400, "dark", "ui-phone")):
        window(driver, width, 1300 if width == 1600 else 900, scheme)
        driver.get(f"{url}?job={first}")
        until(lambda: playing(driver))
        shown(driver, "#reuse").click()
        until(lambda: attribute(driver, "#prompt textarea", "value") == prompts[0])
        to(driver, "body" if width == 1600 else "#status")
        take(driver, name)
    take_chinese(driver, url)


def take_chinese(driver: Any, url: str) -> None:
    """Switch to Chinese, generate the first example, and take its image."""
    window(driver, 1600, 1000, "light")
    driver.get(url)
    until(lambda: "Plan:" in text(driver, "#forecast"))
    shown(driver, "#language").click()
    until(lambda: text(driver, "#generate") == "生成")
    until(lambda: "计划" in text(driver, "#forecast"))
    before = driver.current_url
    shown(driver, "#examples [data-prompt]").click()
    until(lambda: attribute(driver, "#prompt textarea", "value").startswith("一个"))
    shown(driver, "#generate").click()
    until(lambda: driver.current_url != before)
    until(lambda: "已完成" in text(driver, "#status") and playing(driver))
    to(driver, "body")
    take(driver, "ui-chinese")


def ask(driver: Any, prompt: str) -> None:
    """Generate a video, and wait until the page shows it."""
    before = driver.current_url
    write(driver, "#prompt textarea", prompt)
    shown(driver, "#generate").click()
    until(lambda: driver.current_url != before)


def window(driver: Any, width: int, height: int, scheme: str) -> None:
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )


def until(look: Callable[[], Any]) -> Any:
    end = time.monotonic() + 600
    while time.monotonic() < end:
        try:
            if found := look():
                return found
        except WebDriverException:
            pass  # the page is being rendered
        time.sleep(0.2)
    raise SystemExit("the page did not get there in ten minutes")


def shown(driver: Any, selector: str) -> Any:
    found = [item for item in driver.find_elements(By.CSS_SELECTOR, selector) if item.is_displayed()]
    return found[0] if found else None


def text(driver: Any, selector: str) -> str:
    item = shown(driver, selector)
    return "" if item is None else str(item.text)


def attribute(driver: Any, selector: str, name: str) -> str:
    item = shown(driver, selector)
    return "" if item is None else str(item.get_attribute(name) or "")


def playing(driver: Any, place: str = "#result") -> Any:
    """Return whether a video is shown with its first frames."""
    found = shown(driver, f"{place} video")
    return found and driver.execute_script("return arguments[0].readyState > 2", found)


def to(driver: Any, selector: str) -> None:
    driver.execute_script(
        "document.querySelector(arguments[0]).scrollIntoView({behavior: 'instant'})", selector
    )


def write(driver: Any, selector: str, value: object) -> None:
    item = until(lambda: shown(driver, selector))
    item.send_keys(Keys.CONTROL, "a")
    item.send_keys(str(value), Keys.TAB)


def choose(driver: Any, name: str, label: str) -> None:
    shown(driver, f"#{name} input").click()
    options = until(
        lambda: [o for o in driver.find_elements(By.CSS_SELECTOR, "[role=option]") if label in o.text]
    )
    options[0].click()


def fold(driver: Any, title: str) -> None:
    for item in driver.find_elements(By.CSS_SELECTOR, "button.label-wrap"):
        if title in item.text:
            driver.execute_script("arguments[0].click()", item)


def take(driver: Any, name: str) -> None:
    """Write an image of the page once all transitions have ended."""
    moving = (
        "return document.getAnimations().some((item) => item.playState === 'running'"
        " && item.effect.getComputedTiming().endTime !== Infinity)"
    )
    until(lambda: not driver.execute_script(moving))
    picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    for colours in (256, 128, 64, 32):  # fewer only for a file below the limit
        buffer = io.BytesIO()
        picture.quantize(colours, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
        if buffer.tell() <= LARGEST:
            break
    (PICTURES / f"{name}.png").write_bytes(buffer.getvalue())


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    arguments = sys.argv[1:]
    middle = arguments.index("--") if "--" in arguments else len(arguments)
    main(tuple(arguments[:middle]), tuple(arguments[middle + 1 :]))
