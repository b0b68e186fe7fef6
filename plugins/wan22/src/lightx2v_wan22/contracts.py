"""Inputs and options of the three families for the model contract.

Imported by tests, and by ``lightx2v-core plugins check wan22 --strict``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from lightx2v_core.testing.contracts import ModelContract

if TYPE_CHECKING:
    from torch import Tensor


def _pixels(*shape: int) -> Callable[[], Tensor]:
    def make() -> Tensor:
        import torch

        return torch.rand(*shape, generator=torch.Generator().manual_seed(3))

    return make


class A14bContract(ModelContract):
    """Contract tests of text-to-video."""

    use = "wan2.2-a14b"


class Ti2vContract(ModelContract):
    """Contract tests of text-to-video, and of image-to-video from random pixels."""

    use = "wan2.2-ti2v"
    inputs: ClassVar[Mapping[str, Mapping[str, Any]]] = {"i2v": {"image": _pixels(3, 64, 64)}}


class AnimateContract(ModelContract):
    """Contract tests of one segment, from random pixels."""

    use = "wan2.2-animate"
    options: ClassVar[Mapping[str, Any]] = {"segment_frames": 5}
    inputs: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "animate": {
            "ref_images": _pixels(3, 64, 64),
            "pose_video": _pixels(5, 64, 64, 3),
            "face_video": _pixels(5, 32, 32, 3),
        }
    }
