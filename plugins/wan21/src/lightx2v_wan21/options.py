"""What can be configured about Wan2.1, under ``model.options."wan2.1"``."""

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

    #: tiles and overlaps are multiples of it
    tile_unit: ClassVar[int] = 8

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
class Wan21Options(VaeOptions):
    """Options of the model family ``wan2.1``."""

    vace_scale: float = field(
        default=1.0,
        validator=[v.ge(0.0), v.le(100.0)],
        metadata={"help": "strength of the condition of vace"},
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
