"""Sizes of the Animate network, and the tensors an official checkpoint of that size holds.

It is the Wan2.1 image-to-video transformer with an embedding of the pose, a motion encoder that looks at the driving
face, a face encoder that sums up four frames of motion, and adapters that bring it into every fifth block. Nothing
here imports torch. The sizes of the added networks are in no configuration; all follow from tensor shapes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from attrs import field, frozen

from lightx2v_wan21.api import DitArchitecture, Shapes, affine, axis, count_blocks, dit_from, dit_tensors

#: an adapter acts after the blocks 0, 5, 10, ...
ADAPTER_INTERVAL = 5
#: motion tokens of a latent frame beside those of the heads: one that is learned and always the same
PADDING_TOKENS = 1
#: halvings of the size of a face; eight are official, and each doubles the face that is expected
_MOST_LEVELS = 16
_CONVS = "motion_encoder.enc.net_app.convs"


def _ints(value: Sequence[int]) -> tuple[int, ...]:
    return tuple(value)


def _dit(value: DitArchitecture | Mapping[str, Any]) -> DitArchitecture:
    """Plain data gives a mapping back where the class has the architecture."""
    return value if isinstance(value, DitArchitecture) else DitArchitecture(**value)


@frozen(kw_only=True)
class AnimateArchitecture:
    """Sizes of the Animate transformer and of the networks around it."""

    dit: DitArchitecture = field(converter=_dit)
    pose_dim: int = 16
    #: channels of the motion encoder from full resolution to 4x4, halving the size from each to the next
    motion_channels: tuple[int, ...] = field(default=(32, 64, 128, 256, 512, 512, 512, 512), converter=_ints)
    #: width of what the motion encoder makes of a face
    style_dim: int = 512
    #: linears from there to the strength of each direction
    motion_layers: int = 5
    #: directions of motion, and the width of a motion vector
    directions: int = 20
    motion_dim: int = 512
    face_dim: int = 1024
    face_heads: int = 4

    @property
    def face_size(self) -> int:
        """Rows and columns of the face images: the last convolution sees 4x4."""
        return int(4 * 2 ** (len(self.motion_channels) - 1))

    @property
    def adapters(self) -> int:
        """How many face adapters there are."""
        return -(-self.dit.num_layers // ADAPTER_INTERVAL)

    @property
    def blocks(self) -> tuple[str, ...]:
        """Prefixes of the blocks and adapters in running order."""
        order: list[str] = []
        for index, block in enumerate(self.dit.blocks):
            order.append(block)
            if index % ADAPTER_INTERVAL == 0:
                order.append(f"face_adapter.fuser_blocks.{index // ADAPTER_INTERVAL}")
        return tuple(order)


def animate_tensors(arch: AnimateArchitecture) -> dict[str, tuple[int, ...]]:
    """Every tensor of an official Animate checkpoint of this size, blur kernels included."""
    dit, dim = arch.dit, arch.dit.dim
    tensors = dit_tensors(dit)
    tensors |= affine("pose_patch_embedding", dim, arch.pose_dim, *dit.patch_size)
    tensors |= _motion_tensors(arch)
    tensors |= {
        **affine("face_encoder.conv1_local.conv", arch.face_heads * arch.face_dim, arch.motion_dim, 3),
        **affine("face_encoder.conv2.conv", arch.face_dim, arch.face_dim, 3),
        **affine("face_encoder.conv3.conv", arch.face_dim, arch.face_dim, 3),
        **affine("face_encoder.out_proj", dim, arch.face_dim),
        "face_encoder.padding_tokens": (1, 1, 1, dim),
    }
    for index in range(arch.adapters):
        block = f"face_adapter.fuser_blocks.{index}"
        tensors |= {
            **affine(f"{block}.linear1_kv", 2 * dim, dim),
            **affine(f"{block}.linear1_q", dim, dim),
            **affine(f"{block}.linear2", dim, dim),
            f"{block}.q_norm.weight": (dit.head_dim,),
            f"{block}.k_norm.weight": (dit.head_dim,),
        }
    return tensors


def animate_from(config: Mapping[str, object], shapes: Shapes) -> AnimateArchitecture:
    """The architecture that a config.json and the tensor shapes of a checkpoint imply.

    Raises:
        ValueError: a field or a tensor is missing, or they contradict each other.
    """
    where = "an Animate checkpoint"
    levels = count_blocks(shapes, _CONVS) - 1
    if not 1 <= levels <= _MOST_LEVELS:
        what = "there is no" if levels < 1 else f"there are {levels} levels of"
        raise ValueError(f"not {where}: {what} {_CONVS}")
    first = axis(shapes, f"{_CONVS}.0.0.weight", 0, where)
    rest = (axis(shapes, f"{_CONVS}.{i}.conv2.1.weight", 0, where) for i in range(1, levels))
    layers = count_blocks(shapes, "motion_encoder.enc.fc")
    face_dim = axis(shapes, "face_encoder.conv2.conv.weight", 0, where)
    widened = axis(shapes, "face_encoder.conv1_local.conv.weight", 0, where)
    if not layers:
        raise ValueError(f"not {where}: there is no motion_encoder.enc.fc")
    if widened % face_dim:
        raise ValueError(
            f"not {where}: face_encoder.conv1_local is {widened} wide, no multiple of {face_dim}"
        )
    return AnimateArchitecture(
        dit=dit_from(config, shapes),
        pose_dim=axis(shapes, "pose_patch_embedding.weight", 1, where),
        motion_channels=(first, *rest),
        style_dim=axis(shapes, f"{_CONVS}.{levels}.weight", 0, where),
        motion_layers=layers,
        directions=axis(shapes, "motion_encoder.dec.direction.weight", 1, where),
        motion_dim=axis(shapes, "motion_encoder.dec.direction.weight", 0, where),
        face_dim=face_dim,
        face_heads=widened // face_dim,
    )


def _motion_tensors(arch: AnimateArchitecture) -> dict[str, tuple[int, ...]]:
    channels, style = arch.motion_channels, arch.style_dim
    tensors: dict[str, tuple[int, ...]] = {
        f"{_CONVS}.0.0.weight": (channels[0], 3, 1, 1),
        f"{_CONVS}.0.1.bias": (1, channels[0], 1, 1),
        f"{_CONVS}.{len(channels)}.weight": (style, channels[-1], 4, 4),
        "motion_encoder.dec.direction.weight": (arch.motion_dim, arch.directions),
    }
    for index, (width, out_width) in enumerate(pairwise(channels), start=1):
        block = f"{_CONVS}.{index}"
        tensors |= {
            f"{block}.conv1.0.weight": (width, width, 3, 3),
            f"{block}.conv1.1.bias": (1, width, 1, 1),
            f"{block}.conv2.0.kernel": (4, 4),
            f"{block}.conv2.1.weight": (out_width, width, 3, 3),
            f"{block}.conv2.2.bias": (1, out_width, 1, 1),
            f"{block}.skip.0.kernel": (4, 4),
            f"{block}.skip.1.weight": (out_width, width, 1, 1),
        }
    for index in range(arch.motion_layers):
        out = style if index < arch.motion_layers - 1 else arch.directions
        tensors |= affine(f"motion_encoder.enc.fc.{index}", out, style)
    return tensors
