"""Layers of the Wan2.1 video VAE, which processes a clip in chunks of frames.

Shape legend: B batch, C channels, T frames of the chunk, H W rows and columns.

Layers are stateless: the frames that a causal layer remembers between two chunks of a clip are in a ``Past``, which the
caller creates for each clip and passes to every layer.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightx2v_wan21.architecture import VaeLayer

Past = dict[nn.Module, Tensor]
"""Frames before the current chunk that each causal layer needs; empty at the start of a clip."""


class CausalConv3d(nn.Module):
    """Convolution over the current and the two previous frames; zeros precede the clip."""

    def __init__(self, in_dim: int, out_dim: int, kernel: tuple[int, int, int], dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_dim, in_dim, *kernel, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_dim, dtype=dtype))
        self.memory = kernel[0] - 1
        self.padding = (0, kernel[1] // 2, kernel[2] // 2)

    def forward(self, x_BCTHW: Tensor, past: Past) -> Tensor:
        """Convolve ``[B, in, T, H, W]`` to ``[B, out, T, H, W]``."""
        before = past.get(self)
        if before is None:
            x_BCTHW = F.pad(x_BCTHW, (0, 0, 0, 0, self.memory, 0))
        else:
            x_BCTHW = torch.cat((before, x_BCTHW), dim=2)
        # A copy, because a view would keep the whole chunk in memory.
        past[self] = x_BCTHW[:, :, -self.memory :].clone()
        return _conv3d(x_BCTHW, self.weight, self.bias, self.padding)


class PointConv3d(nn.Module):
    """Mixing of the channels of each pixel."""

    def __init__(self, in_dim: int, out_dim: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_dim, in_dim, 1, 1, 1, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_dim, dtype=dtype))

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Convolve ``[B, in, T, H, W]`` to ``[B, out, T, H, W]``."""
        return _conv3d(x_BCTHW, self.weight, self.bias, (0, 0, 0))


class RmsNorm(nn.Module):
    """Norm over the channels of each pixel; ``num_axes`` is the number of axes after the channels."""

    def __init__(self, dim: int, num_axes: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.scale = math.sqrt(dim)
        self.gamma = nn.Parameter(torch.empty(dim, *([1] * num_axes), dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize ``x``, whose axis 1 holds the channels; the shape is unchanged."""
        return F.normalize(x, dim=1) * (self.gamma * self.scale)


class ResidualBlock(nn.Module):
    """Two times norm, SiLU and causal convolution, with a residual connection."""

    def __init__(self, in_dim: int, out_dim: int, dtype: torch.dtype) -> None:
        super().__init__()
        # The gaps are the parameter-free entries of the official sequence.
        self.residual = nn.ModuleDict(
            {
                "0": RmsNorm(in_dim, 3, dtype),
                "2": CausalConv3d(in_dim, out_dim, (3, 3, 3), dtype),
                "3": RmsNorm(out_dim, 3, dtype),
                "6": CausalConv3d(out_dim, out_dim, (3, 3, 3), dtype),
            }
        )
        self.shortcut = nn.Identity() if in_dim == out_dim else PointConv3d(in_dim, out_dim, dtype)

    def forward(self, x_BCTHW: Tensor, past: Past) -> Tensor:
        """Apply the block: ``[B, in, T, H, W]`` to ``[B, out, T, H, W]``."""
        h = F.silu(self.residual["0"](x_BCTHW))
        h = self.residual["2"](h, past)
        h = F.silu(self.residual["3"](h))
        h = self.residual["6"](h, past)
        out: Tensor = h + self.shortcut(x_BCTHW)
        return out


class FrameAttention(nn.Module):
    """Single-head self-attention over the pixels of each frame."""

    def __init__(self, dim: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.norm = RmsNorm(dim, 2, dtype)
        self.to_qkv = nn.Conv2d(dim, 3 * dim, kernel_size=1, dtype=dtype)
        self.proj = nn.Conv2d(dim, dim, kernel_size=1, dtype=dtype)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Attend over the pixels of each frame of ``[B, C, T, H, W]``; the shape is unchanged."""
        frames = _fold_frames(x_BCTHW)
        qkv = self.to_qkv(self.norm(frames)).flatten(2).transpose(1, 2)
        q, k, v = (part[:, None].contiguous() for part in qkv.chunk(3, dim=-1))
        out = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2).reshape(frames.shape)
        return x_BCTHW + _unfold_frames(self.proj(out), x_BCTHW.shape[0])


class Downsample(nn.Module):
    """Halving of rows and columns and, with a ``time_conv``, of the frames after the first of the clip."""

    def __init__(self, layer: VaeLayer, dtype: torch.dtype) -> None:
        super().__init__()
        self.resample = nn.ModuleDict({"1": nn.Conv2d(layer.in_dim, layer.out_dim, 3, stride=2, dtype=dtype)})
        self.time_conv = (
            nn.Conv3d(layer.out_dim, layer.out_dim, (3, 1, 1), stride=(2, 1, 1), dtype=dtype)
            if layer.temporal
            else None
        )

    def forward(self, x_BCTHW: Tensor, past: Past) -> Tensor:
        """Downsample ``[B, C, T, H, W]`` to ``[B, C, T', H/2, W/2]``, T' = T/2 (1 for the first frame of a clip)."""
        frames = F.pad(_fold_frames(x_BCTHW), (0, 1, 0, 1))
        x_BCTHW = _unfold_frames(self.resample["1"](frames), x_BCTHW.shape[0])
        if self.time_conv is None:
            return x_BCTHW
        before = past.get(self)
        past[self] = x_BCTHW[:, :, -1:].clone()
        if before is None:
            return x_BCTHW
        out: Tensor = self.time_conv(torch.cat((before, x_BCTHW), dim=2))
        return out


class Upsample(nn.Module):
    """Doubling of rows and columns and, with a ``time_conv``, of the frames after the first of the clip."""

    def __init__(self, layer: VaeLayer, dtype: torch.dtype) -> None:
        super().__init__()
        self.resample = nn.ModuleDict(
            {"1": nn.Conv2d(layer.in_dim, layer.out_dim, 3, padding=1, dtype=dtype)}
        )
        self.time_conv = (
            CausalConv3d(layer.in_dim, 2 * layer.in_dim, (3, 1, 1), dtype) if layer.temporal else None
        )

    def forward(self, x_BCTHW: Tensor, past: Past) -> Tensor:
        """Upsample ``[B, C, T, H, W]`` to ``[B, C/2, T', 2H, 2W]``, T' = 2T (1 for the first frame of a clip)."""
        batch = x_BCTHW.shape[0]
        if self.time_conv is not None:
            if self in past:
                # The two halves of the channels are the two frames that replace one.
                pairs = self.time_conv(x_BCTHW, past).unflatten(1, (2, -1))
                x_BCTHW = pairs.permute(0, 2, 3, 1, 4, 5).flatten(2, 3)
            else:
                # The first frame stays single, and the second does not see it either: only mark the start.
                past[self] = x_BCTHW.new_empty(0)
        frames = F.interpolate(_fold_frames(x_BCTHW), scale_factor=2.0, mode="nearest-exact")
        return _unfold_frames(self.resample["1"](frames), batch)


def build_vae_layer(layer: VaeLayer, dtype: torch.dtype) -> nn.Module:
    """Build the module for one entry of the encoder's or decoder's layer list."""
    if layer.kind == "residual":
        return ResidualBlock(layer.in_dim, layer.out_dim, dtype)
    return Downsample(layer, dtype) if layer.kind == "down" else Upsample(layer, dtype)


def build_vae_middle(dim: int, dtype: torch.dtype) -> nn.ModuleList:
    """Build the sequence at the lowest resolution: residual block, attention, residual block."""
    return nn.ModuleList(
        (ResidualBlock(dim, dim, dtype), FrameAttention(dim, dtype), ResidualBlock(dim, dim, dtype))
    )


def through_vae_middle(middle: nn.ModuleList, x_BCTHW: Tensor, past: Past) -> Tensor:
    """Apply the middle sequence; the shape is unchanged."""
    first, attention, last = middle
    out: Tensor = last(attention(first(x_BCTHW, past)), past)
    return out


def build_vae_head(in_dim: int, out_dim: int, dtype: torch.dtype) -> nn.ModuleDict:
    """Build the last norm and convolution of an encoder or decoder."""
    return nn.ModuleDict(
        {"0": RmsNorm(in_dim, 3, dtype), "2": CausalConv3d(in_dim, out_dim, (3, 3, 3), dtype)}
    )


def through_vae_head(head: nn.ModuleDict, x_BCTHW: Tensor, past: Past) -> Tensor:
    """Apply the head: ``[B, in_dim, T, H, W]`` to ``[B, out_dim, T, H, W]``."""
    out: Tensor = head["2"](F.silu(head["0"](x_BCTHW)), past)
    return out


def _conv3d(x_BCTHW: Tensor, weight: Tensor, bias: Tensor, padding: tuple[int, int, int]) -> Tensor:
    # On CPUs torch uses a plain loop for weights of up to 20480 elements; oneDNN is about ten times faster, which
    # makes small VAEs usable on a laptop. For larger weights torch uses oneDNN itself.
    small = x_BCTHW.device.type == "cpu" and x_BCTHW.dtype == torch.float32 and weight.numel() <= 20480
    if small and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return torch.mkldnn_convolution(x_BCTHW, weight, bias, padding, (1, 1, 1), (1, 1, 1), 1)
    return F.conv3d(x_BCTHW, weight, bias, padding=padding)


def _fold_frames(x_BCTHW: Tensor) -> Tensor:
    return x_BCTHW.transpose(1, 2).flatten(0, 1)


def _unfold_frames(frames: Tensor, batch: int) -> Tensor:
    return frames.view(batch, -1, *frames.shape[1:]).transpose(1, 2)
