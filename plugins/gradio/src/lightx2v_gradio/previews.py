"""Previews of latents: a linear projection to RGB, fitted by least squares for each latent space.

The fit is data: the sums of the normal equations, in a file of the user's cache for each VAE. It starts from a few
synthetic latents that the VAE decodes when a model is loaded; every finished video adds its own latents and frames.
Previews thus improve with use, and need no table of coefficients for each model.

Shape legend: C latent channels, T latent frames, h w latent rows and columns, F frames, H W frame rows and columns.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from attrs import define, frozen
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from lightx2v_core.api import Pipeline, Plan

_FORMAT = 1
#: number of one-frame latents that are decoded for the first fit, and their side in latent pixels
_SYNTHETIC, _SIDE = 6, 12
#: ridge of the fit, as a fraction of the mean variance: keeps directions without data near zero
_RIDGE = 1e-3
#: weight of a synthetic latent pixel relative to one of a real video
_TRUST = 0.02
#: longer side in pixels of a preview, and of the thumbnail of a finished video
_LARGEST, _SMALL = 512, 160


@define
class Sums:
    """Sums of a least-squares fit over all data: ``gram`` [C+1, C+1] and ``target`` [C+1, 3], float64."""

    gram: Tensor
    target: Tensor

    @classmethod
    def empty(cls, channels: int) -> Sums:
        """Create the sums of no data."""
        size = channels + 1
        return cls(torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, 3, dtype=torch.float64))

    @property
    def channels(self) -> int:
        """Return the number of latent channels."""
        return self.gram.shape[0] - 1

    def add(self, latents_NC: Tensor, rgb_N3: Tensor, weight: float = 1.0) -> None:
        """Add pairs of latent pixels and colours in [-1, 1]."""
        ones = torch.ones(len(latents_NC), 1, dtype=torch.float64)
        known = torch.cat((latents_NC.double(), ones), dim=1)
        self.gram += weight * known.T @ known
        self.target += weight * known.T @ rgb_N3.double()

    def fit(self) -> Tensor:
        """Solve for the projection [C+1, 3]: colour = (latent, 1) @ projection."""
        diagonal = self.gram.diagonal()
        ridge = torch.diag(_RIDGE * diagonal.mean() * torch.ones_like(diagonal))
        ridge[-1, -1] = 0  # no ridge on the mean colour
        solved: Tensor = torch.linalg.lstsq(self.gram + ridge, self.target).solution
        return solved.float()

    def to_json(self) -> dict[str, Any]:
        """Return the sums as JSON data."""
        return {"format": _FORMAT, "gram": self.gram.tolist(), "target": self.target.tolist()}

    @classmethod
    def from_json(cls, data: Any) -> Sums:
        """Read the data of ``to_json``. ``ValueError`` for any other data."""
        try:
            if data["format"] != _FORMAT:
                raise ValueError(f"format {data['format']!r}")
            sums = cls(
                torch.tensor(data["gram"], dtype=torch.float64),
                torch.tensor(data["target"], dtype=torch.float64),
            )
        except (KeyError, TypeError) as exc:
            raise ValueError(f"not a preview fit: {exc}") from None
        size = len(sums.gram)
        shapes = (tuple(sums.gram.shape), tuple(sums.target.shape))
        finite = bool(sums.gram.isfinite().all() and sums.target.isfinite().all())
        if shapes != ((size, size), (size, 3)) or not finite:
            raise ValueError("not a preview fit: its sums have a wrong shape")
        return sums


@frozen(kw_only=True)
class Previewer:
    """Previews of one latent space."""

    sums: Sums
    #: file of the fit
    file: Path

    def png(self, latents: Tensor) -> bytes | None:
        """Render the middle frame of latents [C, T, h, w] as PNG; None for latents with other channels."""
        if latents.shape[0] != self.sums.channels:
            return None
        return png(project(latents.float().cpu(), self.sums.fit()))

    def learn(self, latents: Tensor, frames: Iterable[tuple[float, Tensor]]) -> None:
        """Add a finished video: its latents [C, T, h, w], and some frames [3, H, W] in [-1, 1] with their positions,
        0 to 1."""
        latents = latents.float().cpu()
        if latents.shape[0] != self.sums.channels or not latents.isfinite().all():
            return
        for place, frame in frames:
            at = round(place * (latents.shape[1] - 1))
            self.sums.add(*_pairs(latents[:, at], frame))
        _store(self.file, self.sums)


def previewer(pipeline: Pipeline, cache: Path) -> Previewer:
    """Return the previews of a loaded model, with the cached fit of its latent space or a first fit from decoded
    synthetic latents."""
    file = cache / f"{space(pipeline.plan)}.json"
    channels = pipeline.plan.geometry.latent_shape[0]
    sums = _load(file)
    if sums is None or sums.channels != channels:
        sums = Sums.empty(channels)
        for latents in synthetic(channels):
            frames = pipeline.decode(latents)
            sums.add(*_pairs(latents[:, 0], frames[:, 0]), weight=_TRUST)
        _store(file, sums)
    return Previewer(sums=sums, file=file)


def synthetic(channels: int) -> Iterable[Tensor]:
    """Generate latents [C, 1, h, w] with the variance of normalized latents and the smoothness of those of images:
    upscaled noise of a few pixels."""
    generator = torch.Generator().manual_seed(0)
    for index in range(_SYNTHETIC):
        coarse = torch.randn(1, channels, 2 + index, 2 + index, generator=generator)
        smooth = interpolate(coarse, size=(_SIDE, _SIDE), mode="bilinear", align_corners=False)
        yield smooth[0][:, None]


def project(latents: Tensor, projection: Tensor) -> Tensor:
    """Convert the middle frame of latents [C, T, h, w] to colours [3, h, w] in [-1, 1]."""
    middle = latents[:, latents.shape[1] // 2]
    colours = torch.einsum("chw,cr->rhw", middle, projection[:-1]) + projection[-1][:, None, None]
    return colours.clamp(-1, 1)


def png(colours: Tensor) -> bytes:
    """Encode colours [3, h, w] in [-1, 1] as PNG, upscaled bicubically."""
    from PIL import Image

    rows, columns = colours.shape[1:]
    scale = max(min(16, _LARGEST // max(rows, columns)), 1)
    buffer = io.BytesIO()
    _image(colours).resize((columns * scale, rows * scale), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


def thumbnail(frame: Tensor) -> bytes:
    """Encode a frame [3, H, W] in [-1, 1] as a small JPEG."""
    rows, columns = frame.shape[1:]
    scale = min(_SMALL / max(rows, columns), 1.0)
    small = adaptive_avg_pool2d(frame[None], (max(round(rows * scale), 1), max(round(columns * scale), 1)))
    buffer = io.BytesIO()
    _image(small[0]).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def sample_frames(file: Path, count: int = 3) -> list[tuple[float, Tensor]]:
    """Read ``count`` frames [3, H, W] in [-1, 1] of a video, first to last, with their positions, 0 to 1; of an image,
    the image."""
    import av

    with av.open(str(file)) as container:
        if file.suffix.lower() != ".mp4":
            return [(0.0, _colours(frame)) for frame in container.decode(video=0)]
        total = container.streams.video[0].frames
        if total < 1:
            return []
        wanted = {round(index * (total - 1) / max(count - 1, 1)) for index in range(count)}
        return [
            (at / max(total - 1, 1), _colours(frame))
            for at, frame in enumerate(container.decode(video=0))
            if at in wanted
        ]


def space(plan: Plan) -> str:
    """Return a name for the latent space of a plan's model: a hash of its VAE's files, or of all files without a VAE.
    Only both ends of a file are read: a VAE has its sizes at the start and weights at the end."""
    parts = [part for part in plan.components if "vae" in part.name] or list(plan.components)
    digest = hashlib.sha256()
    for file in (Path(name) for part in parts for name in part.files):
        size = file.stat().st_size
        digest.update(size.to_bytes(8, "little"))
        with file.open("rb") as opened:
            digest.update(opened.read(2**18))
            opened.seek(max(size - 2**18, 0))
            digest.update(opened.read(2**18))
    return digest.hexdigest()[:32]


def _pairs(latent_Chw: Tensor, frame_3XY: Tensor) -> tuple[Tensor, Tensor]:
    """Return the latent pixels [N, C] with the mean colours [N, 3] of the areas that they cover."""
    rows, columns = latent_Chw.shape[1:]
    small = adaptive_avg_pool2d(frame_3XY.float()[None], (rows, columns))[0]
    return latent_Chw.flatten(1).T, small.flatten(1).T


def _image(colours: Tensor) -> Any:
    """Convert colours [3, H, W] in [-1, 1] to a Pillow image."""
    from PIL import Image

    rows, columns = colours.shape[1:]
    pixels = ((colours + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous()
    return Image.frombytes("RGB", (columns, rows), bytes(pixels.flatten().tolist()))


def _colours(frame: Any) -> Tensor:
    image = frame.to_image()
    data = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return data.view(image.height, image.width, 3).permute(2, 0, 1).float() / 127.5 - 1


def _load(file: Path) -> Sums | None:
    """Read a fit from the cache; None for a missing or unreadable file, which is then replaced."""
    try:
        return Sums.from_json(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def _store(file: Path, sums: Sums) -> None:
    """Write a fit. A read-only cache is not an error: the next start fits again."""
    values = sums.to_json()
    if not all(math.isfinite(value) for row in (*values["gram"], *values["target"]) for value in row):
        return
    part = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(values), encoding="utf-8")
        part.replace(file)
    except OSError:
        with suppress(OSError):
            part.unlink(missing_ok=True)
