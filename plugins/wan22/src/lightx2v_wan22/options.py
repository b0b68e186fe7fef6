"""What can be configured about the Wan2.2 models, under ``model.options."wan2.2-..."``."""

from __future__ import annotations

from typing import Literal

from attrs import field, frozen
from attrs import validators as v

from lightx2v_wan21.api import check_changes


def _tile(_instance: object, _attribute: object, value: int) -> None:
    if value and (value < 64 or value % 16):
        raise ValueError(f"'vae_tile' must be 0 (off) or a multiple of 16 from 64 up: {value}")


def _overlap(instance: VaeOptions, _attribute: object, value: int) -> None:
    if value % 16 or (instance.vae_tile and value >= instance.vae_tile):
        raise ValueError(f"'vae_tile_overlap' must be a multiple of 16 below vae_tile: {value}")


def _segment(_instance: object, _attribute: object, value: int) -> None:
    if value < 5 or value % 4 != 1:
        raise ValueError(f"'segment_frames' must be 4k + 1 and 5 or more, such as 77: {value}")


@frozen(kw_only=True)
class VaeOptions:
    """What every model has. Tiles are in pixels; a tiny VAE does not tile."""

    vae_dtype: Literal["float32", "bfloat16", "float16"] = field(
        default="float32", metadata={"help": "compute dtype of the VAE"}
    )
    vae_tile: int = field(
        default=0, validator=_tile, metadata={"help": "side of the tiles that are decoded; 0: whole frames"}
    )
    vae_tile_overlap: int = field(
        default=64, validator=[v.ge(0), _overlap], metadata={"help": "overlap of neighbouring tiles"}
    )
    tiny_vae: bool = field(
        default=False,
        metadata={
            "help": "decode with a tiny VAE, such as taew2_1.pth, of TI2V taew2_2.pth: faster, less memory, less detail"
        },
    )
    tiny_vae_scaled: bool | None = field(
        default=None,
        metadata={
            "help": "whether the tiny VAE takes latents that are not normalized; absent: yes when its file is called "
            "light..."
        },
    )


@frozen(kw_only=True)
class A14bOptions(VaeOptions):
    """Options of ``wan2.2-a14b``."""

    boundary: float | None = field(
        default=None,
        validator=v.optional([v.ge(0), v.le(1)]),
        metadata={
            "help": "share of the timesteps from which on the high-noise expert works; absent: the official one"
        },
    )
    boundary_step_index: int | None = field(
        default=None,
        validator=v.optional(v.ge(0)),
        metadata={
            "help": "let the high-noise expert take the first so many steps instead, as distilled models want it"
        },
    )
    changing_resolution_rates: tuple[float, ...] = field(
        default=(),
        metadata={
            "help": "rates of the sizes to start at, such as [0.75]; empty keeps one size. For t2v and i2v"
        },
    )
    changing_resolution_steps: tuple[int, ...] = field(
        default=(),
        metadata={"help": "the last step at each of these sizes; one rate alone lasts for half of the steps"},
    )

    def __attrs_post_init__(self) -> None:
        check_changes(self.changing_resolution_rates, self.changing_resolution_steps)
        if self.boundary is not None and self.boundary_step_index is not None:
            raise ValueError("'boundary' and 'boundary_step_index' are two ways to say the same; give one")


@frozen(kw_only=True)
class Ti2vOptions(VaeOptions):
    """Options of ``wan2.2-ti2v``."""


@frozen(kw_only=True)
class AnimateOptions(VaeOptions):
    """Options of ``wan2.2-animate``."""

    segment_frames: int = field(
        default=77, validator=_segment, metadata={"help": "frames that are generated at once"}
    )
    overlap_frames: Literal[1, 5] = field(
        default=1, metadata={"help": "frames of a segment that the next one repeats to go on from"}
    )
