"""PyTorch's scaled dot-product attention, with the kernel selected per device and not globally."""

from __future__ import annotations

from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from lightx2v_core.api import Attention, Device


def sdpa_for(device: Device) -> Attention:
    """Choose the SDPA variant of a device.

    On Hopper (capability 9.x) cuDNN is the fastest kernel, with flash and the others as fallback for shapes that it
    does not support; elsewhere torch's own order is best.
    """
    return hopper_sdpa if device.kind == "cuda" and device.capability[0] == 9 else sdpa


def sdpa(q_BLHD: Tensor, k_BSHD: Tensor, v_BSHD: Tensor, *, scale: float | None = None) -> Tensor:
    """Compute attention of [B, L, H, D] tensors; the result has the same layout."""
    out = scaled_dot_product_attention(
        q_BLHD.transpose(1, 2), k_BSHD.transpose(1, 2), v_BSHD.transpose(1, 2), scale=scale
    )
    return out.transpose(1, 2)


_HOPPER = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


def hopper_sdpa(q_BLHD: Tensor, k_BSHD: Tensor, v_BSHD: Tensor, *, scale: float | None = None) -> Tensor:
    """Compute ``sdpa`` with cuDNN preferred, for this call only."""
    with sdpa_kernel(_HOPPER, set_priority=True):
        return sdpa(q_BLHD, k_BSHD, v_BSHD, scale=scale)
