"""The page in a headless Chromium: what a user does, from the first prompt to the last error."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

pytest.importorskip("gradio", reason="the page needs gradio")
pytest.importorskip("selenium", reason="the tests in a browser need selenium")

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from .tab import Server, Tab

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER),
        reason="chromium and chromedriver are not installed (tests/chromium.py does it)",
    ),
]
Records: TypeAlias = Callable[[Any], list[dict[str, Any]]]
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio",
)  # fmt: skip


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}", "--window-size=1400,1100"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(DRIVER))
    found.set_script_timeout(60)
    yield found
    found.quit()


@pytest.fixture
def tab(driver: Any, server: Server) -> Iterator[Tab]:
    """A tab of a new visitor."""
    driver.delete_all_cookies()
    yield Tab(driver, server).open()
    for handle in driver.window_handles[1:]:
        driver.switch_to.window(handle)
        driver.close()
    driver.switch_to.window(driver.window_handles[0])


def test_from_a_prompt_to_a_video(tab: Tab, server: Server, record: Records) -> None:
    before = len(record(server))
    tab.generate("a red fox <b>runs</b> ${1+1} {{x}}", steps=1000)
    said = tab.status("of 1000 steps")
    assert said.startswith("Making the video")
    tab.status("left")
    picture = tab.until(lambda: tab.find("#preview img"))
    assert picture.get_attribute("src").startswith("data:image/png;base64,")
    assert tab.find("#status [role=progressbar]").get_attribute("aria-valuemax") == "100"
    tab.status("Done in")
    video = tab.until(lambda: tab.find("#result video"))
    tab.until(lambda: tab.script("return arguments[0].readyState", video) >= 2)
    assert tab.script("return [arguments[0].videoWidth, arguments[0].videoHeight]", video) == [64, 64]
    made = record(server)[before:]
    assert [item["request"]["prompt"] for item in made] == ["a red fox <b>runs</b> ${1+1} {{x}}"]
    assert (made[0]["request"]["steps"], made[0]["request"]["frames"]) == (1000, 5)
    assert "a red fox <b>runs</b> ${1+1} {{x}}" in tab.text("#results")
    links = [item.get_attribute("href") for item in tab.driver.find_elements(By.CSS_SELECTOR, "#result a")]
    sizes = tab.driver.execute_async_script(
        "const done = arguments[1]; Promise.all(arguments[0].map((a) => fetch(a).then((r) => r.arrayBuffer())"
        ".then((b) => b.byteLength))).then(done)",
        links,
    )
    assert all(size > 500 for size in sizes)
    assert len(sizes) == 2
    # its settings come back, and its seed
    tab.driver.get(server.url)
    tab.until(lambda: tab.find("#result video"))
    tab.click("#reuse")
    tab.until(lambda: tab.find("#prompt textarea").get_attribute("value").startswith("a red fox"))
    tab.until(lambda: tab.find("#seed input").get_attribute("value") == str(made[0]["request"]["seed"]))


def test_a_second_is_cancelled_and_a_third_is_made(tab: Tab, server: Server, record: Records) -> None:
    before = len(record(server))
    tab.generate("the first", steps=2)
    tab.status("Done in")
    tab.generate("the second", steps=1000)
    tab.status("of 1000 steps")
    files = set(server.output.iterdir())
    tab.click("#cancel")
    tab.status("Cancelled. Nothing was left behind.")
    assert set(server.output.iterdir()) <= files
    tab.generate("the third", steps=3)
    tab.status("Done in")
    assert [item["request"]["prompt"] for item in record(server)[before:]] == ["the first", "the third"]
    tab.until(lambda: "the third" in tab.text("#results") and "the first" in tab.text("#results"))


def test_a_lora_is_switched_on_and_off(tab: Tab, server: Server, record: Records) -> None:
    before = len(record(server))
    tab.click("#random_seed input")
    tab.part("LoRA files")
    tab.until(lambda: "12 of 12 tensors" in tab.text("#lora_on_0"))
    for on in (True, False):
        tab.click("#lora_on_0 input")
        tab.number("lora_strength_0", 0.5)
        tab.generate("a fox with a twist" if on else "a fox without", steps=2)
        name = "a fox with a twist" if on else "a fox without"
        tab.until(lambda name=name: name in tab.text("#results") and tab.status("Done in"))
    first, second = record(server)[before:]
    assert [(item["file"], item["strength"]) for item in first["loras"]] == [("swirl.safetensors", 0.5)]
    assert second["loras"] == []
    assert first["request"]["seed"] == second["request"]["seed"] == 42


def test_the_network_is_switched_to_fp8(tab: Tab, server: Server, record: Records) -> None:
    before = len(record(server))
    tab.part("Precision, speed and memory")
    tab.choose("precision_0", "fp8, made while loading (fp8-torch)")
    tab.generate("a fox in eight bits", steps=2)
    tab.status("Done in")
    (made,) = record(server)[before:]
    assert made["choices"]["quantizer"]["use"] == "core/fp8-torch"


def test_what_is_wrong_is_said_in_one_message(tab: Tab, image_model: Path, tmp_path: Path) -> None:
    tab.choose("size", "another size")
    tab.number("width", 250)
    said = tab.problem("width must be divisible by 16")
    assert said == "wan2.1-t2v-164k: width must be divisible by 16: instead of 250 use 240 or 256"
    tab.generate("a fox")
    time.sleep(1)
    assert "job=" not in tab.driver.current_url
    tab.number("width", 64)
    tab.until(lambda: not tab.text("#problem"))
    tab.generate(" ")
    tab.problem("there is no prompt; say what the video shows")
    tab.part("Another model")
    tab.write("#folder textarea, #folder input", "/nowhere/at/all")
    tab.click("#open")
    assert "/nowhere/at/all" in tab.problem("does not exist")
    tab.write("#folder textarea, #folder input", image_model)
    tab.click("#open")
    tab.until(lambda: "wan2.1-i2v" in tab.text("#model"))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG but not really")
    upload = tab.until(lambda: tab.driver.find_elements(By.CSS_SELECTOR, "#image input[type=file]"))[0]
    upload.send_keys(str(broken))
    said = tab.problem("is no image that can be read")
    assert "'broken.png'" in said
    assert str(tab.server.output) not in said


def test_two_tabs_at_once(tab: Tab, server: Server) -> None:
    tab.generate("the first tab", steps=1000)
    first = tab.job()
    tab.driver.switch_to.new_window("tab")
    other = Tab(tab.driver, server)
    other.driver.get(server.url)
    other.until(lambda: other.find("#prompt textarea"))
    other.generate("the second tab", steps=3)
    second = other.until(lambda: other.job() != first and other.job())
    other.until(
        lambda: (
            "Waiting: one video is made before yours" in other.text("#status")
            or "Done" in other.text("#status")
        )
    )
    assert "the first tab" in other.text("#jobs") or "Done" in other.text("#status")
    other.status("Done in")
    assert "the second tab" in other.text("#results")
    tab.here().status("Done in")
    assert tab.job() == first != second
    assert tab.find("#result video").get_attribute("src") != other.here().find("#result video").get_attribute(
        "src"
    )


def test_a_reload_in_mid_run_finds_its_job_again(tab: Tab) -> None:
    tab.generate("it goes on", steps=1000)
    tab.status("of 1000 steps")
    job = tab.job()
    tab.driver.refresh()
    tab.until(lambda: tab.find("#prompt textarea"))
    tab.status("of 1000 steps")
    assert tab.job() == job
    tab.until(lambda: tab.find("#prompt textarea").get_attribute("value") == "it goes on")
    tab.driver.get(tab.server.url)  # the address alone finds it, too
    tab.status("of 1000 steps")
    tab.driver.delete_all_cookies()
    tab.driver.get(f"{tab.server.url}?job={job}")  # a stranger does not
    tab.until(lambda: "Nothing has been asked for yet" in tab.text("#status"))


@pytest.mark.parametrize("width", [400, 1600])
def test_it_fits_its_window(driver: Any, server: Server, width: int) -> None:
    driver.delete_all_cookies()
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    try:
        tab = Tab(driver, server).open()
        for title in (
            "Another model",
            "Sampling",
            "LoRA files",
            "Precision, speed and memory",
            "What is not here",
        ):
            tab.part(title)
        time.sleep(0.5)
        assert tab.script("return document.documentElement.scrollWidth") <= width
        outside = tab.script(
            "return [...document.querySelectorAll('input, textarea, button, pre, video')].filter((item) => {"
            "const box = item.getBoundingClientRect();"
            "return box.width > 0 && getComputedStyle(item).visibility !== 'hidden' && (box.right > innerWidth + 1 ||"
            "box.left < -1)}).map((item) => item.outerHTML.slice(0, 120))"
        )
        assert outside == []
        left = tab.script("return document.querySelector('#prompt').getBoundingClientRect()")
        right = tab.script("return document.querySelector('#status').getBoundingClientRect()")
        assert (right["left"] > left["right"]) == (width == 1600)
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def focused(tab: Tab) -> str:
    """The id of what has the focus, or of what is around it."""
    return str(
        tab.script(
            "let at = document.activeElement; while (at && !at.id) at = at.parentElement; return at ? at.id : ''"
        )
    )


def test_with_the_keyboard_alone(tab: Tab) -> None:
    body = webdriver.ActionChains(tab.driver)
    assert focused(tab) == "prompt"
    body.send_keys("a fox without a mouse").perform()
    seen = []
    for _ in range(30):
        webdriver.ActionChains(tab.driver).send_keys(Keys.TAB).perform()
        seen.append(focused(tab))
        if seen[-1] == "seed":
            break
    assert [name for name in ("size", "frames", "seed") if name in seen] == ["size", "frames", "seed"]
    outline = tab.script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    webdriver.ActionChains(tab.driver).key_down(Keys.SHIFT).send_keys(Keys.TAB).key_up(Keys.SHIFT).perform()
    assert focused(tab) == "frames"
    for key in (Keys.TAB, Keys.TAB, Keys.TAB):
        webdriver.ActionChains(tab.driver).send_keys(key).perform()
        if focused(tab) == "generate":
            break
    assert focused(tab) == "generate"
    webdriver.ActionChains(tab.driver).send_keys(Keys.ENTER).perform()
    tab.status("Done in")
    tab.until(lambda: "a fox without a mouse" in tab.text("#results"))


#: what is written too faintly: [element, contrast]
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
const page = matchMedia('(prefers-color-scheme: dark)').matches ? [0, 0, 0] : [255, 255, 255];
const found = [];
for (const item of document.querySelectorAll('h1, p, span, label, button, summary, li, a, input, textarea')) {
  const box = item.getBoundingClientRect();
  const own = [...item.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!box.width || !box.height || !(own || item.value)) continue;
  const layers = [];
  for (let at = item; at; at = at.parentElement) layers.unshift(solid(getComputedStyle(at).backgroundColor));
  const below = layers.reduce((sum, layer) => over(layer, sum), page);
  const text = over(solid(getComputedStyle(item).color), below);
  const [a, b] = [light(text), light(below)].sort((x, y) => y - x);
  const ratio = (a + .05) / (b + .05);
  if (ratio < 4.5) found.push([item.outerHTML.slice(0, 160), ratio]);
}
return found;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_can_be_read(driver: Any, server: Server, scheme: str) -> None:
    """Text stands out from what is behind it at least 4.5 to 1, as WCAG AA wants."""
    driver.delete_all_cookies()
    driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    try:
        tab = Tab(driver, server).open()
        tab.part("Sampling")
        tab.part("Precision, speed and memory")
        tab.part("What is not here")
        tab.choose("size", "another size")
        tab.number("width", 250)
        tab.problem("width must be divisible")
        assert tab.script("return document.body.classList.contains('dark')") == (scheme == "dark")
        time.sleep(0.5)
        assert tab.script(CONTRAST) == []
    finally:
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_nothing_leaves_this_machine(tab: Tab, server: Server) -> None:
    """All that the browser was asked for by any page so far, and all that the server connected to."""
    tab.driver.get_log("browser")
    tab.open()
    messages = [json.loads(entry["message"])["message"] for entry in tab.driver.get_log("performance")]
    asked = [
        item["params"]["request"]["url"] for item in messages if item["method"] == "Network.requestWillBeSent"
    ]
    assert len(asked) > 20
    local = (server.url, "data:", "blob:", "about:", "chrome:")
    assert [url for url in asked if not url.startswith(local)] == []
    complaints = [entry["message"] for entry in tab.driver.get_log("browser") if entry["level"] == "SEVERE"]
    assert complaints == []
    connected = set(server.connections.read_text().splitlines())
    assert [
        where
        for where in connected
        if "127.0.0.1" not in where and "localhost" not in where and where != "None"
    ] == []


def test_the_mini_model_makes_what_it_is_told(driver: Any, serve: Callable[..., Server]) -> None:
    """Without a path the page opens on the trained model, and the judge accepts what it makes of a prompt."""
    from lightx2v_core.api import load_plugins

    if not load_plugins().provided("checkpoint"):
        pytest.skip("no checkpoint comes with an installed plugin: lightx2v-mini is not installed")
    tools = Path(__file__).resolve().parents[3] / "tools" / "mini"
    if not (tools / "judge.py").is_file():
        pytest.skip("tools/mini is not beside this plugin")
    server = serve(tiny=False)
    driver.delete_all_cookies()
    tab = Tab(driver, server).open()
    sys.path.insert(0, str(tools))
    try:
        import av
        import torch

        from judge import agreement, judge
        from prompts import plain_prompt
        from world import scenes

        scene = next(scenes(97, split="train", two=0.0))
        tab.generate(plain_prompt(scene))
        tab.status("Done in")
        (file,) = server.output.glob("*.mp4")
        with av.open(str(file)) as container:
            frames = [
                torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)
            ]
        clip = torch.stack(frames).permute(3, 0, 1, 2).float() / 127.5 - 1
        fits = agreement(scene, judge(clip))
        assert {name: fits[name] for name in ("colour", "ground")} == {"colour": True, "ground": True}
    finally:
        sys.path.remove(str(tools))
