"""PyTorch's scaled dot-product attention, with the kernel chosen for the device and never globally."""

from __future__ import annotations

from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from lightx2v_core.api import Attention, Device


def sdpa_for(device: Device) -> Attention:
    """Choose the best SDPA variant of a device: on Hopper (capability 9.x) cuDNN is the faster kernel, with flash and
    the others behind it for the shapes it declines; elsewhere torch's own order is right."""
    return hopper_sdpa if device.kind == "cuda" and device.capability[0] == 9 else sdpa


def sdpa(q_BLHD: Tensor, k_BSHD: Tensor, v_BSHD: Tensor, *, scale: float | None = None) -> Tensor:
    """Attention of [B, L, H, D] tensors; the result has the same layout."""
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
    """``sdpa`` with cuDNN first, for the length of this call only."""
    with sdpa_kernel(_HOPPER, set_priority=True):
        return sdpa(q_BLHD, k_BSHD, v_BSHD, scale=scale)
