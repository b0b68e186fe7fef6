"""A rough picture of latents: a linear projection to RGB, fitted by least squares for each latent space.

The fit is data: the sums of the normal equations, in a file of the user's cache for each VAE. It starts from a few
synthetic latents that the VAE decodes when a model is loaded, and every finished video adds its own latents and frames,
so that previews get better with use and need no table of any model.

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
#: latents of one frame that are decoded for the first fit, and their side
_SYNTHETIC, _SIDE = 6, 12
#: pulls the fit towards nothing where the data say nothing, as a part of the mean variance
_RIDGE = 1e-3
#: weight of a synthetic latent pixel beside one of a real video
_TRUST = 0.02
#: the longer side of a preview in pixels, and of the picture of a finished video
_LARGEST, _SMALL = 512, 160


@define
class Sums:
    """What a least-squares fit needs of all data seen: ``gram`` [C+1, C+1] and ``target`` [C+1, 3], float64."""

    gram: Tensor
    target: Tensor

    @classmethod
    def empty(cls, channels: int) -> Sums:
        size = channels + 1
        return cls(torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, 3, dtype=torch.float64))

    @property
    def channels(self) -> int:
        return self.gram.shape[0] - 1

    def add(self, latents_NC: Tensor, rgb_N3: Tensor, weight: float = 1.0) -> None:
        """Count pairs of latent pixels and colours in [-1, 1]."""
        ones = torch.ones(len(latents_NC), 1, dtype=torch.float64)
        known = torch.cat((latents_NC.double(), ones), dim=1)
        self.gram += weight * known.T @ known
        self.target += weight * known.T @ rgb_N3.double()

    def fit(self) -> Tensor:
        """The projection [C+1, 3]: colour = (latent, 1) @ projection."""
        diagonal = self.gram.diagonal()
        ridge = torch.diag(_RIDGE * diagonal.mean() * torch.ones_like(diagonal))
        ridge[-1, -1] = 0  # the mean colour is no guess
        solved: Tensor = torch.linalg.lstsq(self.gram + ridge, self.target).solution
        return solved.float()

    def to_json(self) -> dict[str, Any]:
        return {"format": _FORMAT, "gram": self.gram.tolist(), "target": self.target.tolist()}

    @classmethod
    def from_json(cls, data: Any) -> Sums:
        """``ValueError`` when the data are none of ours."""
        try:
            if data["format"] != _FORMAT:
                raise ValueError(f"format {data['format']!r}")
            sums = cls(
                torch.tensor(data["gram"], dtype=torch.float64),
                torch.tensor(data["target"], dtype=torch.float64),
            )
        except (KeyError, TypeError) as exc:
            raise ValueError(f"no fit of a preview: {exc}") from None
        size = len(sums.gram)
        shapes = (tuple(sums.gram.shape), tuple(sums.target.shape))
        finite = bool(sums.gram.isfinite().all() and sums.target.isfinite().all())
        if shapes != ((size, size), (size, 3)) or not finite:
            raise ValueError("no fit of a preview: its sums have a wrong shape")
        return sums


@frozen(kw_only=True)
class Previewer:
    """Previews of one latent space."""

    sums: Sums
    #: where the fit is kept
    file: Path

    def png(self, latents: Tensor) -> bytes | None:
        """A PNG of the middle frame of latents [C, T, h, w]; None when they are of another space."""
        if latents.shape[0] != self.sums.channels:
            return None
        return png(project(latents.float().cpu(), self.sums.fit()))

    def learn(self, latents: Tensor, frames: Iterable[tuple[float, Tensor]]) -> None:
        """Count a finished video: latents [C, T, h, w], and some frames [3, H, W] in [-1, 1] with their places in it,
        0 to 1."""
        latents = latents.float().cpu()
        if latents.shape[0] != self.sums.channels or not latents.isfinite().all():
            return
        for place, frame in frames:
            at = round(place * (latents.shape[1] - 1))
            self.sums.add(*_pairs(latents[:, at], frame))
        _store(self.file, self.sums)


def previewer(pipeline: Pipeline, cache: Path) -> Previewer:
    """Previews of a loaded model: what is known of its latent space, else a first fit from decoding synthetic
    latents."""
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
    """Latents [C, 1, h, w] with the spread that normalized latents have, smooth as those of pictures are: noise of a
    few pixels, made larger."""
    generator = torch.Generator().manual_seed(0)
    for index in range(_SYNTHETIC):
        coarse = torch.randn(1, channels, 2 + index, 2 + index, generator=generator)
        smooth = interpolate(coarse, size=(_SIDE, _SIDE), mode="bilinear", align_corners=False)
        yield smooth[0][:, None]


def project(latents: Tensor, projection: Tensor) -> Tensor:
    """The middle frame of latents [C, T, h, w] in colours [3, h, w] in [-1, 1]."""
    middle = latents[:, latents.shape[1] // 2]
    colours = torch.einsum("chw,cr->rhw", middle, projection[:-1]) + projection[-1][:, None, None]
    return colours.clamp(-1, 1)


def png(colours: Tensor) -> bytes:
    """Colours [3, h, w] in [-1, 1] as a PNG, enlarged smoothly."""
    from PIL import Image

    rows, columns = colours.shape[1:]
    scale = max(min(16, _LARGEST // max(rows, columns)), 1)
    buffer = io.BytesIO()
    _image(colours).resize((columns * scale, rows * scale), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


def thumbnail(frame: Tensor) -> bytes:
    """A frame [3, H, W] in [-1, 1] as a small JPEG."""
    rows, columns = frame.shape[1:]
    scale = min(_SMALL / max(rows, columns), 1.0)
    small = adaptive_avg_pool2d(frame[None], (max(round(rows * scale), 1), max(round(columns * scale), 1)))
    buffer = io.BytesIO()
    _image(small[0]).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def sample_frames(file: Path, count: int = 3) -> list[tuple[float, Tensor]]:
    """Some frames [3, H, W] in [-1, 1] of a video, first to last, with their places in it; of an image itself."""
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
    """A name for the latent space of a plan's model: a hash of its VAE's files, or of all files when none is called so.
    Only their ends are read: a VAE has its sizes in front and weights behind."""
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
    """Latent pixels [N, C] and the mean colours [N, 3] of what they cover."""
    rows, columns = latent_Chw.shape[1:]
    small = adaptive_avg_pool2d(frame_3XY.float()[None], (rows, columns))[0]
    return latent_Chw.flatten(1).T, small.flatten(1).T


def _image(colours: Tensor) -> Any:
    """Colours [3, H, W] in [-1, 1] as an image of Pillow."""
    from PIL import Image

    rows, columns = colours.shape[1:]
    pixels = ((colours + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous()
    return Image.frombytes("RGB", (columns, rows), bytes(pixels.flatten().tolist()))


def _colours(frame: Any) -> Tensor:
    image = frame.to_image()
    data = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return data.view(image.height, image.width, 3).permute(2, 0, 1).float() / 127.5 - 1


def _load(file: Path) -> Sums | None:
    """What the cache knows; a file that cannot be read is made anew."""
    try:
        return Sums.from_json(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def _store(file: Path, sums: Sums) -> None:
    """Keep a fit. A cache that cannot be written only costs the next start a moment."""
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
