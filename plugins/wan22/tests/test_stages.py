"""Changing the resolution of A14B: two experts, the sizes of the stages, and a change near the boundary."""

import json
import subprocess
import sys

import pytest
import torch
from attrs import evolve
from PIL import Image
from safetensors.torch import load_file

from lightx2v_core import load
from lightx2v_core.api import ConfigError, RequestError, Step
from lightx2v_wan22.options import A14bOptions
from lightx2v_wan22.tiny import write_tiny_a14b, write_tiny_ti2v

PROMPT, SEED, SHIFT = "a red fox", 3, 5.0


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("stages")
    write_tiny_a14b(root / "t2v")
    write_tiny_a14b(root / "i2v", images=True)
    Image.effect_mandelbrot((96, 64), (-2, -1, 1, 1), 40).convert("RGB").save(root / "image.png")
    return root


def options(**said):
    return {"model": {"use": ["wan2.2-a14b"], "options": {"wan2.2-a14b": said}}}


def by_hand(pipeline, inputs, rate, end, steps, scales, boundary):
    """Compute the latents and the experts of a run with one change: resized by torch, Euler steps, without the loop."""
    model, request = pipeline._model, pipeline.resolve(prompt=PROMPT, seed=SEED, **inputs).plan.request
    full = (request.height // 8, request.width // 8)
    sides = [tuple(int(side * rate) // 2 * 2 for side in full), full]
    generator = torch.Generator().manual_seed(SEED)
    noise = [torch.randn(16, 2, *side, generator=generator) for side in sides]
    with torch.inference_mode():
        encoded = [
            model.encode(
                evolve(request, height=8 * rows, width=8 * columns),
                inputs,
                guided=True,
                emit=lambda event: None,
            )
            for rows, columns in sides
        ]
    x, experts = noise[0], []
    for index in range(steps):
        stage = int(index >= end)
        shift, found = SHIFT + stage, encoded[stage]
        level = [shift * u / (1 + (shift - 1) * u) for u in (1 - index / steps, 1 - (index + 1) / steps)]
        experts.append(int(level[0] < boundary))
        step = Step(index=index, count=steps, timestep=1000 * level[0], sigma=level[0])
        with torch.inference_mode():
            (cond,) = model.predict(x, step, [found.positive], found.shared)
            (uncond,) = model.predict(x, step, [found.negative], found.shared)
            v = uncond + scales[experts[-1]] * (cond - uncond)
            if index + 1 == end:
                clean = torch.nn.functional.interpolate(
                    (x - level[0] * v)[None], (2, *full), mode="trilinear"
                )[0]
                x = (1 - level[0]) * clean + level[0] * noise[1]
            else:
                x = x + (level[1] - level[0]) * v
    return x, experts


@pytest.mark.parametrize("task", ["t2v", "i2v"])
def test_a_run_equals_the_formulas_beside_the_boundary(task, folders):
    """Step 15 is below the boundary. The change after it raises the shift, so step 16 is above it again."""
    inputs = {"image": str(folders / "image.png")} if task == "i2v" else {}
    said = options(changing_resolution_rates=[0.75], changing_resolution_steps=[15], boundary=0.854)
    pipeline = load(
        folders / task, task=task, config=said, scheduler="euler", steps=30, frames=5, size=(64, 48),
        shift=SHIFT, guide_scale=(4.0, 2.0), dtype="float32",
    )  # fmt: skip
    seen = []
    video = pipeline.generate(prompt=PROMPT, seed=SEED, on_event=seen.append, **inputs)
    expected, experts = by_hand(pipeline, inputs, 0.75, 15, 30, (4.0, 2.0), 0.854)
    assert experts == [0] * 14 + [1, 0] + [1] * 14
    assert [event.expert for event in seen if event.kind == "step"] == experts
    torch.testing.assert_close(video.latents, expected, atol=2e-3, rtol=1e-3)


def test_distilled_steps_change_the_resolution(folders):
    """Four fixed steps: the change is counted in them, and so is the split between the experts."""
    said = options(changing_resolution_rates=[0.5], changing_resolution_steps=[2], boundary_step_index=2)
    pipeline = load(folders / "t2v", config=said, scheduler="distill", frames=5, size=(64, 64), shift=SHIFT)
    seen = []
    video = pipeline.generate(prompt=PROMPT, seed=SEED, on_event=seen.append)
    steps = [event for event in seen if event.kind == "step"]
    levels = [(6 if t < 600 else 5, t / 1000) for t in (1000, 750, 500, 250)]
    assert [event.timestep for event in steps] == pytest.approx(
        [1000 * s * u / (1 + (s - 1) * u) for s, u in levels]
    )
    assert [event.expert for event in steps] == [0, 0, 1, 1]
    assert video.latents.shape == (16, 2, 8, 8)


@pytest.mark.parametrize("task", ["t2v", "i2v"])
def test_the_command_line_changes_the_resolution(task, folders, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(options(changing_resolution_rates=[0.5])), encoding="utf-8")
    inputs = ["--image", folders / "image.png"] if task == "i2v" else []
    line = [
        sys.executable, "-m", "lightx2v_core", "run", config, "--model-path", folders / task, "--task", task,
        "--prompt", PROMPT, "--size", "96x64", "--frames", "5", "--steps", "4", *inputs,
        "--output", tmp_path / "out.mp4", "--dump-tensors", tmp_path / "dump.safetensors",
    ]  # fmt: skip
    done = subprocess.run([*map(str, line)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert load_file(tmp_path / "dump.safetensors")["video"].shape == (3, 5, 64, 96)
    record = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [(stage["start"], stage["latent_shape"]) for stage in record["stages"]] == [
        (0, [16, 2, 4, 6]),
        (2, [16, 2, 8, 12]),
    ]


def test_what_cannot_change_is_refused(folders, tmp_path):
    image = str(folders / "image.png")
    with pytest.raises(RequestError, match="for t2v and i2v, not for flf2v"):
        load(folders / "i2v", task="flf2v", config=options(changing_resolution_rates=[0.5])).resolve(
            image=image, last_image=image
        )
    with pytest.raises(ValueError, match="last step of each of 1 rates"):
        A14bOptions(changing_resolution_rates=(0.5,), changing_resolution_steps=(1, 2))
    write_tiny_ti2v(tmp_path)
    said = {
        "model": {"use": ["wan2.2-ti2v"], "options": {"wan2.2-ti2v": {"changing_resolution_rates": [0.5]}}}
    }
    with pytest.raises(ConfigError, match="unknown key 'changing_resolution_rates'"):
        load(tmp_path, task="t2v", config=said)
