"""``Pipeline.decode`` reproduces the frames of a video from its latents, with any number of leading latent frames and
segments; ``Video``, the dump, the record and the plan agree about them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

wan21_tiny = pytest.importorskip("lightx2v_wan21.tiny", reason="needs the Wan2.1 plugin")
wan22_tiny = pytest.importorskip("lightx2v_wan22.tiny", reason="needs the Wan2.2 plugin")
torch = pytest.importorskip("torch")

from attrs import evolve  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from lightx2v_core import load  # noqa: E402
from lightx2v_core.api import RequestError  # noqa: E402
from lightx2v_core.cli.show_plan import plan_text  # noqa: E402
from lightx2v_core.config.model import OutputConfig  # noqa: E402
from lightx2v_core.events import Event, StepDone  # noqa: E402
from lightx2v_core.plan.request import request_output  # noqa: E402
from lightx2v_core.runtime.pipeline import Pipeline  # noqa: E402
from lightx2v_core.runtime.seams import between  # noqa: E402
from lightx2v_core.testing.profiles import examples  # noqa: E402

Folder = Callable[[str], Path]
#: one step is enough: the decoded images need no content
FAST = {"dtype": "float32", "device": "cpu", "steps": 1, "scheduler": "euler", "guide_scale": 1}


def pixels(*shape: int) -> Any:
    return torch.rand(shape, generator=torch.Generator().manual_seed(len(shape))) * 2 - 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A tiny checkpoint by name, written once."""
    root = tmp_path_factory.mktemp("models")

    def find(name: str) -> Path:
        if not (root / name).exists():
            (root / name).mkdir()
            if name == "animate":
                wan22_tiny.write_tiny_animate(root / name)
            elif name == "ti2v":
                wan22_tiny.write_tiny_ti2v(root / name)
            elif name.startswith("a14b"):
                wan22_tiny.write_tiny_a14b(root / name, images=name == "a14b-images")
            else:
                wan21_tiny.write_tiny(root / name, 0, name)
        return root / name

    return find


def animation(segment: int = 5, overlap: int = 1) -> dict[str, Any]:
    options = {"segment_frames": segment, "overlap_frames": overlap}
    return {"config": {"model": {"use": ["wan2.2-animate"], "options": {"wan2.2-animate": options}}}}


def danced(frames: int) -> dict[str, Any]:
    return {
        "ref_images": [pixels(3, 40, 60)],
        "pose_video": pixels(3, 24, 32, 48)[:, :frames],
        "face_video": pixels(3, 5, 32, 32),
    }


#: name of the checkpoint, task, arguments of ``load``, and the request
CASES: dict[str, tuple[str, str | None, dict[str, Any], dict[str, Any]]] = {
    "t2v": ("t2v", None, {}, {"frames": 9, "size": (32, 32)}),
    "t2v, one frame": ("t2v", None, {}, {"frames": 1, "size": (32, 48)}),
    "flf2v": (
        "flf2v", None, {},
        {"frames": 5, "size": (32, 32), "image": pixels(3, 40, 40), "last_image": pixels(3, 30, 30)},
    ),
    "a14b i2v": ("a14b-images", "i2v", {}, {"frames": 5, "size": (32, 32), "image": pixels(3, 40, 40)}),
    "ti2v i2v": ("ti2v", "i2v", {}, {"frames": 5, "size": (64, 32), "image": pixels(3, 40, 60)}),
    **{
        f"vace, {count} references{', a video' * video}": (
            "vace", None, {},
            {
                "frames": 9, "size": (32, 32),
                **({"ref_images": [pixels(3, 20 + n, 30) for n in range(count)]} if count else {}),
                **({"src_video": pixels(3, 9, 32, 32)} if video else {}),
            },
        )
        for count, video in ((0, False), (0, True), (1, False), (2, True), (3, False))
    },
    **{
        f"animate, {frames} frames in segments of {segment} over {overlap}": (
            "animate", None, animation(segment, overlap), danced(frames)
        )
        for segment, overlap, frames in (
            (5, 1, 5), (5, 1, 3), (5, 1, 9), (5, 1, 12), (9, 5, 13), (9, 5, 15)
        )
    },
}  # fmt: skip
DUMPED = ("t2v", "vace, 2 references, a video", "animate, 12 frames in segments of 5 over 1")


@pytest.mark.parametrize("name", CASES)
def test_decoding_latents_gives_the_frames(name: str, folder: Folder, tmp_path: Path) -> None:
    checkpoint, task, told, request = CASES[name]
    seen: list[Any] = []

    def watch(event: Event) -> None:
        if isinstance(event, StepDone) and event.clean is not None:
            seen.append(event.clean())

    with load(folder(checkpoint), task=task, **FAST, **told) as pipeline:
        video = pipeline.generate(prompt="a red fox", on_event=watch, **request)
        frames = pipeline.decode(video.latents, frames=video.frames.shape[1])
        assert torch.equal(frames, video.frames)
        assert not frames.is_inference()
        everything = pipeline.decode(video.latents)
        assert torch.equal(everything[:, : video.frames.shape[1]], video.frames)
        if video.plan.geometry.overlap is None:
            assert torch.equal(everything, video.frames)  # there is nothing to cut
        # the plan knew it, and the record says it
        assert tuple(video.latents.shape) == video.plan.geometry.video_latents
        assert video.record["latent_shape"] == list(video.latents.shape)
        # what a preview shows are latents of the same frames; of the last step those that are decoded
        assert seen[-1].shape[2:] == video.latents.shape[2:]
        if checkpoint != "ti2v":  # whose first frame is written in after every step
            torch.testing.assert_close(seen[-1], video.latents[:, -seen[-1].shape[1] :])
        if name in DUMPED:
            dumped(pipeline, video, request, tmp_path)


def dumped(pipeline: Pipeline, video: Any, request: dict[str, Any], folder: Path) -> None:
    """What ``--dump-tensors`` stores is the same, and decodes as well; the record beside it agrees."""
    resolved = pipeline.resolve(prompt="a red fox", **request)
    target = OutputConfig(path=str(folder / "frames") + "/")
    config = evolve(resolved.location.loaded.config, output=target)
    output = request_output(config, resolved.setup.match, resolved.plan.request, resolved.subject.inputs)
    pipeline.generate_to(resolved, output, dump=folder / "dump.safetensors")
    stored = load_file(folder / "dump.safetensors")
    assert torch.equal(stored["latents"], video.latents)
    assert torch.equal(stored["video"], video.frames)
    again = pipeline.decode(stored["latents"], frames=stored["video"].shape[1])
    assert torch.equal(again, stored["video"])
    record = json.loads(next((folder / "frames").glob("*.json")).read_text(encoding="utf-8"))
    assert record["latent_shape"] == list(stored["latents"].shape)
    assert record["segments"] == video.plan.geometry.segments


@pytest.mark.parametrize(
    ("segments", "text"),
    [(1, "of reference images in front "), (3, "in each of 3 segments, overlapping by 1 frame")],
)
def test_a_plan_tells_of_segments_and_references(segments: int, text: str, folder: Folder) -> None:
    pipeline = load(folder("animate"), **FAST, **animation())
    plan = pipeline.resolve(prompt="a red fox", **danced(4 * segments)).plan
    assert plan.geometry.segments == segments
    said = " ".join(plan_text(plan).split())  # its lines are folded
    assert "1 latent frame of reference images in front" in said
    assert text in said


def test_latents_of_other_models_are_refused(folder: Folder) -> None:
    pipeline = load(folder("t2v"), **FAST)
    for shape in ((48, 2, 4, 4), (16, 4, 4), (16, 0, 4, 4)):
        with pytest.raises(RequestError, match=r"not latents of wan2.1-t2v-\w+: shape .* expected \[16, T"):
            pipeline.decode(torch.zeros(shape))


@settings(max_examples=examples(200))
@given(st.lists(st.integers(0, 5), max_size=8), st.integers(0, 9), st.none() | st.integers(0, 30))
def test_frames_between_two_places(lengths: list[int], skip: int, limit: int | None) -> None:
    """For any chunks, the frames are those of all of them in one; no chunk is decoded needlessly."""
    total, start, chunks = sum(lengths), 0, []
    for length in lengths:
        chunks.append(torch.arange(start, start + length).view(1, length, 1, 1))
        start += length
    taken: list[int] = []

    def decoding() -> Any:
        for chunk in chunks:
            taken.append(chunk.shape[1])
            yield chunk

    found = [frame for chunk in between(decoding(), skip, limit) for frame in chunk.flatten().tolist()]
    assert found == list(range(total))[skip:][:limit]
    if limit == 0:
        assert not taken
    elif limit is not None and taken and skip + limit < total:
        assert sum(taken[:-1]) < skip + limit  # the last decoded chunk was needed
