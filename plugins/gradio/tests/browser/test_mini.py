"""The trained model on the page; a program judges its videos."""

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
Visit: TypeAlias = Callable[..., Tab]
TOOLS = Path(__file__).resolve().parents[4] / "tools" / "mini"
#: the prompt of the first command of the README, and the seed of its configuration
PROMPT = "a red circle moves to the right on a blue background"
SEED = 1
WANTED = ("red", "circle", "right", "blue")


@pytest.fixture
def judge() -> Iterator[Callable[[Any], Any]]:
    """The judge of the mini model's videos, from the folder of its training."""
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
    """Generate the video and return it as the page shows it, [3, F, H, W] in [-1, 1]."""
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
    """Return the words of the prompt that the judge recognizes."""
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
    tab.status("Cancelled. No files were kept.")
    assert not list(trained.output.glob("*.mp4"))
    assert said(judge(made(tab, trained, steps=20))) == WANTED


def test_it_follows_its_prompt(visit: Visit, trained: Server, judge: Callable[[Any], Any]) -> None:
    """Without a path the page opens with the trained model. Its videos are judged: plain, with a LoRA file, without it
    again, and in eight bits."""
    tab = visit(trained)
    assert tab.attribute("#size input", "value") == "48 × 48, square"
    tab.click("#random_seed input")
    tab.number("seed", SEED)
    plain = made(tab, trained)
    verdict = judge(plain)
    assert (said(verdict), verdict.look) == (WANTED, "none")

    tab.part("LoRA")
    look = "return [...document.querySelectorAll('[id^=lora_on_]')].filter((box) => box.innerText.includes('framed'))"
    framed = tab.until(lambda: tab.script(look))[0].get_attribute("id")
    tab.click(f"#{framed} input")
    assert judge(made(tab, trained)).look == "framed"
    tab.click(f"#{framed} input")
    assert bool((made(tab, trained) == plain).all())

    tab.part("Precision, speed and memory")
    tab.choose("precision_0", "fp8, quantized while loading (fp8-torch)")
    eight = made(tab, trained)
    assert not bool((eight == plain).all())
    assert said(judge(eight)) == WANTED


@pytest.mark.parametrize(
    ("language", "first", "second"),
    [
        ("en", PROMPT, "a large yellow square moves slowly to the left on a plain black background"),
        ("zh", "一个红色的圆形在蓝色背景上向右移动", "一个大的黄色的方块在纯色黑色背景上慢慢地向左移动"),
    ],
)
def test_it_starts_with_a_clip_and_its_examples_fill_the_prompt(
    visit: Visit, trained: Server, language: str, first: str, second: str
) -> None:
    tab = visit(trained, language)
    assert tab.attribute("#prompt textarea", "placeholder") == first
    video = tab.until(lambda: tab.find("#empty video"))
    tab.until(lambda: tab.script("return arguments[0].readyState", video) >= 2)
    assert tab.script("return [arguments[0].videoWidth, arguments[0].videoHeight]", video) == [48, 48]
    assert first in tab.text("#empty figcaption")
    shown = [button.text for button in tab.driver.find_elements("css selector", "#examples [data-prompt]")]
    assert shown[:2] == [first, second]
    assert len(shown) == 4, "three in the language of the page and one in the other"
    tab.click(f"#examples [data-prompt='{second}']")
    tab.until(lambda: tab.attribute("#prompt textarea", "value") == second)
    # a prompt that is written afterwards stays when other fields are used
    tab.write("#prompt textarea", "my own words")
    tab.number("frames", 5)
    tab.until(
        lambda: tab.texts("plan.size", width=48, height=48, frames=5, seconds="0.6") in tab.text("#forecast")
    )
    assert tab.attribute("#prompt textarea", "value") == "my own words"
    # the clip gives way to the first video
    tab.click(f"#examples [data-prompt='{first}']")
    tab.until(lambda: tab.attribute("#prompt textarea", "value") == first)
    tab.click("#generate")
    tab.done()
    assert tab.find("#empty") is None
