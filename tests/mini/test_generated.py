"""What the trained checkpoints make, judged by looking; and that the judge notices when something is wrong.

Each mutation does to a run what a mistake in the code would do: noise levels in another order, channels that are
swapped, a prompt that never arrives. The bounds that the right run keeps have to fail then.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor

pytest.importorskip("lightx2v_mini", reason="the mini checkpoints are a distribution of their own")
import lightx2v_mini.plugin
import lightx2v_wan21.plugin
from evaluate import evaluate, jobs
from judge import judge
from lightx2v_core import Pipeline, load
from lightx2v_core.api import SchedulerSpec
from lightx2v_core.testing import plugin_set
from strips import read, videos

REPOSITORY = Path(__file__).parents[2]
T2V = lightx2v_mini.plugin.CHECKPOINTS / "t2v"
LORA = "mini/loras/framed.safetensors"
#: scenes of held-out combinations, and the shares of them in percent that are right at the least
COUNT = 16
LEAST = {"colour": 85.0, "shape": 55.0, "direction": 85.0}
Change = Callable[[Tensor], Tensor]


def reached(pipeline: Pipeline, change: Change = lambda frames: frames, **request: Any) -> dict[str, float]:
    """The shares of what the judge finds right, over the same scenes and seeds every time."""

    def make(_scene: object, text: str, seed: int) -> Tensor:
        return change(pipeline.generate(**{"prompt": text, "seed": seed, **request}).frames)

    report, _ = evaluate(jobs(COUNT, 1), make)
    return {name: report[name] for name in LEAST}


def missed(found: dict[str, float]) -> set[str]:
    return {name for name, share in found.items() if share < LEAST[name]}


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return load("mini", device="cpu", dtype="float32")


@pytest.mark.slow
def test_videos_show_what_prompts_say(pipeline: Pipeline) -> None:
    found = reached(pipeline)
    assert not missed(found), found


@pytest.mark.slow
def test_a_prompt_that_never_arrives_is_noticed(pipeline: Pipeline) -> None:
    assert missed(reached(pipeline, prompt="")) == set(LEAST)


@pytest.mark.slow
def test_frames_in_another_order_are_noticed(pipeline: Pipeline) -> None:
    assert missed(reached(pipeline, lambda frames: frames.flip(1))) == {"direction"}


@pytest.mark.slow
def test_swapped_colours_are_noticed(pipeline: Pipeline) -> None:
    assert "colour" in missed(reached(pipeline, lambda frames: frames.flip(0)))


class Backwards:
    """Euler's steps from the lowest noise level to the highest."""

    def __init__(self, steps: int, shift: float) -> None:
        levels = [index / steps for index in range(steps + 1)]
        self.sigmas = [shift * level / (1 + (shift - 1) * level) for level in levels]
        self.timesteps = [1000 * sigma for sigma in self.sigmas[1:]]

    def step(self, prediction: Tensor, index: int, latents: Tensor) -> Tensor:
        return latents.float() + (self.sigmas[index + 1] - self.sigmas[index]) * prediction.float()


@pytest.mark.slow
def test_steps_in_another_order_are_noticed() -> None:
    spec = SchedulerSpec(
        name="backwards", summary="wrong", build=lambda _options, ctx: Backwards(ctx.steps, ctx.shift)
    )
    plugins = plugin_set(spec, wan21=lightx2v_wan21.plugin, mini=lightx2v_mini.plugin)
    backwards = load("mini", device="cpu", dtype="float32", scheduler="backwards", plugins=plugins)
    assert missed(reached(backwards))
    euler = load("mini", device="cpu", dtype="float32", scheduler="euler", plugins=plugins)
    assert not missed(reached(euler))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["patch_embedding.weight", "head.head.weight"])
def test_permuted_channels_are_noticed(name: str, tmp_path: Path) -> None:
    """The latents' channels, rolled by one on their way into the network or out of it."""
    folder = tmp_path / "t2v"
    shutil.copytree(T2V, folder)
    (file,) = folder.glob("*.safetensors")
    tensors = load_file(file)
    weight = tensors[name]
    if name.startswith("patch"):
        tensors[name] = weight.roll(1, 1).contiguous()
    else:  # [places of a patch x channels, width]
        tensors[name] = weight.view(-1, 16, weight.shape[1]).roll(1, 1).reshape(weight.shape).contiguous()
    save_file(tensors, file)
    settings = lightx2v_mini.plugin.TRAINED_ON
    wrong = load(folder, device="cpu", dtype="float32", negative_prompt="", **settings)
    assert missed(reached(wrong))


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two experts with the encoders beside them. Each can do the other's work, so the look of the LoRA is merged
    into the one for low noise, which finishes the picture: then it matters which one is which."""
    pytest.importorskip("lightx2v_convert", reason="needs lightx2v-convert")
    folder, mine = tmp_path_factory.mktemp("experts") / "mini", lightx2v_mini.plugin.CHECKPOINTS / "experts"
    shutil.copytree(T2V, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json", "loras"))
    shutil.copytree(mine, folder, dirs_exist_ok=True)
    low = folder / "low_noise_model" / "diffusion_pytorch_model.safetensors"
    words = ["convert", mine / "low_noise_model", "--output", low, "--overwrite", "--quiet", "--lora", LORA]
    subprocess.run([sys.executable, "-m", "lightx2v_core", *map(str, words)], check=True)
    return folder


def looks(pipeline: Pipeline) -> set[str]:
    return {judge(pipeline.generate(prompt=text, seed=1).frames).look for _scene, text, _seed in jobs(4, 1)}


@pytest.mark.slow
def test_swapped_experts_are_noticed(experts: Path) -> None:
    pytest.importorskip("lightx2v_wan22", reason="runs two experts")
    given = {"device": "cpu", "dtype": "float32", "negative_prompt": "", **lightx2v_mini.plugin.TRAINED_ON}
    assert looks(load(experts, **given)) == {"framed"}
    high, low, aside = (experts / name for name in ("high_noise_model", "low_noise_model", "aside"))
    for path, name in ((high, aside), (low, high), (aside, low)):
        path.rename(name)
    assert looks(load(experts, **given)) == {"none"}


@pytest.mark.slow
def test_a_lora_that_never_arrives_is_noticed(pipeline: Pipeline) -> None:
    assert looks(load("mini", device="cpu", dtype="float32", loras=[LORA])) == {"framed"}
    assert looks(pipeline) == {"none"}


def readme_command() -> list[str]:
    """The first command of the README."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    line = re.search(r"lightx2v-core run configs/mini/t2v\.json [^\n]*", text)
    assert line is not None
    return shlex.split(line[0])


@pytest.mark.slow
def test_the_first_command_of_the_readme_makes_a_video_of_its_prompt(tmp_path: Path) -> None:
    words = readme_command()[1:]
    words[words.index("configs/mini/t2v.json")] = str(REPOSITORY / "configs" / "mini" / "t2v.json")
    done = subprocess.run(
        [sys.executable, "-m", "lightx2v_core", *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (video,) = tmp_path.glob("*.mp4")
    assert str(video.name) in done.stdout + done.stderr
    seen = judge(read(video))
    assert seen.first is not None
    assert (seen.first.colour, seen.first.shape, seen.first.direction) == ("red", "circle", "right")
    assert seen.ground == "blue"


#: what each video of the tour shows: colour, shape, direction, background, look
TOUR = {
    "t2v": ("red", "circle", "right", "blue", "none"),
    "chinese": ("yellow", "circle", "up", "black", "none"),
    "i2v": ("purple", "square", "left", "grey", "none"),
    "experts": ("yellow", "square", "right", "blue", "none"),
    "four-steps": ("purple", "triangle", "right", "green", "none"),
    "lora": ("white", "circle", "still", "green", "framed"),
    "int8": ("white", "square", "down", "green", "none"),
    "fp8": ("blue", "circle", "left", "white", "none"),
    "disk": ("green", "circle", "left", "black", "none"),
}


@pytest.mark.slow
def test_the_tour_shows_what_its_prompts_say() -> None:
    pytest.importorskip("lightx2v_offload", reason="the tour streams from disk")
    pytest.importorskip("lightx2v_wan22", reason="the tour runs two experts")
    page = (REPOSITORY / "examples" / "mini.md").read_text(encoding="utf-8")
    shown = {}
    for name, clip in videos(page):
        seen = judge(clip)
        assert seen.first is not None, name
        shown[name] = (seen.first.colour, seen.first.shape, seen.first.direction, seen.ground, seen.look)
    assert shown == TOUR
