"""Sizes of the networks, and the tensors a checkpoint of these sizes holds. No torch here.

All sizes follow from the tensors, but for the number of heads, which ``pebble.json`` or the convention of 32 channels
a head gives.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

Shapes = Mapping[str, tuple[int, ...]]

#: pixels along the side of a latent, latents along the side of a patch
STRIDE, PATCH = 8, 2
HEAD_DIM = 32
#: bytes of a prompt that are read
TEXT_LENGTH = 128
#: more would be a damaged or hostile file: what is expected of each is worked out
MOST_LAYERS = 1000
#: width of the embedding of a timestep
TIME_DIM = 64


@frozen(kw_only=True)
class PebbleArchitecture:
    """Sizes of all three networks."""

    width: int
    layers: int
    channels: int
    text_width: int

    @property
    def heads(self) -> int:
        """Attention heads."""
        return self.width // HEAD_DIM

    @property
    def blocks(self) -> tuple[str, ...]:
        """Prefixes of the layers in running order."""
        return tuple(f"layers.{index}" for index in range(self.layers))


def architecture_from(shapes: Shapes) -> PebbleArchitecture:
    """The sizes that the tensors of a denoiser imply. ``ValueError`` when they fit no such network."""
    width, into = shapes["into.weight"]
    layers = len({name.split(".")[1] for name in shapes if name.startswith("layers.")})
    if layers > MOST_LAYERS:
        raise ValueError(
            f"there are {layers} different layers.N, and no such network has more than {MOST_LAYERS}"
        )
    if not width or not into or width % HEAD_DIM or into % PATCH**2:
        raise ValueError(
            f"into.weight is {list(shapes['into.weight'])}: its rows must be a multiple of {HEAD_DIM}, "
            f"its columns of {PATCH**2}"
        )
    text = shapes.get("text.weight", (width, 0))
    if len(text) != 2:
        raise ValueError(f"text.weight is {list(text)}, which is no matrix")
    return PebbleArchitecture(width=width, layers=layers, channels=into // PATCH**2, text_width=text[1])


def denoiser_tensors(arch: PebbleArchitecture) -> dict[str, tuple[int, ...]]:
    """Every tensor of the transformer."""
    width, patch = arch.width, arch.channels * PATCH**2
    tensors: dict[str, tuple[int, ...]] = {
        **_linear("into", width, patch),
        **_linear("time.0", width, TIME_DIM),
        **_linear("time.2", width, width),
        **_linear("text", width, arch.text_width),
        **_linear("out.linear", patch, width),
        "out.modulation": (2, width),
    }
    for block in arch.blocks:
        tensors |= {
            f"{block}.modulation": (4, width),
            **_linear(f"{block}.attention.qkv", 3 * width, width),
            **_linear(f"{block}.attention.out", width, width),
            **_linear(f"{block}.cross.q", width, width),
            **_linear(f"{block}.cross.kv", 2 * width, width),
            **_linear(f"{block}.cross.out", width, width),
            **_linear(f"{block}.mlp.up", 4 * width, width),
            **_linear(f"{block}.mlp.down", width, 4 * width),
        }
    return tensors


def text_tensors(arch: PebbleArchitecture) -> dict[str, tuple[int, ...]]:
    """Every tensor of the text encoder."""
    return {"table.weight": (256, arch.text_width), **_linear("mix", arch.text_width, arch.text_width)}


def codec_tensors(arch: PebbleArchitecture) -> dict[str, tuple[int, ...]]:
    """Every tensor of the codec."""
    return _linear("pixels", 3 * STRIDE**2, arch.channels)


def _linear(name: str, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}
