"""Runs of the tiny checkpoints: recognized by exactly one model each, every task, from inputs in memory."""

import pytest
import torch

from lightx2v_core import load
from lightx2v_core.api import RequestError
from lightx2v_wan22.tiny import write_tiny_a14b, write_tiny_animate, write_tiny_ti2v

FAST = {"dtype": "float32", "steps": 2, "frames": 5}


def pixels(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(len(shape))) * 2 - 1


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folder of each tiny checkpoint."""
    found = {name: tmp_path_factory.mktemp(name) for name in ("t2v", "i2v", "ti2v", "animate")}
    write_tiny_a14b(found["t2v"])
    write_tiny_a14b(found["i2v"], images=True)
    write_tiny_ti2v(found["ti2v"])
    write_tiny_animate(found["animate"])
    return found


@pytest.mark.parametrize(
    ("name", "task", "model", "inputs"),
    [
        ("t2v", "t2v", "wan2.2-a14b", {}),
        ("i2v", "i2v", "wan2.2-a14b", {"image": pixels(3, 40, 60)}),
        ("i2v", "flf2v", "wan2.2-a14b", {"image": pixels(3, 40, 60), "last_image": pixels(3, 50, 50)}),
        ("ti2v", "t2v", "wan2.2-ti2v", {}),
        ("ti2v", "i2v", "wan2.2-ti2v", {"image": pixels(3, 40, 60)}),
    ],
)
def test_task_runs(name, task, model, inputs, folders):
    pipeline = load(folders[name], task=task, size=(96, 64), **FAST)
    assert pipeline.plan.model == f"wan22/{model}"
    assert not pipeline.plan.warnings
    video = pipeline.generate(prompt="a red fox", **inputs)
    request = video.plan.request
    assert video.frames.shape == (3, 5, request.height, request.width)
    assert video.frames.isfinite().all()


@pytest.mark.parametrize("scaled", [None, True])
@pytest.mark.parametrize(("name", "task"), [("t2v", "t2v"), ("i2v", "i2v"), ("ti2v", "t2v")])
def test_tiny_vae_decodes(name, task, scaled, folders):
    family = "wan2.2-ti2v" if name == "ti2v" else "wan2.2-a14b"
    options = {family: {"tiny_vae": True, "tiny_vae_scaled": scaled}}
    config = {"model": {"use": [family], "options": options}}
    pipeline = load(folders[name], task=task, size=(96, 64), config=config, **FAST)
    inputs = {"image": pixels(3, 64, 96)} if task == "i2v" else {}
    assert pipeline.generate(prompt="a red fox", **inputs).frames.shape == (3, 5, 64, 96)


def test_first_frame_of_ti2v_is_the_image(folders):
    pipeline = load(folders["ti2v"], task="i2v", size=(96, 64), **FAST)
    image = pixels(3, 64, 96)
    one = pipeline.generate(prompt="a red fox", image=image, seed=1).latents
    other = pipeline.generate(prompt="a red fox", image=image, seed=2).latents
    assert torch.equal(one[:, 0], other[:, 0])
    assert not torch.equal(one[:, 1], other[:, 1])


@pytest.mark.parametrize(("name", "task"), [("i2v", "i2v"), ("ti2v", "i2v")])
def test_bfloat16_is_close(name, task, folders):
    image = pixels(3, 64, 96)
    exact, half = (
        load(folders[name], task=task, size=(96, 64), **{**FAST, "dtype": dtype})
        .generate(prompt="a red fox", image=image)
        .latents
        for dtype in ("float32", "bfloat16")
    )
    assert (half - exact).norm() < 0.05 * exact.norm()


def animated(folder, frames, *, segment=5, overlap=1, dtype="float32", inputs=None, **request):
    options = {"segment_frames": segment, "overlap_frames": overlap}
    pipeline = load(
        folder,
        dtype=dtype,
        steps=2,
        config={"model": {"use": ["wan2.2-animate"], "options": {"wan2.2-animate": options}}},
    )
    given = {
        "ref_images": [pixels(3, 40, 60)],
        "pose_video": pixels(3, 9, 32, 48)[:, :frames],
        "face_video": pixels(3, 5, 32, 32),
    }
    return pipeline.generate(prompt="a red fox", **(given | (inputs or {})), **request)


def test_animate_goes_in_segments(folders):
    short = animated(folders["animate"], 5)
    assert short.frames.shape == (3, 5, 32, 48)
    long = animated(folders["animate"], 9)
    assert long.frames.shape == (3, 9, 32, 48)
    # The first segment knows nothing of the second, and the last latent frames of both are there.
    assert torch.equal(long.frames[:, :5], short.frames)
    assert long.latents.shape == (16, 4, 4, 6)


def test_animate_in_bfloat16_is_close(folders):
    exact = animated(folders["animate"], 5).latents
    half = animated(folders["animate"], 5, dtype="bfloat16").latents
    assert (half - exact).norm() < 0.05 * exact.norm()


def test_animate_cuts_a_short_video(folders):
    assert animated(folders["animate"], 3).frames.shape == (3, 3, 32, 48)


def test_animate_replaces_and_guides(folders):
    plain = animated(folders["animate"], 5)
    inputs = {"background_video": pixels(3, 5, 32, 48), "mask_video": torch.zeros(5, 32, 48)}
    replaced = animated(folders["animate"], 5, inputs=inputs)
    guided = animated(folders["animate"], 5, guide_scale=(3.0,))
    batched = animated(folders["animate"], 5, guide_scale=(3.0,), batched_guidance=True)
    torch.testing.assert_close(batched.frames, guided.frames, atol=1e-4, rtol=1e-4)
    for other in (replaced, guided):
        assert other.frames.isfinite().all()
        assert not torch.equal(other.frames, plain.frames)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"background_video": pixels(3, 5, 32, 48)}, "background_video and mask_video .* give both or none"),
        ({"face_video": pixels(3, 5, 48, 32)}, "face_video is 32x48; it must be 32x32"),
        ({"ref_images": [pixels(3, 8, 8)] * 2}, "ref_images must be one image, not 2"),
        ({"pose_video": pixels(3, 5, 32, 40)}, "width must be divisible by 16: instead of 40 use 32 or 48"),
    ],
)
def test_animate_refuses(inputs, message, folders):
    with pytest.raises(RequestError, match=message):
        animated(folders["animate"], 5, inputs=inputs)
