"""Conditions other than text: against the official pipelines, and for inputs of any size and length."""

import json

import attrs
import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from lightx2v_core import load
from lightx2v_core.api import RequestError
from lightx2v_wan21.conditions import covered, folded, letterboxed, vace_mask
from lightx2v_wan21.plugin import lightx2v_models
from lightx2v_wan21.sizes import latent_frames, size_for_image, size_for_video
from lightx2v_wan21.tiny import write_tiny

PATCH = (2, 2)


def extras_of(case, golden, run, **inputs):
    """The conditions that a loaded model computes from inputs, and those of the official pipeline."""
    folder = golden(case)
    pipeline = load(folder / "ckpt", dtype="float32", size=(96, 64), frames=9)
    resolved = pipeline.resolve(**inputs)
    with torch.inference_mode():
        extras = pipeline._model._conditioner(resolved.plan.request, resolved.subject.inputs)
    outputs = load_file(folder / "outputs.safetensors")
    tolerances = json.loads((folder / "case.json").read_text(encoding="utf-8"))["tolerance"]
    return extras, {name.removeprefix(f"{run}."): tensor for name, tensor in outputs.items()}, tolerances


@pytest.mark.parametrize(
    ("case", "images"),
    [
        ("e2e_wan21_i2v", {"image": "image.png"}),
        ("e2e_wan21_flf2v", {"image": "first.png", "last_image": "last.png"}),
    ],
)
@pytest.mark.parametrize("in_memory", [False, True])
def test_images_equal_official(case, images, in_memory, golden):
    inputs = {name: str(golden(case) / file) for name, file in images.items()}
    if in_memory:
        inputs = {name: Image.open(file) for name, file in inputs.items()}
    extras, expected, tolerances = extras_of(case, golden, "unipc", **inputs)
    torch.testing.assert_close(extras.channels, expected["y"], **tolerances["y"])
    torch.testing.assert_close(extras.image, expected["clip_fea"], **tolerances["clip_fea"])


def test_a_video_and_its_mask_equal_official(golden):
    given = load_file(golden("e2e_wan21_vace") / "inputs.safetensors")
    inputs = {name: given[f"video_mask.{name}"] for name in ("src_video", "src_mask")}
    extras, expected, tolerances = extras_of("e2e_wan21_vace", golden, "video_mask", **inputs)
    torch.testing.assert_close(extras.vace, expected["vace_context"], **tolerances["y"])
    assert extras.references == 0


def test_reference_images_equal_official(golden):
    folder = golden("e2e_wan21_vace")
    images = [str(folder / f"ref_{i}.png") for i in range(2)]
    extras, expected, tolerances = extras_of("e2e_wan21_vace", golden, "ref_images", ref_images=images)
    torch.testing.assert_close(extras.vace, expected["vace_context"], **tolerances["y"])
    assert extras.references == 2


@pytest.mark.parametrize("frames", [1, 5, 9, 81])
def test_a_folded_mask_repeats_the_first_frame(frames):
    mask = torch.zeros(frames, 2, 3)
    mask[0], mask[-1] = 1, 1
    got = folded(mask)
    assert got.shape == (4, latent_frames(frames), 2, 3)
    assert (got[:, 0] == 1).all()
    if frames > 1:
        assert got[:, -1, 0, 0].tolist() == ([1, 1, 1, 1] if frames == 1 else [0, 0, 0, 1])
        assert got.sum() == 5 * 6


def test_a_vace_mask_holds_every_pixel():
    mask = torch.rand(1, 16, 24)
    got = vace_mask(mask)
    assert got.shape == (64, 1, 2, 3)
    assert torch.equal(got[8 * 3 + 5, 0], mask[0, 3::8, 5::8])
    assert vace_mask(torch.rand(9, 16, 24)).shape == (64, 3, 2, 3)


@pytest.mark.parametrize("size", [(10, 40), (40, 10), (3, 500), (32, 48)])
def test_letterboxed_images_stay_whole(size):
    got = letterboxed(torch.zeros(3, *size), 32, 48)
    assert got.shape == (3, 32, 48)
    black = got[0] == 0
    rows, columns = black.any(1).sum().item(), black.any(0).sum().item()
    assert rows == 32 or columns == 48
    assert abs(rows * size[1] - columns * size[0]) <= 2 * max(*size, 48)
    assert got[0][~black].eq(1).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("size", [(40, 40), (31, 100), (16, 24), (32, 48)])
def test_covering_frames_have_the_size(size, dtype):
    frames = torch.ones(2, 3, *size).to(dtype)
    got = covered(frames, 32, 48)
    assert (got.shape, got.dtype) == ((2, 3, 32, 48), dtype)
    assert got.float().sub(1).abs().max() < 1e-5


def test_sizes_follow_the_image():
    """Multiples of 16, nearly the area, nearly the aspect ratio."""
    generator = np.random.default_rng(0)
    for width, height in generator.integers(200, 4000, (300, 2)):
        for area in (832 * 480, 1280 * 720):
            got = size_for_image(int(width), int(height), area, PATCH)
            assert got[0] % 16 == got[1] % 16 == 0
            ideal = ((area * width / height) ** 0.5, (area * height / width) ** 0.5)
            assert all(0 <= ideal[i] - got[i] < 16 + 1e-6 for i in range(2))
    assert size_for_image(1280, 720, 1280 * 720, PATCH) == (1280, 720)
    assert size_for_image(120, 80, 6144, PATCH) == (96, 64)
    assert size_for_image(10000, 10, 6144, PATCH)[1] == 0


def test_sizes_follow_the_source_video():
    assert size_for_video(1920, 1080, 500, 1280 * 720, 81, PATCH) == (1280, 720, 81)
    assert size_for_video(1920, 1080, 40, 832 * 480, 81, PATCH) == (832, 480, 37)
    assert size_for_video(96, 64, 9, 832 * 480, 81, PATCH) == (96, 64, 9)  # never larger than it is
    assert size_for_video(8, 8, 9, 832 * 480, 81, PATCH)[:2] == (0, 0)
    generator = np.random.default_rng(0)
    for width, height in generator.integers(16, 3000, (300, 2)):
        got = size_for_video(int(width), int(height), 81, 832 * 480, 81, PATCH)
        assert got[0] * got[1] <= min(832 * 480, width * height + 16 * max(width, height))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Tiny checkpoints, loaded once for each task."""
    pipelines = {}

    def get(task):
        if task not in pipelines:
            folder = tmp_path_factory.mktemp(task)
            write_tiny(folder, task=task)
            pipelines[task] = load(folder, size=(64, 48), steps=1, prompt="a fox", frames=5)
        return pipelines[task]

    return get


@pytest.mark.parametrize("frames", [1, 9])
@pytest.mark.parametrize("size", [(40, 40), (300, 100)])
def test_i2v_of_any_size_and_length(size, frames, tiny):
    video = tiny("i2v").generate(image=Image.new("RGB", size, "red"), frames=frames)
    width, height = size_for_image(*size, 64 * 48, PATCH)
    assert video.frames.shape == (3, frames, height, width)
    assert video.frames.isfinite().all()


@pytest.mark.parametrize("last", [(40, 40), (500, 20), (20, 500)])
def test_flf2v_with_a_last_image_of_any_size(last, tiny):
    first = Image.new("RGB", (40, 40), "red")
    video = tiny("flf2v").generate(image=first, last_image=Image.new("RGB", last, "blue"))
    assert video.frames.shape == (3, 5, 48, 48)


def test_batched_guidance_gives_the_same(tiny):
    inputs = {"image": Image.new("RGB", (40, 40), "red"), "last_image": Image.new("RGB", (40, 40), "blue")}
    plain = tiny("flf2v").generate(**inputs)
    batched = tiny("flf2v").generate(**inputs, batched_guidance=True)
    torch.testing.assert_close(batched.latents, plain.latents, atol=1e-4, rtol=1e-4)


def test_flf2v_needs_room_for_two_frames(tiny):
    image = Image.new("RGB", (40, 40))
    with pytest.raises(RequestError, match="at least 5: instead of 1 use 5"):
        tiny("flf2v").generate(image=image, last_image=image, frames=1)
    with pytest.raises(RequestError, match="frames must be 4k . 1: instead of 8 use 5 or 9"):
        tiny("flf2v").generate(image=image, last_image=image, frames=8)


def test_an_image_of_impossible_shape_is_refused(tiny):
    with pytest.raises(RequestError, match="no video of 3072 pixels has the aspect ratio of image 9000x10"):
        tiny("i2v").generate(image=Image.new("RGB", (9000, 10)))


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory):
    """12 frames of 80x40."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=16)
        stream.width, stream.height, stream.pix_fmt = 80, 40, "yuv420p"
        for i in range(12):
            frame = av.VideoFrame.from_ndarray(np.full((40, 80, 3), 20 * i, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(path)


FLOAT_MASK = (torch.rand(1, 12, 40, 80) > 0.5).float()


@pytest.mark.parametrize(
    ("inputs", "shape"),
    [
        ({}, (5, 48, 64)),
        ({"ref_images": [Image.new("RGB", (30, 70))]}, (5, 48, 64)),
        ({"src_video": "clip"}, (9, 32, 80)),
        ({"src_video": "clip", "src_mask": "clip"}, (9, 32, 80)),
        ({"src_video": "clip", "src_mask": FLOAT_MASK}, (9, 32, 80)),
        ({"src_video": "clip", "src_mask": FLOAT_MASK[:, :1]}, (9, 32, 80)),
        ({"src_video": "clip", "src_mask": FLOAT_MASK[:, :6]}, (5, 32, 80)),
        (
            {"src_video": torch.zeros(3, 5, 32, 32), "ref_images": np.zeros((9, 9, 3), np.uint8)},
            (5, 32, 32),
        ),
    ],
    ids=["nothing", "image", "video", "both", "pixels", "one mask", "short mask", "video and image"],
)
def test_vace_with_any_inputs(inputs, shape, tiny, clip_file):
    inputs = {name: clip_file if isinstance(value, str) else value for name, value in inputs.items()}
    frames = 5 if not inputs or "src_video" not in inputs else 9
    video = tiny("vace").generate(**inputs, frames=frames)
    assert video.frames.shape == (3, *shape)
    # those of reference images are not decoded, so they are not among them
    assert video.latents.shape == (16, latent_frames(shape[0]), shape[1] // 8, shape[2] // 8)
    assert video.frames.isfinite().all()


def test_a_vace_request_changes_with_its_mask(tiny, clip_file):
    plain = tiny("vace").generate(src_video=clip_file)
    masked = tiny("vace").generate(src_video=clip_file, src_mask=torch.zeros(1, 12, 40, 80))
    assert not torch.equal(plain.latents, masked.latents)


def test_a_mask_needs_a_video(tiny):
    with pytest.raises(RequestError, match="src_mask needs a src_video"):
        tiny("vace").generate(src_mask=FLOAT_MASK)


def test_every_task_is_in_the_plan(tiny):
    (spec,) = lightx2v_models()
    for task, needs in spec.tasks.items():
        assert tiny(task).plan.task == task
        if needs.required:
            with pytest.raises(RequestError, match=f"task {task} needs image"):
                tiny(task).generate()
    assert attrs.asdict(tiny("vace").plan)["geometry"]["latent_shape"]
