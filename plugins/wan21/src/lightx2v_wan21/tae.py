"""Tiny VAEs (TAEHV): fast decoding of Wan latents, with less detail than the full VAE.

Parameter names are those of the published files (taew2_1, lighttaew2_1, taew2_2, lighttaew2_2).

Shape legend:
    video   [3, F, H, W]; decoded in [-1, 1], encoded from [0, 1]
    latents [C, T, h, w], normalized as the diffusion transformer predicts them
    Inside, frames are the batch axis: [F, C, H, W].

Layers are stateless: the frames that a layer remembers between two chunks of a clip are in a ``Past``, which the caller
creates for each clip. Decoding a clip in one chunk (parallel) or in many (sequential) gives the same result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightx2v_wan21.tae_architecture import TaeArchitecture

Past = dict[nn.Module, Tensor]
"""Last frame of each ``MemBlock``; empty at the start of a clip."""

TEMPORAL_STRIDE = 4


class TinyVae(nn.Module):
    """Encoder and decoder; ``dtype`` is that of parameters and computation, results are float32.

    Parameters are uninitialized: build under ``torch.device("meta")``, then load a checkpoint.
    """

    def __init__(
        self,
        arch: TaeArchitecture,
        *,
        dtype: torch.dtype = torch.float32,
        statistics: tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> None:
        """Build the layers.

        ``statistics`` are mean and deviation of the latents, for files that decode unnormalized latents (the light
        ones); without them, latents are decoded as given.
        """
        super().__init__()
        self.arch = arch
        self.dtype = dtype
        self.statistics = statistics
        self.encoder = _encoder(arch, dtype)
        self.decoder = _decoder(arch, dtype)

    @torch.no_grad()
    def encode(self, video: Tensor, *, chunk: int = TEMPORAL_STRIDE) -> Tensor:
        """Encode a video in [0, 1] to latents ``[C, ceil(F/4), h, w]``; its end is padded by repeating the last frame.

        Args:
            video: ``[3, F, H, W]``.
            chunk: frames at a time, a multiple of 4.
        """
        if chunk < 1 or chunk % TEMPORAL_STRIDE:
            raise ValueError(f"chunk is {chunk}; expected a multiple of {TEMPORAL_STRIDE} frames")
        frames = video.transpose(0, 1).to(self.dtype)
        if self.arch.patch_size > 1:
            frames = F.pixel_unshuffle(frames, self.arch.patch_size)
        if missing := -len(frames) % TEMPORAL_STRIDE:
            frames = torch.cat((frames, frames[-1:].expand(missing, -1, -1, -1)))
        past: Past = {}
        parts = [_run(self.encoder, part, past) for part in torch.split(frames, chunk)]
        return torch.cat(parts).transpose(0, 1).float()

    @torch.no_grad()
    def decode(self, latents: Tensor, *, chunk: int = 1) -> Iterator[Tensor]:
        """Decode latents ``[C, T, h, w]``; yields the video in [-1, 1], float32 ``[3, n, H, W]``: 4T - 3 frames in all.

        Args:
            latents: normalized latents.
            chunk: latent frames at a time; more need more memory and give the same result.
        """
        if self.statistics is not None:
            mean, std = (torch.tensor(x, device=latents.device).view(-1, 1, 1, 1) for x in self.statistics)
            latents = latents * std + mean
        frames = latents.transpose(0, 1).to(self.dtype)
        past: Past = {}
        drop = TEMPORAL_STRIDE - 1  # the first latent is one frame
        for part in torch.split(frames, chunk):
            out = _run(self.decoder, part, past).clamp(0, 1)
            if self.arch.patch_size > 1:
                out = F.pixel_shuffle(out, self.arch.patch_size)
            yield out[drop:].transpose(0, 1).float() * 2 - 1
            drop = 0


class MemBlock(nn.Module):
    """Three convolutions over each frame and its predecessor (zeros before the clip), with a residual connection."""

    def __init__(self, dim: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.conv = nn.ModuleDict(
            {"0": _conv(2 * dim, dim, dtype), "2": _conv(dim, dim, dtype), "4": _conv(dim, dim, dtype)}
        )

    def forward(self, x_FCHW: Tensor, past: Past) -> Tensor:
        """Apply the block to ``[F, C, H, W]``; the shape is unchanged."""
        before = past.get(self)
        if before is None:
            before = torch.zeros_like(x_FCHW[:1])
        # A copy, because a view would keep the whole chunk in memory.
        past[self] = x_FCHW[-1:].clone()
        h = torch.cat((x_FCHW, torch.cat((before, x_FCHW[:-1]))), dim=1)
        h = F.relu(self.conv["0"](h))
        h = F.relu(self.conv["2"](h))
        return F.relu(self.conv["4"](h) + x_FCHW)


class Pool(nn.Module):
    """Mixing of ``stride`` consecutive frames into one."""

    def __init__(self, dim: int, stride: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(dim * stride, dim, 1, bias=False, dtype=dtype)

    def forward(self, x_FCHW: Tensor) -> Tensor:
        """Pool ``[F, C, H, W]`` to ``[F/stride, C, H, W]``."""
        frames, dim, rows, columns = x_FCHW.shape
        mixed: Tensor = self.conv(x_FCHW.reshape(frames // self.stride, self.stride * dim, rows, columns))
        return mixed


class Grow(nn.Module):
    """Upsampling: doubles rows and columns, and produces ``stride`` frames from one."""

    def __init__(self, dim: int, stride: int, rows: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(dim, rows, 1, bias=False, dtype=dtype)

    def forward(self, x_FCHW: Tensor) -> Tensor:
        """Upsample ``[F, C, H, W]`` to ``[F * stride, C, 2H, 2W]``."""
        # If the weight is for more frames than needed, the last ones are used. Mixing channels before the pixels are
        # repeated gives the same result for a quarter of the work.
        weight = self.conv.weight[-self.stride * x_FCHW.shape[1] :]
        frames = F.conv2d(x_FCHW, weight).reshape(-1, *x_FCHW.shape[1:])
        return F.interpolate(frames, scale_factor=2.0, mode="nearest")


def _encoder(arch: TaeArchitecture, dtype: torch.dtype) -> nn.ModuleDict:
    dim = arch.enc_dim
    layers: dict[str, nn.Module] = {"0": _conv(arch.image_channels, dim, dtype)}
    for start, stride in ((2, 2), (7, 2), (12, 1)):
        layers[str(start)] = Pool(dim, stride, dtype)
        layers[str(start + 1)] = _conv(dim, dim, dtype, stride=2, bias=False)
        layers |= {str(start + 2 + i): MemBlock(dim, dtype) for i in range(3)}
    layers["17"] = _conv(dim, arch.z_dim, dtype)
    return nn.ModuleDict(layers)


def _decoder(arch: TaeArchitecture, dtype: torch.dtype) -> nn.ModuleDict:
    dims = arch.dec_dims
    layers: dict[str, nn.Module] = {"1": _conv(arch.z_dim, dims[0], dtype)}
    for stage, (start, stride) in enumerate(((3, 1), (9, 2), (15, 2))):
        dim = dims[stage]
        layers |= {str(start + i): MemBlock(dim, dtype) for i in range(3)}
        layers[str(start + 4)] = Grow(dim, stride, arch.grow_rows[stage], dtype)
        layers[str(start + 5)] = _conv(dim, dims[stage + 1], dtype, bias=False)
    layers["22"] = _conv(dims[3], arch.image_channels, dtype)
    return nn.ModuleDict(layers)


def _run(layers: nn.ModuleDict, x_FCHW: Tensor, past: Past) -> Tensor:
    """Apply the layers in order; activations are where the published sequence has entries without parameters."""
    decoding = "22" in layers
    if decoding:
        x_FCHW = torch.tanh(x_FCHW / 3) * 3
    for name, layer in layers.items():
        x_FCHW = layer(x_FCHW, past) if isinstance(layer, MemBlock) else layer(x_FCHW)
        if name in (("1", "20") if decoding else ("0",)):
            x_FCHW = F.relu(x_FCHW)
    return x_FCHW


def _conv(in_dim: int, out_dim: int, dtype: torch.dtype, *, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(in_dim, out_dim, 3, stride=stride, padding=1, bias=bias, dtype=dtype)
