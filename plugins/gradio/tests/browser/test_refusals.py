"""Errors are reported in one message, and no video is generated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

pytest.importorskip("gradio", reason="the page needs gradio")
pytest.importorskip("selenium", reason="the tests in a browser need selenium")

from .tab import Server, Tab

pytestmark = [pytest.mark.slow, pytest.mark.load]
Records: TypeAlias = Callable[[Any], list[dict[str, Any]]]


def test_an_error_is_one_message(tab: Tab, image_model: Path, tmp_path: Path) -> None:
    tab.generate(" ")
    assert tab.problem("no prompt") == "no prompt; describe the video"
    tab.write("#prompt textarea", "a fox")
    tab.until(lambda: not tab.text("#refused"))
    tab.choose("size", "Custom size")
    tab.number("width", 250)
    shown = tab.problem("instead of 250")  # while it is typed, of 2 and of 25
    assert shown == "wan2.1-t2v-164k: width must be divisible by 16: instead of 250 use 240 or 256"
    tab.number("width", 64)
    tab.until(lambda: not tab.text("#problem"))

    tab.part("Change model")
    tab.write("#folder textarea, #folder input", "/nowhere/at/all")
    tab.click("#open")
    assert "/nowhere/at/all" in tab.problem("does not exist")
    tab.write("#folder textarea, #folder input", image_model)
    tab.click("#open")
    tab.until(lambda: "wan2.1-i2v" in tab.text("#model"))

    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG but not really")
    tab.upload("image", broken)
    said = tab.problem("is not a readable image")
    assert "'broken.png'" in said
    assert str(tab.server.output) not in said
    tab.write("#prompt textarea", "it runs")
    tab.click("#generate")
    assert "is not a readable image" in tab.problem("broken.png")

    # a file above the limit never leaves the browser
    large = tmp_path / "large.png"
    large.write_bytes(b"\x89PNG" + bytes(4_000_000))
    tab.click("#image [aria-label=Clear], #image [aria-label='Remove Image'], #image [title=Clear]")
    tab.upload("image", large)
    said = tab.until(lambda: tab.text(".toast-body"))
    assert "exceed the maximum allowed size" in said
    assert '"large.png"' in said

    # no video was generated
    tab.open()
    assert "job=" not in tab.driver.current_url
    assert "No video yet" in tab.text("#empty")
    assert tab.text("#status") == ""
    assert tab.text("#jobs") == tab.text("#results") == ""


def test_a_bad_size_makes_no_video(tab: Tab, server: Server, record: Records) -> None:
    before = len(record(server))
    tab.choose("size", "Custom size")
    tab.number("width", 250)
    tab.problem("instead of 250")
    tab.generate("too wide")
    tab.number("width", 64)
    tab.until(lambda: not tab.text("#problem"))
    tab.generate("as wide as it can be", steps=2)
    tab.until(lambda: "as wide as it can be" in tab.text("#results") and tab.status("Done in"))
    assert [run["request"]["prompt"] for run in record(server)[before:]] == ["as wide as it can be"]
