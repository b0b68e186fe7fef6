"""The umT5 text encoder.

Parameter names are those of the official checkpoint, so a file loads without renaming.

In float16 only weights and matrix products are float16: with ordinary prompts the sums between umT5's blocks and the
products in its feed-forward networks exceed the range of that dtype (65504). There, values between the linear layers
are float32, and ``product`` keeps each linear layer within the range. Other dtypes have sufficient range and are
computed as in the official code.

Shape legend: B batch, L tokens, D model width, N heads, K channels of one head.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightx2v_wan21.architecture import Umt5Architecture

MAX_DISTANCE = 128
EPS = 1e-6


class Umt5Encoder(nn.Module):
    """Encoder of token ids to text embeddings; ``dtype`` is that of parameters and computation.

    Parameters are uninitialized: build under ``torch.device("meta")``, then load a checkpoint.
    """

    def __init__(self, arch: Umt5Architecture, *, dtype: torch.dtype) -> None:
        super().__init__()
        self.arch = arch
        self.dtype = dtype
        self.token_embedding = Table(arch.vocab_size, arch.dim, dtype)
        self.blocks = nn.ModuleList(Umt5Block(arch, dtype) for _ in range(arch.num_layers))
        self.norm = Umt5Norm(arch.dim, dtype)

    @torch.no_grad()
    def forward(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Encode ids to embeddings ``[B, L, D]`` in the dtype of the weights; rows where the mask is 0 are zero.

        The transformer expects zero rows as padding. Columns that are masked in the whole batch are not computed: a
        masked key has weight exactly 0, so the other rows do not depend on them.
        """
        used = int(mask_BL.any(dim=0).nonzero().max()) + 1 if mask_BL.any() else 0
        ids, mask = ids_BL[:, :used], mask_BL[:, :used].bool()
        x_BLD = self.token_embedding(ids).to(between(self.dtype))
        buckets_LL = relative_buckets(used, self.arch.num_buckets, ids.device)
        for block in self.blocks:
            x_BLD = block(x_BLD, mask, buckets_LL)
        x_BLD = self.norm(x_BLD).to(self.dtype).masked_fill(~mask[:, :, None], 0)
        return F.pad(x_BLD, (0, 0, 0, ids_BL.shape[1] - used))


class Umt5Block(nn.Module):
    """Self-attention and a gated feed-forward network, each with a norm before it and a residual connection."""

    def __init__(self, arch: Umt5Architecture, dtype: torch.dtype) -> None:
        super().__init__()
        self.norm1 = Umt5Norm(arch.dim, dtype)
        self.attn = Umt5Attention(arch, dtype)
        self.norm2 = Umt5Norm(arch.dim, dtype)
        self.ffn = Umt5FeedForward(arch, dtype)
        self.pos_embedding = PositionBias(arch, dtype)

    def forward(self, x_BLD: Tensor, mask_BL: Tensor, buckets_LL: Tensor) -> Tensor:
        """Apply the block to ``[B, L, D]``; the shape is unchanged."""
        bias = self.pos_embedding(buckets_LL).to(x_BLD.dtype).expand(x_BLD.shape[0], -1, -1, -1)
        bias = bias.masked_fill(~mask_BL[:, None, None, :], torch.finfo(bias.dtype).min)
        x_BLD = x_BLD + self.attn(self.norm1(x_BLD), bias)
        out: Tensor = x_BLD + self.ffn(self.norm2(x_BLD))
        return out


class Umt5Attention(nn.Module):
    """Attention without scaling of the scores and without biases in the linears."""

    def __init__(self, arch: Umt5Architecture, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.heads = (arch.num_heads, arch.dim_attn // arch.num_heads)
        self.q = nn.Linear(arch.dim, arch.dim_attn, bias=False, dtype=dtype)
        self.k = nn.Linear(arch.dim, arch.dim_attn, bias=False, dtype=dtype)
        self.v = nn.Linear(arch.dim, arch.dim_attn, bias=False, dtype=dtype)
        self.o = nn.Linear(arch.dim_attn, arch.dim, bias=False, dtype=dtype)

    def forward(self, x_BLD: Tensor, bias_BNLL: Tensor) -> Tensor:
        """Attend over ``[B, L, D]``; the shape is unchanged. The bias is added to the scores of each head."""
        q, k, v = (
            product(linear, x_BLD, self.dtype).reshape(*x_BLD.shape[:2], *self.heads).transpose(1, 2)
            for linear in (self.q, self.k, self.v)
        )
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias_BNLL, scale=1.0)
        return product(self.o, out.transpose(1, 2).flatten(2), self.dtype)


class Umt5FeedForward(nn.Module):
    """Feed-forward network with a GELU gate on the hidden channels."""

    def __init__(self, arch: Umt5Architecture, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.gate = nn.Sequential(
            nn.Linear(arch.dim, arch.dim_ffn, bias=False, dtype=dtype), nn.GELU(approximate="tanh")
        )
        self.fc1 = nn.Linear(arch.dim, arch.dim_ffn, bias=False, dtype=dtype)
        self.fc2 = nn.Linear(arch.dim_ffn, arch.dim, bias=False, dtype=dtype)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Apply the network to ``[B, L, D]``; the shape is unchanged."""
        linear, activation = self.gate
        gate = activation(product(linear, x_BLD, self.dtype))
        return product(self.fc2, product(self.fc1, x_BLD, self.dtype) * gate, self.dtype)


class PositionBias(nn.Module):
    """Attention bias of every head for each bucket of distances; umT5 has one table per block."""

    def __init__(self, arch: Umt5Architecture, dtype: torch.dtype) -> None:
        super().__init__()
        self.embedding = Table(arch.num_buckets, arch.num_heads, dtype)

    def forward(self, buckets_LL: Tensor) -> Tensor:
        """Look up bucket numbers ``[L, L]``; returns biases ``[1, N, L, L]``."""
        bias: Tensor = self.embedding(buckets_LL).permute(2, 0, 1)[None]
        return bias


class Umt5Norm(nn.Module):
    """Root-mean-square norm; the normalized value is rounded to x's dtype before the multiplication by the weight."""

    def __init__(self, dim: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim, dtype=dtype))

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Normalize ``x``; shape and dtype are unchanged."""
        return F.rms_norm(x_BLD, self.weight.shape, eps=EPS) * self.weight


class Table(nn.Module):
    """Lookup table of rows.

    Unlike torch's Embedding, construction draws no random numbers, which on the meta device would import torch's
    compiler: a second at every start.
    """

    def __init__(self, rows: int, dim: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, dim, dtype=dtype))

    def forward(self, index: Tensor) -> Tensor:
        """Look up integers ``[...]``; returns ``[..., D]``."""
        return F.embedding(index, self.weight)


def between(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of values between linear layers whose weights have ``dtype``."""
    return torch.float32 if dtype == torch.float16 else dtype


def product(linear: nn.Module, x: Tensor, dtype: torch.dtype) -> Tensor:
    """Apply a linear layer without bias to ``x`` ``[..., D]``; input and result have the dtype ``between(dtype)``.

    In float16 each row is divided by a power of two before the layer, and the result multiplied by it in float32. That
    is exact, except for values below a 65,536th of the row's largest one, and works for plain and quantized layers
    alike. With rows of at most 1/256, the weights of a row of 10,240 would have to be 1600 on average to exceed the
    range.
    """
    if dtype != torch.float16:
        out: Tensor = linear(x)
        return out
    exponent = torch.frexp(x.abs().amax(dim=-1, keepdim=True)).exponent
    scale = torch.exp2(exponent.float() + 8)
    scaled: Tensor = linear((x / scale).to(dtype))
    return scaled.float() * scale


def relative_buckets(length: int, num_buckets: int, device: torch.device) -> Tensor:
    """Compute the bucket of the distance from each query (row) to each key (column), int64 ``[L, L]``.

    Half of the buckets are for keys after the query. Of each half, one half counts single positions, the other grows
    logarithmically up to ``MAX_DISTANCE``.
    """
    positions = torch.arange(length, device=device)
    offsets = positions[None, :] - positions[:, None]
    half = num_buckets // 2
    exact = half // 2
    distance = offsets.abs()
    growth = torch.log(distance.clamp(min=1).float() / exact) / math.log(MAX_DISTANCE / exact)
    far = (exact + (growth * (half - exact)).long()).clamp(max=half - 1)
    return (offsets > 0) * half + torch.where(distance < exact, distance, far)
