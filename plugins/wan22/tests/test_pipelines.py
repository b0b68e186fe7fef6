"""Whole runs against the official pipelines, through ``load`` and ``generate``."""

import pytest
import torch
from safetensors.torch import load_file

from lightx2v_core import load

LATENTS = {"atol": 5e-3, "rtol": 5e-3}
FRAMES = {"atol": 1e-2, "rtol": 0}


def check(video, outputs, run):
    torch.testing.assert_close(video.latents, outputs[f"{run}.latents"], **LATENTS)
    torch.testing.assert_close(video.frames, outputs[f"{run}.frames"].float(), **FRAMES)


@pytest.mark.parametrize("run", ["unipc", "distill"])
def test_t2v_a14b(run, golden, read_json):
    folder = golden("e2e_wan22_t2v_a14b")
    said = read_json(folder / "case.json")["runs"][run]
    options, more = {}, {}
    if run == "unipc":
        low, high = said["guide_scale"]
        more = {"steps": said["sampling_steps"], "guide_scale": (high, low)}
    else:
        options = {"boundary_step_index": said["boundary_step_index"]}
        more = {"scheduler": "distill"}
    pipeline = load(
        folder / "ckpt",
        dtype="float32",
        size=tuple(said["size"]),
        frames=said["frame_num"],
        shift=said["shift"],
        config={"model": {"use": ["wan2.2-a14b"], "options": {"wan2.2-a14b": options}}},
        **more,
    )
    steps = []
    video = pipeline.generate(prompt=said["prompt"], seed=said["seed"], on_event=steps.append)
    check(video, load_file(folder / "outputs.safetensors"), run)
    experts = [event.expert for event in steps if hasattr(event, "expert")]
    wanted = said.get("experts_per_step") or ["high_noise_model"] * 2 + ["low_noise_model"] * 2
    assert experts == [["high_noise_model", "low_noise_model"].index(name) for name in wanted]


def test_i2v_a14b(golden, read_json):
    folder = golden("e2e_wan22_i2v_a14b")
    said = read_json(folder / "case.json")["runs"]["unipc"]
    low, high = said["guide_scale"]
    pipeline = load(
        folder / "ckpt",
        task="i2v",
        dtype="float32",
        size=(96, said["max_area"] // 96),
        frames=said["frame_num"],
        shift=said["shift"],
        steps=said["sampling_steps"],
        guide_scale=(high, low),
    )
    video = pipeline.generate(prompt=said["prompt"], seed=said["seed"], image=folder / said["image"])
    assert [video.plan.request.width, video.plan.request.height] == said["output_size_wh"]
    check(video, load_file(folder / "outputs.safetensors"), "unipc")


@pytest.mark.parametrize("run", ["t2v", "i2v"])
def test_ti2v_5b(run, golden, read_json):
    folder = golden("e2e_wan22_ti2v_5b")
    said = read_json(folder / "case.json")["runs"][run]
    pipeline = load(
        folder / "ckpt",
        task=run,
        dtype="float32",
        size=(128, 96),
        frames=said["frame_num"],
        shift=said["shift"],
        steps=said["sampling_steps"],
        guide_scale=said["guide_scale"],
    )
    image = {} if said["image"] is None else {"image": folder / said["image"]}
    video = pipeline.generate(prompt=said["prompt"], seed=said["seed"], **image)
    assert [video.plan.request.width, video.plan.request.height] == said["output_size_wh"]
    check(video, load_file(folder / "outputs.safetensors"), run)
