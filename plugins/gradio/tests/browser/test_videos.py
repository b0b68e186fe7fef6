"""A user generates videos: progress, preview, cancelling, LoRA files, precision, two tabs, and a reload."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

pytest.importorskip("gradio", reason="the page needs gradio")
pytest.importorskip("selenium", reason="the tests in a browser need selenium")

from selenium.webdriver.common.by import By

from .tab import Server, Tab

pytestmark = [pytest.mark.slow, pytest.mark.load]
Records: TypeAlias = Callable[[Any], list[dict[str, Any]]]
#: minutes of work on any machine, to be cancelled
LONG = {"steps": 1000, "frames": 161}


def test_from_a_prompt_to_a_video(tab: Tab, server: Server, record: Records) -> None:
    before = len(record(server))
    tab.generate("a red fox <b>runs</b> ${1+1} {{x}}", steps=1000)
    progress = tab.status("of 1000 steps")
    assert progress.startswith("Denoising, ")
    tab.status("left")
    first = tab.until(lambda: tab.attribute("#preview img", "src"))
    assert first.startswith("data:image/png;base64,")
    bar = "#status [role=progressbar]"
    assert tab.attribute(bar, "aria-valuemax") == "100"
    at = int(tab.until(lambda: tab.attribute(bar, "aria-valuenow")))
    tab.until(lambda: int(tab.attribute(bar, "aria-valuenow") or 0) > at)
    tab.until(lambda: tab.attribute("#preview img", "src") not in ("", first))
    tab.status("Done in")
    video = tab.until(lambda: tab.find("#result video"))
    tab.until(lambda: tab.script("return arguments[0].readyState", video) >= 2)
    assert tab.script("return [arguments[0].videoWidth, arguments[0].videoHeight]", video) == [64, 64]
    made = record(server)[before:]
    assert [run["request"]["prompt"] for run in made] == ["a red fox <b>runs</b> ${1+1} {{x}}"]
    assert (made[0]["request"]["steps"], made[0]["request"]["frames"]) == (1000, 5)
    assert "a red fox <b>runs</b> ${1+1} {{x}}" in tab.text("#results")
    links = [link.get_attribute("href") for link in tab.driver.find_elements(By.CSS_SELECTOR, "#result a")]
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
    tab.generate("the second", **LONG)
    tab.status("of 1000 steps")
    files = set(server.output.iterdir())
    tab.click("#cancel")
    tab.status("Cancelled. No files were kept.")
    assert set(server.output.iterdir()) <= files
    tab.generate("the third", steps=3, frames=5)
    tab.status("Done in")
    assert [run["request"]["prompt"] for run in record(server)[before:]] == ["the first", "the third"]
    tab.until(lambda: "the third" in tab.text("#results") and "the first" in tab.text("#results"))


def test_a_lora_is_switched_on_and_off(tab: Tab, server: Server, record: Records) -> None:
    before = len(record(server))
    tab.click("#random_seed input")
    tab.part("LoRA")
    tab.until(lambda: "12 of 12 tensors" in tab.text("#lora_on_0"))
    for on in (True, False):
        tab.click("#lora_on_0 input")
        tab.number("lora_strength_0", 0.5)
        tab.generate("a fox with a twist" if on else "a fox without", steps=2)
        name = "a fox with a twist" if on else "a fox without"
        tab.until(lambda name=name: name in tab.text("#results") and tab.status("Done in"))
    first, second = record(server)[before:]
    assert [(lora["file"], lora["strength"]) for lora in first["loras"]] == [("swirl.safetensors", 0.5)]
    assert second["loras"] == []
    assert first["request"]["seed"] == second["request"]["seed"] == 42


def test_the_network_is_switched_to_fp8(tab: Tab, server: Server, record: Records) -> None:
    before = len(record(server))
    tab.part("Precision, speed and memory")
    tab.choose("precision_0", "fp8, quantized while loading (fp8-torch)")
    tab.generate("a fox in eight bits", steps=2)
    tab.status("Done in")
    (made,) = record(server)[before:]
    assert made["choices"]["quantizer"]["use"] == "core/fp8-torch"


def test_two_tabs_at_once(tab: Tab, server: Server) -> None:
    tab.generate("the first tab", **LONG)
    first = tab.job()
    tab.driver.switch_to.new_window("tab")
    other = Tab(tab.driver, server).open()
    # it shows the current job, with its settings
    other.until(lambda: other.attribute("#prompt textarea", "value") == "the first tab")
    other.generate("the second tab", steps=3, frames=5)
    second = other.until(lambda: other.job() != first and other.job())
    other.status("Waiting: 1 video before yours")
    assert "the first tab: running" in other.text("#jobs")
    assert "the second tab: waiting, 1 before it" in other.text("#jobs")
    tab.here().status("of 1000 steps")
    assert tab.job() == first
    tab.click("#cancel")
    tab.status("Cancelled")
    tab.generate("the first tab again", steps=2, frames=5)
    tab.until(lambda: "the first tab again" in tab.text("#results") and "Done in" in tab.text("#status"))
    other.here().status("Done in")
    assert other.job() == second
    mine = other.attribute("#result video", "src")
    assert tab.here().attribute("#result video", "src") not in ("", mine)
    # each shows the results of the other on a click
    tab.until(lambda: "the second tab" in tab.text("#results"))
    tab.click(f"#results [data-job='{second}']")
    tab.until(lambda: tab.attribute("#result video", "src") == mine)
    assert tab.job() == second


def test_one_of_the_queue_is_shown_and_cancelled(tab: Tab, record: Records, server: Server) -> None:
    before = len(record(server))
    tab.generate("at work", **LONG)
    first = tab.job()
    tab.status("of 1000 steps")
    tab.generate("in line")
    tab.status("Waiting: 1 video before yours")
    tab.click("#cancel")
    tab.status("Cancelled")
    tab.click(f"#jobs [data-job='{first}']")
    tab.status("of 1000 steps")
    tab.click("#cancel")
    tab.status("Cancelled")
    assert len(record(server)) == before


def test_a_reload_in_mid_run_finds_its_job_again(tab: Tab) -> None:
    tab.generate("it continues", **LONG)
    tab.status("of 1000 steps")
    job = tab.job()
    tab.driver.refresh()
    tab.status("of 1000 steps")
    assert tab.job() == job
    tab.until(lambda: tab.attribute("#prompt textarea", "value") == "it continues")
    tab.until(lambda: tab.attribute("#frames input", "value") == "161")
    tab.driver.get(tab.server.url)  # the address alone finds it, too
    tab.status("of 1000 steps")
    own = tab.driver.get_cookies()
    tab.driver.delete_all_cookies()
    tab.driver.get(f"{tab.server.url}?job={job}")  # a stranger does not
    tab.until(lambda: "No video yet" in tab.text("#empty"))
    tab.driver.delete_all_cookies()
    for cookie in own:
        tab.driver.add_cookie(cookie)
    tab.driver.get(f"{tab.server.url}?job={job}")
    tab.status("of 1000 steps")
    tab.click("#cancel")
    tab.status("Cancelled")


def test_nothing_leaves_this_machine(tab: Tab, server: Server) -> None:
    """Checks every request of the browser so far, and every connection of the server."""
    tab.driver.get_log("browser")
    tab.open()
    messages = [json.loads(entry["message"])["message"] for entry in tab.driver.get_log("performance")]
    asked = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert len(asked) > 20
    local = ("http://127.0.0.1:", "data:", "blob:", "about:", "chrome:")
    assert [url for url in asked if not url.startswith(local)] == []
    complaints = [entry["message"] for entry in tab.driver.get_log("browser") if entry["level"] == "SEVERE"]
    assert complaints == []
    connected = set(server.connections.read_text().splitlines())
    assert [
        where
        for where in connected
        if "127.0.0.1" not in where and "localhost" not in where and where != "None"
    ] == []
