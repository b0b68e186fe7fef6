"""Configuration options of the Wan2.2 models, under ``model.options."wan2.2-..."``."""

from __future__ import annotations

from typing import ClassVar, Literal

from attrs import field, frozen
from attrs import validators as v

from lightx2v_wan21.api import VaeOptions, check_changes


def _segment(_instance: object, _attribute: object, value: int) -> None:
    if value < 5 or value % 4 != 1:
        raise ValueError(f"'segment_frames' must be 4k + 1 and 5 or more, such as 77: {value}")


@frozen(kw_only=True)
class Vae22Options(VaeOptions):
    """Options of the VAEs of all models; one latent pixel of TI2V is 16x16 pixels."""

    tile_unit: ClassVar[int] = 16


@frozen(kw_only=True)
class A14bOptions(Vae22Options):
    """Options of ``wan2.2-a14b``."""

    boundary: float | None = field(
        default=None,
        validator=v.optional([v.ge(0), v.le(1)]),
        metadata={
            "help": "share of the timesteps at and above which the high-noise expert runs; absent: the official one"
        },
    )
    boundary_step_index: int | None = field(
        default=None,
        validator=v.optional(v.ge(0)),
        metadata={
            "help": "number of first steps of the high-noise expert, instead of boundary; for distilled models"
        },
    )
    changing_resolution_rates: tuple[float, ...] = field(
        default=(),
        metadata={
            "help": "scales of the sizes for the first steps, such as [0.75]; empty: one size. For t2v and i2v"
        },
    )
    changing_resolution_steps: tuple[int, ...] = field(
        default=(),
        metadata={"help": "last step at each of these sizes; for one rate the default is half of the steps"},
    )

    def __attrs_post_init__(self) -> None:
        check_changes(self.changing_resolution_rates, self.changing_resolution_steps)
        if self.boundary is not None and self.boundary_step_index is not None:
            raise ValueError("'boundary' and 'boundary_step_index' exclude each other; set only one")


@frozen(kw_only=True)
class Ti2vOptions(Vae22Options):
    """Options of ``wan2.2-ti2v``."""


@frozen(kw_only=True)
class AnimateOptions(Vae22Options):
    """Options of ``wan2.2-animate``."""

    segment_frames: int = field(default=77, validator=_segment, metadata={"help": "frames of a segment"})
    overlap_frames: Literal[1, 5] = field(
        default=1, metadata={"help": "last frames of a segment that the next one starts from"}
    )
