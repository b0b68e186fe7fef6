"""The pictures of docs/ui.md: ``python docs/ui_pictures.py MODEL_FOLDER [PROMPT]``.

Starts the page of a model, uses it in a headless Chromium, and writes docs/pictures/ui-*.png. Needs
lightx2v-gradio[page], selenium, chromium and chromedriver.
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
#: a picture of the docs is not larger than this
LARGEST = 150_000


def main(model: str, prompt: str) -> None:
    """Take every picture."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        words = ["ui", "--model-path", str(Path(model).resolve()), "--port", "0"]
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "lightx2v_core", *words],
            cwd=folder,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        try:
            url = next(line.split()[1] for line in process.stdout if line.startswith("open http"))
            options = webdriver.ChromeOptions()
            options.binary_location = "/usr/bin/chromium"
            for flag in (*FLAGS, f"--user-data-dir={folder}/chromium"):
                options.add_argument(flag)
            driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
            try:
                take_all(driver, url, prompt)
            finally:
                driver.quit()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def take_all(driver: Any, url: str, prompt: str) -> None:
    """The states of the page: before, wrong, at work, done; on a wide screen and on a telephone."""
    window(driver, 1400, 900, "light")
    driver.get(url)
    until(lambda: "Plan:" in text(driver, "#forecast"))
    box = shown(driver, "#prompt textarea")
    box.send_keys(prompt)
    time.sleep(1)
    take(driver, "ui-start")
    choose(driver, "size", "another size")
    number(driver, "width", 250)
    number(driver, "height", 160)
    until(lambda: "must be divisible" in text(driver, "#problem"))
    take(driver, "ui-wrong")
    number(driver, "width", 256)
    number(driver, "frames", 17)
    until(lambda: not text(driver, "#problem"))
    fold(driver, "Sampling")
    number(driver, "steps", 60)
    fold(driver, "Sampling")
    shown(driver, "#generate").click()
    until(lambda: shown(driver, "#preview img") and "left" in text(driver, "#status"))
    driver.execute_script("window.scrollTo(0, 0)")
    take(driver, "ui-working")
    until(lambda: "Done in" in text(driver, "#status") and shown(driver, "#result video"))
    time.sleep(2)
    driver.execute_script("window.scrollTo(0, 0)")
    take(driver, "ui-done")
    window(driver, 400, 860, "dark")
    driver.get(url)
    until(lambda: shown(driver, "#result video"))
    fold(driver, "Precision, speed and memory")
    time.sleep(1)
    driver.execute_script("window.scrollTo(0, 0)")
    take(driver, "ui-phone-dark")


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
            pass  # the page is being drawn anew
        time.sleep(0.2)
    raise SystemExit("the page did not get there in ten minutes")


def shown(driver: Any, selector: str) -> Any:
    found = [item for item in driver.find_elements(By.CSS_SELECTOR, selector) if item.is_displayed()]
    return found[0] if found else None


def text(driver: Any, selector: str) -> str:
    item = shown(driver, selector)
    return "" if item is None else str(item.text)


def number(driver: Any, name: str, value: int) -> None:
    item = until(lambda: shown(driver, f"#{name} input"))
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
            item.click()
            time.sleep(0.5)


def take(driver: Any, name: str) -> None:
    """One picture, with no more colours than it needs to be small."""
    picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    for colours in (256, 128, 64, 32):
        buffer = io.BytesIO()
        picture.quantize(colours, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
        if buffer.tell() <= LARGEST:
            break
    (PICTURES / f"{name}.png").write_bytes(buffer.getvalue())


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        raise SystemExit(__doc__)
    main(sys.argv[1], sys.argv[2] if len(sys.argv) == 3 else "a red fox runs through the snow")
