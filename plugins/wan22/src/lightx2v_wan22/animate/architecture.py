"""Sizes of the Animate network, and the tensors of an official checkpoint of a given size.

Animate is the Wan2.1 image-to-video transformer with an embedding of the pose, a motion encoder for the driving face, a
face encoder that summarizes the motion of four frames, and adapters that inject it after every fifth block. Nothing
here imports torch. No configuration has the sizes of the added networks; all follow from tensor shapes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from attrs import field, frozen

from lightx2v_wan21.api import DitArchitecture, Shapes, affine, axis, count_blocks, dit_from, dit_tensors

#: adapters follow the blocks 0, 5, 10, ...
ADAPTER_INTERVAL = 5
#: learned constant motion tokens of a latent frame, in addition to one per head
PADDING_TOKENS = 1
#: limit for the levels of the motion encoder; the official one has eight, and each doubles the size of a face
_MOST_LEVELS = 16
_CONVS = "motion_encoder.enc.net_app.convs"


def _ints(value: Sequence[int]) -> tuple[int, ...]:
    return tuple(value)


def _dit(value: DitArchitecture | Mapping[str, Any]) -> DitArchitecture:
    """Convert to the architecture class: plain data has a mapping there."""
    return value if isinstance(value, DitArchitecture) else DitArchitecture(**value)


@frozen(kw_only=True)
class AnimateArchitecture:
    """Sizes of the Animate transformer and of the networks around it."""

    dit: DitArchitecture = field(converter=_dit)
    pose_dim: int = 16
    #: channels of the motion encoder from full resolution to 4x4; each level has half the size of the previous
    motion_channels: tuple[int, ...] = field(default=(32, 64, 128, 256, 512, 512, 512, 512), converter=_ints)
    #: width of a face's features in the motion encoder
    style_dim: int = 512
    #: number of linear layers from the features to the strength of each direction
    motion_layers: int = 5
    #: number of motion directions, and the width of a motion vector
    directions: int = 20
    motion_dim: int = 512
    face_dim: int = 1024
    face_heads: int = 4

    @property
    def face_size(self) -> int:
        """Return the rows and columns of the face images: the input of the last convolution is 4x4."""
        return int(4 * 2 ** (len(self.motion_channels) - 1))

    @property
    def adapters(self) -> int:
        """Return the number of face adapters."""
        return -(-self.dit.num_layers // ADAPTER_INTERVAL)

    @property
    def blocks(self) -> tuple[str, ...]:
        """Return the prefixes of the blocks and adapters in execution order."""
        order: list[str] = []
        for index, block in enumerate(self.dit.blocks):
            order.append(block)
            if index % ADAPTER_INTERVAL == 0:
                order.append(f"face_adapter.fuser_blocks.{index // ADAPTER_INTERVAL}")
        return tuple(order)


def animate_tensors(arch: AnimateArchitecture) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor of an official Animate checkpoint of this size, with blur kernels."""
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
    """Build the architecture from a config.json and the tensor shapes of a checkpoint.

    Raises:
        ValueError: a field or a tensor is missing, or they contradict each other.
    """
    where = "an Animate checkpoint"
    levels = count_blocks(shapes, _CONVS) - 1
    if not 1 <= levels <= _MOST_LEVELS:
        problem = "no" if levels < 1 else f"{levels} levels of"
        raise ValueError(f"not {where}: {problem} {_CONVS}")
    first = axis(shapes, f"{_CONVS}.0.0.weight", 0, where)
    rest = (axis(shapes, f"{_CONVS}.{i}.conv2.1.weight", 0, where) for i in range(1, levels))
    layers = count_blocks(shapes, "motion_encoder.enc.fc")
    face_dim = axis(shapes, "face_encoder.conv2.conv.weight", 0, where)
    widened = axis(shapes, "face_encoder.conv1_local.conv.weight", 0, where)
    if not layers:
        raise ValueError(f"not {where}: no motion_encoder.enc.fc")
    if widened % face_dim:
        raise ValueError(
            f"not {where}: the width of face_encoder.conv1_local, {widened}, is not a multiple of {face_dim}"
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
