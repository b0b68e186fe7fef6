"""What the comparisons of networks share: weights, tolerances, and the configuration of the other library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightx2v_wan21.api import DitArchitecture, random_tensors

Tensors = Mapping[str, Tensor]
#: of conftest: the module of another library, its official names mapped, filled with our weights
Fill = Callable[..., nn.Module]
TOLERANCE = {"atol": 2e-5, "rtol": 2e-4}


def shapes(tensors: Tensors) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def filled(network: nn.Module, tensors: Tensors) -> nn.Module:
    network.load_state_dict(dict(tensors), strict=True)
    return network.eval()


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def dit_config(arch: DitArchitecture) -> dict[str, Any]:
    """The sizes of a transformer as diffusers names them."""
    return {
        "patch_size": arch.patch_size,
        "num_attention_heads": arch.num_heads,
        "attention_head_dim": arch.head_dim,
        "in_channels": arch.in_dim,
        "out_channels": arch.out_dim,
        "text_dim": arch.text_dim,
        "freq_dim": arch.freq_dim,
        "ffn_dim": arch.ffn_dim,
        "num_layers": arch.num_layers,
        "eps": arch.eps,
        "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads",
        "image_dim": arch.image_dim or None,
        "added_kv_proj_dim": arch.dim if arch.image_dim else None,
        "pos_embed_seq_len": arch.image_positions or None,
    }


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


SMALL = {
    "dim": 64,
    "ffn_dim": 128,
    "num_heads": 2,
    "num_layers": 3,
    "in_dim": 16,
    "out_dim": 16,
    "text_dim": 48,
}


def weights(tensors: Mapping[str, tuple[int, ...]], seed: int) -> Tensors:
    return random_tensors(tensors, torch.Generator().manual_seed(seed))
