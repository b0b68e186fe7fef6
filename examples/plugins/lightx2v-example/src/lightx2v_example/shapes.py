"""Sizes of the networks, and the tensors of a checkpoint with these sizes. No torch here: planning imports this.

A checkpoint consists of three files without a configuration: every size follows from the shapes of its tensors.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

Shapes = Mapping[str, tuple[int, ...]]

#: side of a latent, in pixels
STRIDE = 8
HEAD_DIM = 32
#: limit for damaged or hostile files, as the tensors of each block are computed
MOST_BLOCKS = 1000
#: longest prompt in bytes; the rest is ignored
TEXT_LENGTH = 64
#: number of sines and cosines of a timestep or position
WAVES = 48


@frozen(kw_only=True)
class Sizes:
    """Sizes of all three networks."""

    width: int
    depth: int
    channels: int
    text_width: int

    @property
    def blocks(self) -> tuple[str, ...]:
        """Return the prefixes of the blocks in execution order."""
        return tuple(f"blocks.{index}" for index in range(self.depth))


def sizes_from(shapes: Shapes) -> Sizes:
    """Derive the sizes of a denoiser from its tensors. Raises ``ValueError`` if they are not a denoiser's."""
    for name in ("into.weight", "text.weight"):
        if len(shapes.get(name, ())) != 2:
            raise ValueError(f"there is no 2-D tensor {name!r}")
    width, channels = shapes["into.weight"]
    if width % HEAD_DIM:
        raise ValueError(f"into.weight has {width} rows, which is not a multiple of {HEAD_DIM}")
    depth = len({name.split(".")[1] for name in shapes if name.startswith("blocks.")})
    if depth > MOST_BLOCKS:
        raise ValueError(f"there are {depth} blocks; the limit is {MOST_BLOCKS}")
    return Sizes(width=width, depth=depth, channels=channels, text_width=shapes["text.weight"][1])


def expected_tensors(sizes: Sizes) -> dict[str, dict[str, tuple[int, ...]]]:
    """Return the tensors of each component with their shapes."""
    width = sizes.width
    denoiser = {
        **_linear("into", width, sizes.channels),
        **_linear("text", width, sizes.text_width),
        **_linear("place", width, 3 * WAVES),
        **_linear("time", width, WAVES),
        **_linear("out", sizes.channels, width),
    }
    for block in sizes.blocks:
        denoiser |= {
            **_linear(f"{block}.qkv", 3 * width, width),
            **_linear(f"{block}.joined", width, width),
            **_linear(f"{block}.up", 4 * width, width),
            **_linear(f"{block}.down", width, 4 * width),
        }
    return {
        "denoiser": denoiser,
        "text_encoder": {
            "letters.weight": (256, sizes.text_width),
            **_linear("neighbours", sizes.text_width, sizes.text_width),
        },
        "decoder": _linear("patch", 3 * STRIDE**2, sizes.channels),
    }


def _linear(name: str, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}
