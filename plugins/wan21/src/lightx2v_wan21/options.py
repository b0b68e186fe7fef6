"""Configuration options of Wan2.1, under ``model.options."wan2.1"``."""

from __future__ import annotations

from typing import ClassVar, Literal

from attrs import field, frozen
from attrs import validators as v

from lightx2v_wan21.stages import check_changes


def _tile(instance: VaeOptions, _attribute: object, value: int) -> None:
    unit = instance.tile_unit
    if value and (value < 64 or value % unit):
        raise ValueError(f"'vae_tile' must be 0 (off) or a multiple of {unit} from 64 up: {value}")


def _overlap(instance: VaeOptions, _attribute: object, value: int) -> None:
    unit = instance.tile_unit
    if value % unit or (instance.vae_tile and value >= instance.vae_tile):
        raise ValueError(f"'vae_tile_overlap' must be a multiple of {unit} below vae_tile: {value}")


@frozen(kw_only=True)
class VaeOptions:
    """Options of the VAEs of every Wan model. Tiles are in pixels; a tiny VAE does not tile."""

    #: unit of tiles and overlaps, in pixels
    tile_unit: ClassVar[int] = 8

    vae_dtype: Literal["float32", "bfloat16", "float16"] = field(
        default="float32", metadata={"help": "compute dtype of the VAE"}
    )
    vae_tile: int = field(
        default=0, validator=_tile, metadata={"help": "side of the tiles for decoding; 0: whole frames"}
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
            "help": "whether the tiny VAE decodes unnormalized latents; absent: yes when its file is called light..."
        },
    )


@frozen(kw_only=True)
class Wan21Options(VaeOptions):
    """Options of the model family ``wan2.1``."""

    vace_scale: float = field(
        default=1.0,
        validator=[v.ge(0.0), v.le(100.0)],
        metadata={"help": "strength of the VACE condition"},
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
