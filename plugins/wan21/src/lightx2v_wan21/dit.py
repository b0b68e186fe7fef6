"""The Wan2.1 diffusion transformer.

Parameter names are those of the official checkpoints, so a file loads without renaming.

Shape legend:
    B batch, C latent channels, T frames, H W latent rows and columns
    L video tokens (T/pt * H/ph * W/pw), S text tokens, D model width, N heads, K = D/N

Precision follows the official runtime: the linears of the blocks, the text and the patch embedding run
in ``dtype``; the residual stream, norms, modulation, timestep embedding and head are float32.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightx2v_wan21.architecture import DitArchitecture
from lightx2v_wan21.rope import Rope, apply_rope, rope_table

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``attention(q, k, v) -> out`` on ``[B, L, N, K]``; keys and values may have another length than queries."""


class WanDiT(nn.Module):
    """Predicts the flow of a noisy latent video at a timestep, given text.

    Parameters come uninitialised: build under ``torch.device("meta")``, then load a checkpoint.
    """

    def __init__(self, arch: DitArchitecture, *, attention: Attention, dtype: torch.dtype) -> None:
        super().__init__()
        self.arch = arch
        self.dtype = dtype
        dim = arch.dim
        self.patch_embedding = nn.Conv3d(
            arch.in_dim, dim, kernel_size=arch.patch_size, stride=arch.patch_size, dtype=dtype
        )
        self.text_embedding = nn.Sequential(
            nn.Linear(arch.text_dim, dim, dtype=dtype),
            nn.GELU(approximate="tanh"),
            nn.Linear(dim, dim, dtype=dtype),
        )
        self.time_embedding = nn.Sequential(
            nn.Linear(arch.freq_dim, dim, dtype=torch.float32),
            nn.SiLU(),
            nn.Linear(dim, dim, dtype=torch.float32),
        )
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim, dtype=torch.float32))
        self.blocks = nn.ModuleList(
            DitBlock(arch, attention=attention, dtype=dtype) for _ in range(arch.num_layers)
        )
        self.head = Head(arch)

    def rope(self, latent_shape: Sequence[int], device: torch.device | str) -> Rope:
        """Rotary table for a latent of shape ``[C, T, H, W]``; the same for every step of a request."""
        return rope_table(self._grid(latent_shape[1:]), self.arch.head_dim, device)

    def forward(self, latents_BCTHW: Tensor, timesteps_B: Tensor, context_BSD: Tensor, rope: Rope) -> Tensor:
        """Predicted flow, float32 ``[B, out_dim, T, H, W]``.

        Args:
            latents_BCTHW: noisy latents, any float dtype.
            timesteps_B: integer or fractional timesteps, 0..1000.
            context_BSD: text embeddings ``[B, text_len, text_dim]``, zero-padded: the padding is attended.
            rope: table of ``self.rope`` for this latent size.
        """
        grid = self._grid(latents_BCTHW.shape[2:])
        x_BLD = self.patch_embedding(latents_BCTHW.to(self.dtype)).flatten(2).transpose(1, 2).float()
        time_BD = self.time_embedding(timestep_features(timesteps_B, self.arch.freq_dim))
        modulation_B6D = self.time_projection(time_BD).unflatten(1, (6, -1))
        context_BSD = self.text_embedding(context_BSD.to(self.dtype))
        for block in self.blocks:
            x_BLD = block(x_BLD, modulation_B6D, context_BSD, rope)
        return self._unpatchify(self.head(x_BLD, time_BD), grid)

    def _grid(self, size: Sequence[int]) -> tuple[int, int, int]:
        """Tokens along each axis of a (T, H, W) latent."""
        frames, rows, columns = size
        pt, ph, pw = self.arch.patch_size
        if frames % pt or rows % ph or columns % pw:
            raise ValueError(
                f"latent size (T, H, W) = {tuple(size)} is not divisible by patch size {self.arch.patch_size}"
            )
        return frames // pt, rows // ph, columns // pw

    def _unpatchify(self, x_BLP: Tensor, grid: tuple[int, int, int]) -> Tensor:
        # Head channels are (pt, ph, pw, C) with C fastest.
        x = x_BLP.view(-1, *grid, *self.arch.patch_size, self.arch.out_dim)
        return x.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6, 7).flatten(4, 5).flatten(2, 3)


class DitBlock(nn.Module):
    """Self-attention, cross-attention to the text and a feed-forward net on the residual stream."""

    def __init__(self, arch: DitArchitecture, *, attention: Attention, dtype: torch.dtype) -> None:
        super().__init__()
        self.eps = arch.eps
        self.dtype = dtype
        self.modulation = nn.Parameter(torch.empty(1, 6, arch.dim, dtype=torch.float32))
        self.self_attn = SelfAttention(arch, attention=attention, dtype=dtype)
        self.norm3 = nn.LayerNorm(arch.dim, eps=arch.eps, dtype=torch.float32)
        self.cross_attn = CrossAttention(arch, attention=attention, dtype=dtype)
        self.ffn = nn.Sequential(
            nn.Linear(arch.dim, arch.ffn_dim, dtype=dtype),
            nn.GELU(approximate="tanh"),
            nn.Linear(arch.ffn_dim, arch.dim, dtype=dtype),
        )

    def forward(self, x_BLD: Tensor, modulation_B6D: Tensor, context_BSD: Tensor, rope: Rope) -> Tensor:
        """The residual stream after this block, float32 ``[B, L, D]``."""
        modulation = self.modulation + modulation_B6D
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = modulation.chunk(6, dim=1)

        y = modulated_norm(x_BLD, shift, scale, self.eps).to(self.dtype)
        x_BLD = torch.addcmul(x_BLD, self.self_attn(y, rope), gate)

        # norm3 belongs to the cross-attention, in between norm1 and norm2 of the official naming.
        y = self.norm3(x_BLD).to(self.dtype)
        x_BLD = x_BLD + self.cross_attn(y, context_BSD)

        y = modulated_norm(x_BLD, ffn_shift, ffn_scale, self.eps).to(self.dtype)
        return torch.addcmul(x_BLD, self.ffn(y), ffn_gate)


class AttentionLayer(nn.Module):
    """The projections that self- and cross-attention share."""

    attention: Attention

    def __init__(self, arch: DitArchitecture, *, attention: Attention, dtype: torch.dtype) -> None:
        super().__init__()
        self.heads = (arch.num_heads, arch.head_dim)
        # Past nn.Module.__setattr__: a backend that is a module itself must not appear in the state dict.
        object.__setattr__(self, "attention", attention)
        self.q = nn.Linear(arch.dim, arch.dim, dtype=dtype)
        self.k = nn.Linear(arch.dim, arch.dim, dtype=dtype)
        self.v = nn.Linear(arch.dim, arch.dim, dtype=dtype)
        self.o = nn.Linear(arch.dim, arch.dim, dtype=dtype)
        self.norm_q = RmsNorm(arch.dim, arch.eps)
        self.norm_k = RmsNorm(arch.dim, arch.eps)

    def attend(self, q_BLNK: Tensor, k_BLNK: Tensor, v_BLNK: Tensor) -> Tensor:
        """Attention and output projection; the float32 queries and keys take the dtype of the values."""
        out = self.attention(q_BLNK.to(v_BLNK.dtype), k_BLNK.to(v_BLNK.dtype), v_BLNK)
        projected: Tensor = self.o(out.flatten(2))
        return projected


class SelfAttention(AttentionLayer):
    """Attention among the video tokens, with rotary positions."""

    def forward(self, x_BLD: Tensor, rope: Rope) -> Tensor:
        """``[B, L, D]`` to ``[B, L, D]``, both in the dtype of the linears."""
        q = apply_rope(self.norm_q(self.q(x_BLD)).unflatten(2, self.heads), rope)
        k = apply_rope(self.norm_k(self.k(x_BLD)).unflatten(2, self.heads), rope)
        v = self.v(x_BLD).unflatten(2, self.heads)
        return self.attend(q, k, v)


class CrossAttention(AttentionLayer):
    """Attention from video tokens to the text tokens."""

    def forward(self, x_BLD: Tensor, context_BSD: Tensor) -> Tensor:
        """``[B, L, D]`` and ``[B, S, D]`` to ``[B, L, D]``, all in the dtype of the linears."""
        q = self.norm_q(self.q(x_BLD)).unflatten(2, self.heads)
        k = self.norm_k(self.k(context_BSD)).unflatten(2, self.heads)
        v = self.v(context_BSD).unflatten(2, self.heads)
        return self.attend(q, k, v)


class RmsNorm(nn.Module):
    """Root-mean-square norm over the whole model width, before the split into heads."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(dim, dtype=torch.float32))

    def forward(self, x_BLD: Tensor) -> Tensor:
        """float32 ``[B, L, D]``; as officially, the normalised value is rounded to x's dtype first."""
        return F.rms_norm(x_BLD, self.weight.shape, eps=self.eps) * self.weight


class Head(nn.Module):
    """Final modulated norm and projection to the pixels of a patch, in float32."""

    def __init__(self, arch: DitArchitecture) -> None:
        super().__init__()
        self.eps = arch.eps
        self.head = nn.Linear(arch.dim, math.prod(arch.patch_size) * arch.out_dim, dtype=torch.float32)
        self.modulation = nn.Parameter(torch.empty(1, 2, arch.dim, dtype=torch.float32))

    def forward(self, x_BLD: Tensor, time_BD: Tensor) -> Tensor:
        """``[B, L, D]`` to ``[B, L, pt*ph*pw*C]``; takes the time embedding, not its projection."""
        shift, scale = (self.modulation + time_BD[:, None]).chunk(2, dim=1)
        out: Tensor = self.head(modulated_norm(x_BLD, shift, scale, self.eps))
        return out


def modulated_norm(x_BLD: Tensor, shift_B1D: Tensor, scale_B1D: Tensor, eps: float) -> Tensor:
    """LayerNorm without parameters, then ``* (1 + scale) + shift``."""
    return torch.addcmul(shift_B1D, F.layer_norm(x_BLD, x_BLD.shape[-1:], eps=eps), 1 + scale_B1D)


def timestep_features(timesteps_B: Tensor, dim: int) -> Tensor:
    """Sinusoidal features, cosines first; computed in float64, returned as float32 ``[B, dim]``."""
    half = dim // 2
    powers = torch.arange(half, dtype=torch.float64, device=timesteps_B.device) / half
    angles = torch.outer(timesteps_B.double(), 10000.0**-powers)
    return torch.cat((angles.cos(), angles.sin()), dim=1).float()
