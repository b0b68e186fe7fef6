"""Decoding in spatial tiles, and the chunk sizes of causal VAEs; for every Wan VAE.

Shape legend: latents [C, T, h, w]; video [3, F, H, W] with F = 4 (T - 1) + 1 frames.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

TEMPORAL_STRIDE = 4


def chunk_sizes(num_latents: int) -> list[int]:
    """Return the number of video frames of each latent frame: 1 for the first, then 4 each."""
    return [1] + [TEMPORAL_STRIDE] * (num_latents - 1)


def decode_tiled(
    decode: Callable[[Tensor], Iterator[Tensor]],
    latents: Tensor,
    *,
    tile: tuple[int, int],
    overlap: int,
    stride: int,
) -> Iterator[Tensor]:
    """Yield the chunks of ``decode``, with the device memory of one tile; chunks are on the CPU.

    Each tile is decoded over the whole clip before the next, into one CPU buffer of the whole video. The seams differ
    slightly from an undivided decode because a tile does not see its surroundings; a tile as large as the frame gives
    the same result.

    Args:
        decode: decodes latents of a tile to chunks of its video.
        latents: ``[C, T, h, w]``.
        tile: rows and columns of a tile, in latent pixels.
        overlap: latent pixels (at least) shared by neighbouring tiles, blended linearly.
        stride: pixels of the video for each latent pixel.

    Raises:
        ValueError: the overlap is negative or not smaller than a tile.
    """
    _, num_latents, rows, columns = latents.shape
    if tile[0] >= rows and tile[1] >= columns:
        for chunk in decode(latents):
            yield chunk.cpu()
        return
    sizes = chunk_sizes(num_latents)
    video = torch.zeros(3, sum(sizes), rows * stride, columns * stride, device="cpu")
    for top, row_weights in tile_weights(rows, tile[0], overlap, stride):
        for left, column_weights in tile_weights(columns, tile[1], overlap, stride):
            weights = torch.outer(row_weights, column_weights).to(latents.device)
            height, width = weights.shape
            part = latents[..., top : top + height // stride, left : left + width // stride]
            y, x = top * stride, left * stride
            area = video[..., y : y + height, x : x + width]
            for piece, chunk in zip(torch.split(area, sizes, dim=1), decode(part), strict=True):
                piece += (chunk * weights).cpu()
    yield from torch.split(video, sizes, dim=1)


def tile_weights(size: int, tile: int, overlap: int, stride: int) -> list[tuple[int, Tensor]]:
    """Compute the tiles along one axis: the first latent pixel of each, and its blending weight for every video pixel.

    Tiles are spaced evenly, so that neighbours share at least ``overlap``; weights add up to 1 everywhere.
    """
    if tile < size and not 0 <= overlap < tile:
        raise ValueError(f"overlap {overlap} of tiles must be at least 0 and smaller than a tile, {tile}")
    tile = min(tile, size)
    count = 1 if tile == size else math.ceil((size - overlap) / (tile - overlap))
    starts = [round(i * (size - tile) / max(count - 1, 1)) for i in range(count)]
    length = tile * stride
    rise = (torch.arange(length, dtype=torch.float32, device="cpu") + 0.5) / stride
    weights = []
    for i, start in enumerate(starts):
        weight = torch.ones_like(rise)
        if i > 0:
            weight = torch.minimum(weight, rise / max(starts[i - 1] + tile - start, 1e-3))
        if i < count - 1:
            weight = torch.minimum(weight, rise.flip(0) / max(start + tile - starts[i + 1], 1e-3))
        weights.append(weight)
    total = torch.zeros(size * stride, device="cpu")
    for start, weight in zip(starts, weights, strict=True):
        total[start * stride :][:length] += weight
    return [
        (start, weight / total[start * stride :][:length])
        for start, weight in zip(starts, weights, strict=True)
    ]
