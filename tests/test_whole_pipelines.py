"""VACE beside the official code, whole: masks, reference images, long and short videos, one frame, and where we differ.

The data is in ``tests/pipelines``, so every clone compares the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightx2v_wan21", reason="needs the Wan2.1 plugin")
torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

from lightx2v_core import load  # noqa: E402
from lightx2v_core.runtime.pipeline import Pipeline, Video  # noqa: E402

FOLDER = Path(__file__).parent / "pipelines" / "wan21_vace"
CASE = json.loads((FOLDER / "case.json").read_text(encoding="utf-8"))
RUNS: Mapping[str, dict[str, Any]] = CASE["runs"]
INPUTS = ("src_video", "src_mask", "ref_images")


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    return load_file(FOLDER / "outputs.safetensors")


@pytest.fixture(scope="module")
def made() -> Callable[..., Video]:
    """``made(run, **other)``: the video of a run, with some of its values replaced."""
    loaded: dict[float, Pipeline] = {}

    def make(name: str, **other: Any) -> Video:
        run = RUNS[name]
        scale = run["context_scale"]
        if scale not in loaded:
            options = {"use": ["wan2.1"], "options": {"wan2.1": {"vace_scale": scale}}}
            loaded[scale] = load(FOLDER / "ckpt", device="cpu", dtype="float32", config={"model": options})
        inputs = {key: placed(run[key]) for key in INPUTS if run[key] is not None}
        values = {
            "prompt": run["prompt"],
            "negative_prompt": run["negative_prompt"],
            "seed": run["seed"],
            "steps": run["sampling_steps"],
            "scheduler": run["sample_solver"],
            "guide_scale": (run["guide_scale"],),
            "shift": run["shift"],
            "size": tuple(run["size"]),
            "frames": run["frame_num"],
        }
        return loaded[scale].generate(**{**values, **inputs, **other})

    return make


def placed(value: str | list[str]) -> str | list[str]:
    return [str(FOLDER / name) for name in value] if isinstance(value, list) else str(FOLDER / value)


def close(video: Video, latents: Any) -> bool:
    return video.latents.shape == latents.shape and bool(
        (video.latents - latents).abs().max() <= CASE["tolerance"]["latents"]["atol"]
    )


@pytest.mark.parametrize("name", [name for name, run in RUNS.items() if "departs" not in run])
def test_a_run_equals_the_official_one(
    name: str, made: Callable[..., Video], expected: dict[str, Any]
) -> None:
    video = made(name)
    assert close(video, expected[f"{name}.latents"])
    assert list(video.frames.shape) == RUNS[name]["output_shape"]


def test_a_mask_is_resized_with_its_video(made: Callable[..., Video], expected: dict[str, Any]) -> None:
    """A departure: the official code crops a mask that is larger than its video, at the top left. Cropped so by hand
    it gives the official video; as it is, all of it counts, as of a mask of the video's size."""
    import av

    name = "mask_larger_than_video"
    official = expected[f"{name}.latents"]
    columns, rows = RUNS[name]["output_shape"][3], RUNS[name]["output_shape"][2]
    with av.open(str(FOLDER / RUNS[name]["src_mask"])) as container:
        frames = [torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    mask = torch.stack(frames)
    assert mask.shape[1] > rows
    assert mask.shape[2] > columns
    assert close(made(name, src_mask=mask[:, :rows, :columns].contiguous()), official)
    ours = made(name)
    assert not close(ours, official)
    assert ours.latents.shape == official.shape


def test_a_length_that_is_asked_for_is_kept(made: Callable[..., Video], expected: dict[str, Any]) -> None:
    """A departure: the official code uses every frame of a small source video, regardless of ``--frame_num``. With a
    request for at least as many frames the video is the official one."""
    official = expected["video_only.latents"]
    assert RUNS["video_only"]["output_shape"][1] == 29
    assert close(made("video_only", frames=33), official)
    ours = made("video_only", frames=13)
    assert ours.frames.shape[1] == 13
    assert ours.latents.shape[1] < official.shape[1]
