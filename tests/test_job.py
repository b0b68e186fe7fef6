"""A request in segments: noise continues, overlaps are dropped, and each segment starts from the end of the last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightx2v_wan21", reason="needs the Wan2.1 plugin")
torch = pytest.importorskip("torch")

from lightx2v_core.api import Conditions, Request, Segment, Step  # noqa: E402
from lightx2v_core.config.load import load_config  # noqa: E402
from lightx2v_core.discovery.plugins import load_plugins  # noqa: E402
from lightx2v_core.errors import RunError  # noqa: E402
from lightx2v_core.events import Event  # noqa: E402
from lightx2v_core.plan.resolve import resolve  # noqa: E402
from lightx2v_core.runtime.job import Job  # noqa: E402


class InSegments:
    """Three segments of four frames that overlap by one: 4 + 3 + 3 frames. A frame's value is its number."""

    def __init__(self, total: int = 3) -> None:
        self.total = total
        self.before: list[Segment | None] = []
        self.noise: list[Any] = []

    def encode(
        self,
        request: Request,
        inputs: Mapping[str, Any],
        *,
        guided: bool,
        emit: Any,
        before: Segment | None = None,
    ) -> Conditions:
        self.before.append(before)
        last = len(self.before) == self.total
        return Conditions(
            latent_shape=(1, 3, 1, 1),
            positive=None,
            lead=1,
            overlap=1 if before else 0,
            carry=0 if last else 2,
        )

    def constrain(self, latents: Any, conditions: Conditions) -> Any:
        return latents

    def expert(self, step: Step) -> int:
        return 0

    def predict(self, latents: Any, step: Step, conditions: Sequence[Any], shared: Any) -> list[Any]:
        if step.index == 0:
            self.noise.append(latents)
        return [latents]

    def decode(self, latents: Any, request: Request) -> Iterator[Any]:
        assert latents.shape == (1, 2, 1, 1)  # without the leading condition
        start = 3 * (len(self.before) - 1)
        for count in (1, 3):
            values = torch.arange(start, start + count) / 100
            yield values.view(1, count, 1, 1).expand(3, count, 2, 2)
            start += count


def job(model: Any, tmp_path: Path, frames: int, events: list[Event]) -> Job:
    from lightx2v_wan21.tiny import write_tiny

    write_tiny(tmp_path, 0)
    values = {
        "model_path": str(tmp_path),
        "prompt": "x",
        "scheduler": "euler",
        "sampling": {"frames": frames, "steps": 2, "size": [32, 32], "seed": 5, "guide_scale": 1},
    }
    return Job(model, resolve(load_config(values), load_plugins()), 0.0, events.append)


def test_segments_join_without_a_seam(tmp_path: Path) -> None:
    model, events = InSegments(), list[Event]()
    work = job(model, tmp_path, 9, events)
    frames = list(work.frames())  # the segments make ten frames, and the last of them is one too many
    values = torch.cat(frames, dim=1)[0, :, 0, 0] * 100
    assert values.round().tolist() == list(range(9))
    assert model.before[0] is None
    assert [(s.index, (s.frames[0, :, 0, 0] * 100).round().tolist()) for s in model.before[1:] if s] == [
        (0, [2, 3]),
        (1, [5, 6]),
    ]
    generator = torch.Generator().manual_seed(5)
    for noise in model.noise:
        assert torch.equal(noise, torch.randn(1, 3, 1, 1, generator=generator))
    assert work.latents.shape == (1, 6, 1, 1)  # what the decoder got
    assert [event.phase for event in events if event.kind == "phase"] == ["encode", "denoise", "decode"] * 3  # type: ignore[attr-defined]


def test_a_wrong_number_of_frames_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="decoded 4 frames instead of the requested 9"):
        list(job(InSegments(total=1), tmp_path, 9, []).frames())


def test_masks_of_a_model_may_be_infinite_and_nothing_is_nan(tmp_path: Path) -> None:
    """What a model encodes to is its own: minus infinity is how many mask, and no model means NaN."""
    guard = job(InSegments(), tmp_path, 9, [])._guard
    shape = (1, 3, 1, 1)
    mask = {"embeddings": torch.ones(2), "mask": torch.tensor([0.0, float("-inf")])}
    guard.encoded(Conditions(latent_shape=shape, positive=mask, negative=[mask], shared=(mask, "x", 3)))
    for wrong in (
        {"positive": torch.tensor([float("inf")])},
        {"positive": [torch.tensor([float("nan")])]},
        {"positive": mask, "shared": {"image": torch.tensor([float("nan")])}},
    ):
        with pytest.raises(RunError, match="not finite"):
            guard.encoded(Conditions(latent_shape=shape, **wrong))
