"""The motion encoder of Animate: encodes the expression of a face as a vector.

A convolutional network without normalization layers. Its weights are stored with unit variance and scaled by their
fan-in in the forward pass. The output is a weighted sum of a few orthogonal directions. Parameter names are the
official ones; the blur kernels are buffers of the checkpoint. Everything is float32: it runs once for each face, not at
each step.

Shape legend: B faces, C channels, H W rows and columns, E strengths of the directions, M motion.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightx2v_wan22.animate.architecture import AnimateArchitecture

SLOPE = 0.2
GAIN = math.sqrt(2)


class MotionEncoder(nn.Module):
    """Encoder of faces to motion vectors."""

    def __init__(self, arch: AnimateArchitecture) -> None:
        super().__init__()
        self.size = arch.face_size
        widths = [arch.style_dim] * (arch.motion_layers - 1) + [arch.directions]
        strengths = nn.Sequential(*(ScaledLinear(arch.style_dim, width) for width in widths))
        self.enc = nn.ModuleDict({"net_app": FaceFeatures(arch), "fc": strengths})
        self.dec = nn.ModuleDict({"direction": Directions(arch)})

    def forward(self, faces_BCHW: Tensor) -> Tensor:
        """Encode faces ``[B, 3, 512, 512]`` in [-1, 1] to motion, float32 ``[B, M]``."""
        if faces_BCHW.shape[-2:] != (self.size, self.size):
            rows, columns = faces_BCHW.shape[-2:]
            raise ValueError(f"faces are {rows}x{columns}; the motion encoder needs {self.size}x{self.size}")
        strengths_BE = self.enc["fc"](self.enc["net_app"](faces_BCHW.float()))
        motion: Tensor = self.dec["direction"](strengths_BE)
        return motion


class FaceFeatures(nn.Module):
    """Residual blocks that halve the image down to 4x4, and a final convolution."""

    def __init__(self, arch: AnimateArchitecture) -> None:
        super().__init__()
        channels = arch.motion_channels
        layers: list[nn.Module] = [nn.Sequential(ScaledConv(3, channels[0], 1), Leaky(channels[0]))]
        layers += [HalvingBlock(width, out_width) for width, out_width in pairwise(channels)]
        layers.append(ScaledConv(channels[-1], arch.style_dim, 4))
        self.convs = nn.Sequential(*layers)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Encode ``[B, 3, H, W]`` to features ``[B, style]``."""
        features: Tensor = self.convs(x_BCHW).flatten(1)
        return features


class HalvingBlock(nn.Module):
    """Two convolutions and a shortcut; both paths blur and halve the image."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(ScaledConv(in_dim, in_dim, 3, padding=1), Leaky(in_dim))
        self.conv2 = nn.Sequential(Blur((2, 2)), ScaledConv(in_dim, out_dim, 3, stride=2), Leaky(out_dim))
        self.skip = nn.Sequential(Blur((1, 1)), ScaledConv(in_dim, out_dim, 1, stride=2))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Downsample ``[B, in, H, W]`` to ``[B, out, H/2, W/2]``."""
        out: Tensor = (self.conv2(self.conv1(x_BCHW)) + self.skip(x_BCHW)) / GAIN
        return out


class ScaledConv(nn.Module):
    """Convolution without bias whose weight is divided by the root of its fan-in."""

    def __init__(self, in_dim: int, out_dim: int, size: int, *, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_dim, in_dim, size, size, dtype=torch.float32))
        self.scale = 1 / math.sqrt(in_dim * size**2)
        self.stride, self.padding = stride, padding

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Convolve ``[B, in, H, W]`` to ``[B, out, H', W']``."""
        return F.conv2d(x_BCHW, self.weight * self.scale, stride=self.stride, padding=self.padding)


class ScaledLinear(nn.Module):
    """Linear layer whose weight is divided by the root of its fan-in."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_dim, in_dim, dtype=torch.float32))
        self.bias = nn.Parameter(torch.empty(out_dim, dtype=torch.float32))
        self.scale = 1 / math.sqrt(in_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to ``[B, in]``; returns ``[B, out]``."""
        return F.linear(x, self.weight * self.scale, self.bias)


class Leaky(nn.Module):
    """Bias and leaky ReLU, scaled up to keep the variance."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.empty(1, dim, 1, 1, dtype=torch.float32))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Apply bias and activation; the shape is unchanged."""
        return F.leaky_relu(x_BCHW + self.bias, SLOPE) * GAIN


class Blur(nn.Module):
    """Blur of each channel with the kernel 1 3 3 1 along both axes.

    Official files contain the kernel, others omit it.
    """

    def __init__(self, padding: tuple[int, int]) -> None:
        super().__init__()
        self.padding = padding

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Blur ``[B, C, H, W]`` to ``[B, C, H', W']`` with H' = H + 2 * padding - 3."""
        channels = x_BCHW.shape[1]
        row = torch.tensor([1.0, 3.0, 3.0, 1.0], device=x_BCHW.device)
        kernel = (torch.outer(row, row) / 64).expand(channels, 1, 4, 4)
        return F.conv2d(x_BCHW, kernel, padding=self.padding, groups=channels)


class Directions(nn.Module):
    """Weighted sum of orthogonal directions."""

    def __init__(self, arch: AnimateArchitecture) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(arch.motion_dim, arch.directions, dtype=torch.float32))

    def forward(self, strengths_BE: Tensor) -> Tensor:
        """Combine strengths ``[B, E]`` to motion ``[B, M]``."""
        # On the CPU, so that the signs of the columns, which LAPACK determines, are the same everywhere.
        basis_ME: Tensor = torch.linalg.qr(self.weight.cpu() + 1e-8).Q.to(strengths_BE.device)
        return strengths_BE @ basis_ME.T
