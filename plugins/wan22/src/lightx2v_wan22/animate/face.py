"""Injection of facial motion into Animate's transformer: the face encoder and the adapters.

Parameter names are those of the official checkpoint. Linears and convolutions run in ``dtype``, norms in float32.

Shape legend: B batch, F face frames, T latent frames without the reference frame, M width of a motion vector, R motion
tokens of a latent frame (heads and one more), L video tokens, D model width, N heads, K = D/N.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightx2v_core.api import Attention
from lightx2v_wan22.animate.architecture import PADDING_TOKENS, AnimateArchitecture

EPS = 1e-6


class FaceEncoder(nn.Module):
    """Encoder of the motion of four frames at a time, with several heads and a learned token."""

    def __init__(self, arch: AnimateArchitecture, *, dtype: torch.dtype) -> None:
        super().__init__()
        width, dim = arch.face_dim, arch.dit.dim
        self.heads = arch.face_heads
        self.dtype = dtype
        self.conv1_local = CausalConv1d(arch.motion_dim, self.heads * width, 1, dtype)
        self.conv2 = CausalConv1d(width, width, 2, dtype)
        self.conv3 = CausalConv1d(width, width, 2, dtype)
        self.out_proj = nn.Linear(width, dim, dtype=dtype)
        self.padding_tokens = nn.Parameter(torch.empty(1, 1, PADDING_TOKENS, dim, dtype=dtype))

    def forward(self, motion_BFM: Tensor) -> Tensor:
        """Encode motion ``[B, F, M]`` to tokens ``[B, ceil(F/4), R, D]`` in ``dtype``."""
        batch = motion_BFM.shape[0]
        x = self.conv1_local(motion_BFM.to(self.dtype))
        # The heads are separate from here on: "b f (n c) -> (b n) f c".
        x = _norm_silu(x.unflatten(2, (self.heads, -1)).transpose(1, 2).flatten(0, 1), self.dtype)
        x = _norm_silu(self.conv2(x), self.dtype)
        x = self.out_proj(_norm_silu(self.conv3(x), self.dtype))
        tokens = x.unflatten(0, (batch, self.heads)).transpose(1, 2)
        padding = self.padding_tokens.expand(batch, tokens.shape[1], -1, -1)
        return torch.cat((tokens, padding), dim=2)


class CausalConv1d(nn.Module):
    """Convolution over time of the current and the two previous frames; the first frame is repeated before the clip."""

    def __init__(self, in_dim: int, out_dim: int, stride: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.conv = nn.Conv1d(in_dim, out_dim, kernel_size=3, stride=stride, dtype=dtype)

    def forward(self, x_BFC: Tensor) -> Tensor:
        """Convolve ``[B, F, in]`` to ``[B, ceil(F/stride), out]``."""
        padded = F.pad(x_BFC.transpose(1, 2), (2, 0), mode="replicate")
        out: Tensor = self.conv(padded).transpose(1, 2)
        return out


class FaceAdapter(nn.Module):
    """The adapters, in the order of their blocks."""

    def __init__(self, arch: AnimateArchitecture, *, attention: Attention, dtype: torch.dtype) -> None:
        super().__init__()
        self.fuser_blocks = nn.ModuleList(
            FuserBlock(arch, attention=attention, dtype=dtype) for _ in range(arch.adapters)
        )


class FuserBlock(nn.Module):
    """Attention from the tokens of each latent frame to the motion tokens of that frame."""

    attention: Attention

    def __init__(self, arch: AnimateArchitecture, *, attention: Attention, dtype: torch.dtype) -> None:
        super().__init__()
        dit = arch.dit
        self.dtype = dtype
        self.heads = (dit.num_heads, dit.head_dim)
        # Bypass nn.Module.__setattr__: a backend that is itself a module must not appear in the state dict.
        object.__setattr__(self, "attention", attention)
        self.linear1_kv = nn.Linear(dit.dim, 2 * dit.dim, dtype=dtype)
        self.linear1_q = nn.Linear(dit.dim, dit.dim, dtype=dtype)
        self.linear2 = nn.Linear(dit.dim, dit.dim, dtype=dtype)
        self.q_norm = HeadNorm(dit.head_dim)
        self.k_norm = HeadNorm(dit.head_dim)

    def forward(self, x_BLD: Tensor, motion_BTRD: Tensor) -> Tensor:
        """Compute the update of the residual stream ``[B, L, D]``, in ``dtype``; L is T times the tokens of a frame."""
        batch, frames = motion_BTRD.shape[:2]
        motion = F.layer_norm(motion_BTRD.float(), motion_BTRD.shape[-1:], eps=EPS).to(self.dtype)
        x = F.layer_norm(x_BLD.float(), x_BLD.shape[-1:], eps=EPS).to(self.dtype)
        k, v = self.linear1_kv(motion).unflatten(3, (2, *self.heads)).flatten(0, 1).unbind(2)
        q = self.linear1_q(x).view(batch * frames, -1, *self.heads)
        out = self.attention(self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype), v.contiguous())
        merged: Tensor = self.linear2(out.reshape(x.shape))
        return merged


class HeadNorm(nn.Module):
    """Root-mean-square norm over the channels of one head."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim, dtype=torch.float32))

    def forward(self, x_BLNK: Tensor) -> Tensor:
        """Normalize ``x`` to float32; the shape is unchanged.

        The normalized value is rounded to x's dtype before the multiplication by the weight.
        """
        return F.rms_norm(x_BLNK, self.weight.shape, eps=EPS) * self.weight


def _norm_silu(x: Tensor, dtype: torch.dtype) -> Tensor:
    return F.silu(F.layer_norm(x.float(), x.shape[-1:], eps=EPS)).to(dtype)
