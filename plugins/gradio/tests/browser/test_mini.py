"""The trained model on the page, and what a program that looks at videos says of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

pytest.importorskip("gradio", reason="the page needs gradio")
pytest.importorskip("selenium", reason="the tests in a browser need selenium")

from .tab import Server, Tab

pytestmark = pytest.mark.slow
Visit: TypeAlias = Callable[[Any], Tab]
TOOLS = Path(__file__).resolve().parents[4] / "tools" / "mini"
#: the first command of the README asks for this, and its configuration sets this seed
PROMPT = "a red circle moves to the right on a blue background"
SEED = 1
WANTED = ("red", "circle", "right", "blue")


@pytest.fixture
def judge() -> Iterator[Callable[[Any], Any]]:
    """The judge of the mini model's videos, which stands beside its training."""
    if not (TOOLS / "judge.py").is_file():
        pytest.skip("tools/mini is not beside this plugin")
    sys.path.insert(0, str(TOOLS))
    try:
        from judge import judge

        yield judge
    finally:
        sys.path.remove(str(TOOLS))


@pytest.fixture(scope="module")
def trained(serve: Callable[..., Server]) -> Server:
    """The page without a path."""
    pytest.importorskip("lightx2v_mini", reason="the trained model comes with lightx2v-mini")
    return serve(tiny=False)


def made(tab: Tab, server: Server, **numbers: object) -> Any:
    """Ask for the video, and return what the page shows then, [3, F, H, W] in [-1, 1]."""
    import av
    import torch

    before = tab.attribute("#result video", "src")
    tab.generate(PROMPT, **numbers)
    tab.until(lambda: tab.attribute("#result video", "src") not in ("", before))
    video = tab.find("#result video")
    tab.until(lambda: tab.script("return arguments[0].readyState", video) >= 2)
    file = server.output / Path(tab.attribute("#result video", "src")).name
    with av.open(str(file)) as container:
        frames = [torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    return torch.stack(frames).permute(3, 0, 1, 2).float() / 127.5 - 1


def said(verdict: Any) -> tuple[str, ...]:
    """What the prompt says, as the judge sees it."""
    first = verdict.first
    assert first is not None
    return first.colour, first.shape, first.direction, verdict.ground


def test_a_video_is_watched_cancelled_and_made(
    visit: Visit, trained: Server, judge: Callable[[Any], Any]
) -> None:
    tab = visit(trained)
    tab.click("#random_seed input")
    tab.number("seed", SEED)
    tab.generate(PROMPT, steps=1000)
    tab.status("of 1000 steps")
    first = tab.until(lambda: tab.attribute("#preview img", "src"))
    tab.until(lambda: tab.attribute("#preview img", "src") not in ("", first))
    tab.click("#cancel")
    tab.status("Cancelled. Nothing was left behind.")
    assert not list(trained.output.glob("*.mp4"))
    assert said(judge(made(tab, trained, steps=20))) == WANTED


def test_it_makes_what_it_is_told(visit: Visit, trained: Server, judge: Callable[[Any], Any]) -> None:
    """Without a path the page opens on the trained model. What it makes is judged: plain, with a LoRA file and without
    it again, and in eight bits."""
    tab = visit(trained)
    assert tab.attribute("#size input", "value") == "48 × 48, square"
    tab.click("#random_seed input")
    tab.number("seed", SEED)
    plain = made(tab, trained)
    verdict = judge(plain)
    assert (said(verdict), verdict.look) == (WANTED, "none")

    tab.part("LoRA files")
    look = "return [...document.querySelectorAll('[id^=lora_on_]')].filter((box) => box.innerText.includes('framed'))"
    framed = tab.until(lambda: tab.script(look))[0].get_attribute("id")
    tab.click(f"#{framed} input")
    assert judge(made(tab, trained)).look == "framed"
    tab.click(f"#{framed} input")
    assert bool((made(tab, trained) == plain).all())

    tab.part("Precision, speed and memory")
    tab.choose("precision_0", "fp8, made while loading (fp8-torch)")
    eight = made(tab, trained)
    assert not bool((eight == plain).all())
    assert said(judge(eight)) == WANTED


def test_its_examples_fill_the_prompt(visit: Visit, trained: Server) -> None:
    tab = visit(trained)
    example = "a large yellow square moves slowly to the left on a plain black background"
    assert tab.attribute("#prompt textarea", "placeholder") == PROMPT
    tab.choose("examples", example)
    tab.until(lambda: tab.attribute("#prompt textarea", "value") == example)
    # what is written then stays, whatever else is used
    tab.write("#prompt textarea", "my own words")
    tab.number("frames", 5)
    tab.until(lambda: "5 frames" in tab.text("#forecast"))
    assert tab.attribute("#prompt textarea", "value") == "my own words"
