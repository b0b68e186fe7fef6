"""The layers of the Wan diffusion transformer. Parameter names are those of the official checkpoints.

Shape legend:
    B batch, L video tokens, S text or image tokens, D model width, N heads, K = D/N
    U distinct timesteps: B when each video has one, see ``spread``

Precision: the linears run in ``dtype``; the residual stream, norms and modulation are float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightx2v_wan21.dit_architecture import DitArchitecture
from lightx2v_wan21.rope import Rope, apply_rope

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``attention(q, k, v) -> out`` on ``[B, L, N, K]``; keys and values may have another length than queries."""


class BlockLayers(nn.Module):
    """Layers shared by the main blocks and the VACE blocks."""

    def __init__(
        self, arch: DitArchitecture, *, attention: Attention, dtype: torch.dtype, image: bool = False
    ) -> None:
        super().__init__()
        self.eps = arch.eps
        self.dtype = dtype
        self.modulation = nn.Parameter(torch.empty(1, 6, arch.dim, dtype=torch.float32))
        self.self_attn = SelfAttention(arch, attention=attention, dtype=dtype)
        self.norm3 = nn.LayerNorm(arch.dim, eps=arch.eps, dtype=torch.float32)
        cross_attention = ImageCrossAttention if image else CrossAttention
        self.cross_attn = cross_attention(arch, attention=attention, dtype=dtype)
        self.ffn = nn.Sequential(
            nn.Linear(arch.dim, arch.ffn_dim, dtype=dtype),
            nn.GELU(approximate="tanh"),
            nn.Linear(arch.ffn_dim, arch.dim, dtype=dtype),
        )

    def _through(
        self,
        x_BLD: Tensor,
        modulation_U6D: Tensor,
        context_BSD: Tensor,
        rope: Rope,
        rows_BL: Tensor | None,
        image_BSD: Tensor | None,
    ) -> Tensor:
        """Apply self-attention, cross-attention and the feed-forward network to the residual stream."""
        modulation = (self.modulation + modulation_U6D).unbind(1)
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = modulation

        y = modulated_norm(x_BLD, spread(shift, rows_BL), spread(scale, rows_BL), self.eps).to(self.dtype)
        x_BLD = torch.addcmul(x_BLD, self.self_attn(y, rope), spread(gate, rows_BL))

        # norm3 belongs to the cross-attention: it runs between norm1 and norm2 of the official naming.
        y = self.norm3(x_BLD).to(self.dtype)
        images = () if image_BSD is None else (image_BSD,)
        x_BLD = x_BLD + self.cross_attn(y, context_BSD, *images)

        shift, scale = spread(ffn_shift, rows_BL), spread(ffn_scale, rows_BL)
        y = modulated_norm(x_BLD, shift, scale, self.eps).to(self.dtype)
        return torch.addcmul(x_BLD, self.ffn(y), spread(ffn_gate, rows_BL))


class DitBlock(BlockLayers):
    """Self-attention, cross-attention to text (and images) and a feed-forward network on the residual stream."""

    def forward(
        self,
        x_BLD: Tensor,
        modulation_U6D: Tensor,
        context_BSD: Tensor,
        rope: Rope,
        rows_BL: Tensor | None = None,
        image_BSD: Tensor | None = None,
    ) -> Tensor:
        """Compute the residual stream after this block, float32 ``[B, L, D]``.

        Args:
            x_BLD: the residual stream, float32.
            modulation_U6D: the projected time embedding of each distinct timestep.
            context_BSD: embedded text.
            rope: rotary table of the video tokens.
            rows_BL: index of each token's timestep; absent when each video has one.
            image_BSD: embedded image features, for blocks with an image branch.
        """
        return self._through(x_BLD, modulation_U6D, context_BSD, rope, rows_BL, image_BSD)


class VaceBlock(BlockLayers):
    """A block of the VACE branch: updates the condition, and computes a hint for one main block.

    The first VACE block mixes the video tokens into the condition.
    """

    def __init__(
        self, arch: DitArchitecture, *, attention: Attention, dtype: torch.dtype, first: bool
    ) -> None:
        super().__init__(arch, attention=attention, dtype=dtype)
        self.before_proj = nn.Linear(arch.dim, arch.dim, dtype=dtype) if first else None
        self.after_proj = nn.Linear(arch.dim, arch.dim, dtype=dtype)

    def forward(
        self,
        condition_BLD: Tensor,
        x_BLD: Tensor,
        modulation_U6D: Tensor,
        context_BSD: Tensor,
        rope: Rope,
        rows_BL: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Compute the condition after this block (float32) and the hint for the main block, both ``[B, L, D]``.

        ``x_BLD`` are the video tokens, which only the first block reads; the other arguments are as in ``DitBlock``.
        """
        if self.before_proj is not None:
            condition_BLD = self.before_proj(condition_BLD.to(self.dtype)) + x_BLD
        condition_BLD = self._through(condition_BLD, modulation_U6D, context_BSD, rope, rows_BL, None)
        return condition_BLD, self.after_proj(condition_BLD.to(self.dtype))


class AttentionLayer(nn.Module):
    """Projections shared by self-attention and cross-attention."""

    attention: Attention

    def __init__(self, arch: DitArchitecture, *, attention: Attention, dtype: torch.dtype) -> None:
        super().__init__()
        self.heads = (arch.num_heads, arch.head_dim)
        # Bypass nn.Module.__setattr__: a backend that is itself a module must not appear in the state dict.
        object.__setattr__(self, "attention", attention)
        self.q = nn.Linear(arch.dim, arch.dim, dtype=dtype)
        self.k = nn.Linear(arch.dim, arch.dim, dtype=dtype)
        self.v = nn.Linear(arch.dim, arch.dim, dtype=dtype)
        self.o = nn.Linear(arch.dim, arch.dim, dtype=dtype)
        self.norm_q = RmsNorm(arch.dim, arch.eps)
        self.norm_k = RmsNorm(arch.dim, arch.eps)

    def attend(self, q_BLNK: Tensor, k_BLNK: Tensor, v_BLNK: Tensor) -> Tensor:
        """Compute attention, ``[B, L, D]``; the float32 queries and keys are cast to the dtype of the values."""
        out = self.attention(q_BLNK.to(v_BLNK.dtype), k_BLNK.to(v_BLNK.dtype), v_BLNK)
        return out.flatten(2)


class SelfAttention(AttentionLayer):
    """Self-attention over the video tokens, with rotary positions."""

    def forward(self, x_BLD: Tensor, rope: Rope) -> Tensor:
        """Attend over video tokens ``[B, L, D]``; shape and dtype (that of the linears) are unchanged."""
        q = apply_rope(self.norm_q(self.q(x_BLD)).unflatten(2, self.heads), rope)
        k = apply_rope(self.norm_k(self.k(x_BLD)).unflatten(2, self.heads), rope)
        v = self.v(x_BLD).unflatten(2, self.heads)
        out: Tensor = self.o(self.attend(q, k, v))
        return out


class CrossAttention(AttentionLayer):
    """Cross-attention from the video tokens to the text tokens."""

    def forward(self, x_BLD: Tensor, context_BSD: Tensor) -> Tensor:
        """Attend from ``[B, L, D]`` to ``[B, S, D]``; returns ``[B, L, D]``, all in the dtype of the linears."""
        out: Tensor = self.o(self._to_text(self._queries(x_BLD), context_BSD))
        return out

    def _queries(self, x_BLD: Tensor) -> Tensor:
        queries: Tensor = self.norm_q(self.q(x_BLD)).unflatten(2, self.heads)
        return queries

    def _to_text(self, q_BLNK: Tensor, context_BSD: Tensor) -> Tensor:
        k = self.norm_k(self.k(context_BSD)).unflatten(2, self.heads)
        return self.attend(q_BLNK, k, self.v(context_BSD).unflatten(2, self.heads))


class ImageCrossAttention(CrossAttention):
    """Cross-attention from the video tokens to the text tokens and, separately, to the image tokens; both are added."""

    def __init__(self, arch: DitArchitecture, *, attention: Attention, dtype: torch.dtype) -> None:
        super().__init__(arch, attention=attention, dtype=dtype)
        self.k_img = nn.Linear(arch.dim, arch.dim, dtype=dtype)
        self.v_img = nn.Linear(arch.dim, arch.dim, dtype=dtype)
        self.norm_k_img = RmsNorm(arch.dim, arch.eps)

    def forward(self, x_BLD: Tensor, context_BSD: Tensor, image_BSD: Tensor | None = None) -> Tensor:
        """Attend from ``[B, L, D]`` to text ``[B, S, D]`` and images ``[B, S', D]``; returns ``[B, L, D]``.

        All tensors are in the dtype of the linears.
        """
        if image_BSD is None:
            raise ValueError("this network needs image features: image_BSD is missing")
        q = self._queries(x_BLD)
        k_img = self.norm_k_img(self.k_img(image_BSD)).unflatten(2, self.heads)
        images = self.attend(q, k_img, self.v_img(image_BSD).unflatten(2, self.heads))
        out: Tensor = self.o(self._to_text(q, context_BSD) + images)
        return out


class ImageEmbedding(nn.Module):
    """Projection of image features to tokens for the cross-attention: a two-layer MLP between LayerNorms (eps 1e-5)."""

    def __init__(self, arch: DitArchitecture, *, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        width, self.positions = arch.image_dim, arch.image_positions
        self.proj = nn.Sequential(
            nn.LayerNorm(width, dtype=torch.float32),
            nn.Linear(width, width, dtype=dtype),
            nn.GELU(),
            nn.Linear(width, arch.dim, dtype=dtype),
            nn.LayerNorm(arch.dim, dtype=torch.float32),
        )
        self.emb_pos = (
            nn.Parameter(torch.empty(1, self.positions, width, dtype=torch.float32))
            if self.positions
            else None
        )

    def forward(self, features_MSD: Tensor) -> Tensor:
        """Embed features ``[B, S, width]`` (``[2B, S, width]`` for first and last images) as ``[B, S or 2S, D]``."""
        x = features_MSD.float()
        if self.emb_pos is not None:
            x = x.reshape(-1, self.positions, x.shape[-1]) + self.emb_pos
        first, widen, act, narrow, last = self.proj
        out: Tensor = last(narrow(act(widen(first(x).to(self.dtype)))).float()).to(self.dtype)
        return out


class RmsNorm(nn.Module):
    """Root-mean-square norm over the whole model width, before the split into heads."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(dim, dtype=torch.float32))

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Normalize ``x``; returns float32 ``[B, L, D]``.

        As in the official code, the normalized value is rounded to x's dtype before the multiplication by the weight.
        """
        return F.rms_norm(x_BLD, self.weight.shape, eps=self.eps) * self.weight


class Head(nn.Module):
    """Final modulated norm and projection to the pixels of a patch, in float32."""

    def __init__(self, arch: DitArchitecture) -> None:
        super().__init__()
        self.eps = arch.eps
        self.head = nn.Linear(arch.dim, math.prod(arch.patch_size) * arch.out_dim, dtype=torch.float32)
        self.modulation = nn.Parameter(torch.empty(1, 2, arch.dim, dtype=torch.float32))

    def forward(self, x_BLD: Tensor, time_UD: Tensor, rows_BL: Tensor | None = None) -> Tensor:
        """Compute the values of each patch from ``[B, L, D]``: ``[B, L, pt*ph*pw*C]``.

        ``time_UD`` is the time embedding, not its projection.
        """
        shift, scale = (self.modulation + time_UD[:, None]).unbind(1)
        out: Tensor = self.head(
            modulated_norm(x_BLD, spread(shift, rows_BL), spread(scale, rows_BL), self.eps)
        )
        return out


def spread(values_UD: Tensor, rows_BL: Tensor | None) -> Tensor:
    """Expand values per timestep to tokens: ``[B, 1, D]``, or ``[B, L, D]`` when timesteps differ between tokens.

    A video whose tokens have few distinct timesteps costs only the work of these, and no modulation is stored per
    token.
    """
    return values_UD[:, None] if rows_BL is None else values_UD[rows_BL]


def modulated_norm(x_BLD: Tensor, shift_B1D: Tensor, scale_B1D: Tensor, eps: float) -> Tensor:
    """Apply LayerNorm without parameters, then ``* (1 + scale) + shift``."""
    return torch.addcmul(shift_B1D, F.layer_norm(x_BLD, x_BLD.shape[-1:], eps=eps), 1 + scale_B1D)
