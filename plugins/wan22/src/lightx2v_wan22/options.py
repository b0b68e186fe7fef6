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

    vae_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    #: 0 decodes whole frames
    vae_tile: int = field(default=0, validator=_tile)
    vae_tile_overlap: int = field(default=64, validator=[v.ge(0), _overlap])
    #: decode with a tiny VAE (taew2_1.pth, of TI2V taew2_2.pth): faster, less memory, less detail
    tiny_vae: bool = False
    #: whether the tiny VAE takes latents that are not normalised; absent: yes when its file is called "light..."
    tiny_vae_scaled: bool | None = None


@frozen(kw_only=True)
class A14bOptions(VaeOptions):
    """Options of ``wan2.2-a14b``."""

    #: share of the timesteps from which on the high-noise expert works; the official one of the task when absent
    boundary: float | None = field(default=None, validator=v.optional([v.ge(0), v.le(1)]))
    #: let the high-noise expert take the first so many steps instead, as distilled models want it
    boundary_step_index: int | None = field(default=None, validator=v.optional(v.ge(0)))
    #: rates of the sizes to start at, such as [0.75]; empty keeps one size. For t2v and i2v
    changing_resolution_rates: tuple[float, ...] = ()
    #: the last step at each of these sizes; one rate alone lasts for half of the steps
    changing_resolution_steps: tuple[int, ...] = ()

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

    #: frames that are generated at once
    segment_frames: int = field(default=77, validator=_segment)
    #: frames of a segment that the next one repeats to go on from
    overlap_frames: Literal[1, 5] = 1
