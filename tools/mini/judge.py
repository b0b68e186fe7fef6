"""Judge of clips: determines the attributes of the scene from the frames.

No neural network is involved, only medians, projections and templates. The judge knows the palette and the shapes of
``world.py``, but not the prompt. It determines:

1. the look: is gold the nearest colour to the rim of the frames?
2. the background: the median of each row over columns and frames, and a line through the rows for its gradient;
3. the colours: for every pixel that stands out, the palette colour on whose line from the background it lies;
4. each shape: its coverage in every frame, the motion of its centre, and the template nearest to its mean outline.

Shape legend: F frames, H W rows and columns, P pixels.
"""

from __future__ import annotations

import math

import torch
from attrs import frozen
from torch import Tensor
from torch.nn import functional as F

from world import (
    CIRCUMRADIUS,
    COLOURS,
    FADE,
    FRAME,
    GOLD,
    GROUNDS,
    HALF_SIDE,
    PALETTE,
    RADII,
    SHAPES,
    TRAVEL,
    Colour,
    Direction,
    Ground,
    Kind,
    Look,
    Scene,
    Shape,
    Size,
    Speed,
    coverage,
)

#: least coverage of a pixel that belongs to a shape
_COVER = 0.5
#: shapes with a smaller share of the frame are noise; half of the smallest rendered one
_LEAST_AREA = 0.5 * CIRCUMRADIUS**2 * 3 * math.sqrt(3) / 4 * RADII["small"] ** 2
#: area of a shape of radius 1
_AREAS: dict[Shape, float] = {
    "circle": math.pi,
    "square": 4 * HALF_SIDE**2,
    "triangle": 3 * math.sqrt(3) / 4 * CIRCUMRADIUS**2,
}
#: a shape that moves less than this stands still: half of the slow distance
_STILL = TRAVEL["slow"] / 2


@frozen(kw_only=True)
class Seen:
    """One shape of a clip. A direction of ``None`` is neither along rows nor along columns."""

    colour: Colour
    shape: Shape
    size: Size
    direction: Direction | None
    speed: Speed | None
    #: motion of the centre in the whole clip, columns to the right and rows downwards, in sides of the clip
    way: tuple[float, float]
    #: share of the frame
    area: float
    #: share of the frames with the shape
    present: float


@frozen(kw_only=True)
class Verdict:
    """The attributes of a clip; ``first`` is the shape that moves, or else the larger one."""

    ground: Ground
    kind: Kind
    look: Look
    first: Seen | None
    second: Seen | None


def judge(clip: Tensor) -> Verdict:
    """Determine the attributes of a clip ``[3, F, H, W]`` of floats in [-1, 1].

    ``ValueError`` for another shape or a tiny clip.
    """
    if clip.ndim != 4 or clip.shape[0] != 3 or min(clip.shape[2:]) < 32:
        raise ValueError(f"expected [3, frames, rows, columns] of 32 pixels or more, got {tuple(clip.shape)}")
    pixels = (clip.float() / 2 + 0.5).clamp(0, 1)
    look = _look(pixels)
    rim = max(round(FRAME * min(clip.shape[2:])) + 1, 2)
    inner = pixels[:, :, rim:-rim, rim:-rim] if look == "framed" else pixels
    offset = rim if look == "framed" else 0
    lines = _lines(inner, offset, clip.shape[2])
    ground, kind = _ground(lines[:, 0], lines[:, -1])
    rows = lines[:, offset : offset + inner.shape[2]]
    seen = _shapes(inner, rows, ground, clip.shape[2])
    return Verdict(
        ground=ground,
        kind=kind,
        look=look,
        first=seen[0] if seen else None,
        second=seen[1] if len(seen) > 1 else None,
    )


def agreement(scene: Scene, verdict: Verdict, *, look: Look = "none") -> dict[str, bool]:
    """Compare the verdict with the scene, for each attribute.

    The second shape counts as one attribute, which is right if the scene and the verdict have none.
    """
    first, second = verdict.first, verdict.second
    wanted = scene.second and (scene.second.colour, scene.second.shape)
    return {
        "colour": first is not None and first.colour == scene.colour,
        "shape": first is not None and first.shape == scene.shape,
        "direction": first is not None and first.direction == scene.direction,
        "size": first is not None and first.size == scene.size,
        "speed": scene.direction == "still" or (first is not None and first.speed == scene.speed),
        "ground": verdict.ground == scene.ground,
        "kind": verdict.kind == scene.kind,
        "second": wanted == (second and (second.colour, second.shape)),
        "look": verdict.look == look,
    }


def _look(pixels: Tensor) -> Look:
    """Return ``framed`` if gold is the nearest colour to most of the rim, on all four edges."""
    width = max(round(FRAME * min(pixels.shape[2:]) * 0.7), 1)
    edges = (
        pixels[:, :, :width], pixels[:, :, -width:], pixels[..., :width], pixels[..., -width:]
    )  # fmt: skip
    known = torch.tensor([GOLD, *(PALETTE[name] for name in GROUNDS)])
    # the darker colours at the bottom of a graded background are not gold either
    known = torch.cat((known, known[1:] * (1 - FADE / 2), known[1:] * (1 - FADE)))
    nearest = [torch.cdist(edge.flatten(1).T, known).argmin(1) for edge in edges]
    return "framed" if all((found == 0).float().mean() > 0.5 for found in nearest) else "none"


def _lines(pixels: Tensor, offset: int, height: int) -> Tensor:
    """Fit the background ``[3, height]``: a line through the rows' medians, refitted with less weight for outliers."""
    medians = pixels.permute(0, 2, 1, 3).flatten(2).median(2).values
    places = (torch.arange(medians.shape[1]) + offset + 0.5) / height - 0.5
    basis = torch.stack((torch.ones_like(places), places), 1)
    weight = torch.ones_like(places)
    for _ in range(4):
        line = torch.linalg.lstsq(basis * weight[:, None], (medians * weight).T).solution
        off = (medians.T - basis @ line).norm(dim=1)
        weight = 1 / (1 + (off / 0.05) ** 2)
    whole = (torch.arange(height) + 0.5) / height - 0.5
    fitted: Tensor = (torch.stack((torch.ones_like(whole), whole), 1) @ line).T
    return fitted


def _ground(top: Tensor, bottom: Tensor) -> tuple[Ground, Kind]:
    known = torch.tensor([PALETTE[name] for name in GROUNDS])
    ground = GROUNDS[int(torch.cdist(top[None], known).argmin())]
    kept = bottom.sum() / top.sum().clamp(min=1e-3)
    return ground, "graded" if ground != "black" and kept < 1 - FADE / 2 else "plain"


def _shapes(pixels: Tensor, ground_3H: Tensor, name: Ground, height: int) -> list[Seen]:
    """Return the shapes, at most two: a moving one before a still one, then by area."""
    base = ground_3H[:, None, :, None]
    colours: list[Colour] = [colour for colour in COLOURS if colour != name]
    covers, misses = _explained(pixels - base, base, colours)
    area = pixels.shape[2] * pixels.shape[3]
    owner = misses.argmin(0)
    solid = covers.gather(0, owner[None])[0] > 0.7
    counts = torch.stack([((owner == index) & solid).sum() for index in range(len(colours))])
    kept = [
        int(index)
        for index in counts.argsort(descending=True)[:2]
        if counts[index] > _LEAST_AREA / 2 * height**2 * pixels.shape[1]
    ]
    if not kept:
        return []
    nearest = misses[kept].argmin(0)
    found = [
        _seen(covers[index] * (nearest == place) * (covers[index] > 0.25), colours[index], height)
        for place, index in enumerate(kept)
    ]
    least = _LEAST_AREA * height**2 / area
    present = [one for one in found if one is not None and one.area * height**2 / area > least]
    return sorted(present, key=lambda one: (max(map(abs, one.way)) < _STILL, -one.area))


def _explained(off: Tensor, base: Tensor, colours: list[Colour]) -> tuple[Tensor, Tensor]:
    """Compute for each colour its coverage of each pixel ``[F, H, W]`` over the background, and the remaining error."""
    covers, misses = [], []
    for colour in colours:
        full = torch.tensor(PALETTE[colour]).view(3, 1, 1, 1) - base
        cover = ((off * full).sum(0) / (full**2).sum(0)).clamp(0, 1)
        misses.append((off - cover * full).norm(dim=0))
        covers.append(cover)
    return torch.stack(covers), torch.stack(misses)


def _seen(cover: Tensor, colour: Colour, height: int) -> Seen | None:
    """Determine the shape of a coverage ``[F, H, W]``."""
    cover = _largest(cover)
    areas = cover.sum((1, 2))
    there = areas > 0.4 * areas.median()
    there &= areas > _LEAST_AREA / 2 * height**2
    if there.float().mean() < 0.5:
        return None
    frames = there.nonzero()[:, 0]
    centres = torch.stack([_centre(cover[frame]) for frame in frames])
    way = _way(frames, centres, len(cover)) / height
    shape, area = _outline(cover[frames], centres, height)
    radius = math.sqrt(area / _AREAS[shape])
    dx, dy = (float(part) for part in way)
    along, across = max(abs(dx), abs(dy)), min(abs(dx), abs(dy))
    direction: Direction | None
    if along < _STILL:
        direction = "still"
    elif across > 0.6 * along:
        direction = None
    elif abs(dx) > abs(dy):
        direction = "right" if dx > 0 else "left"
    else:
        direction = "down" if dy > 0 else "up"
    speed: Speed = "fast" if along > (TRAVEL["slow"] + TRAVEL["fast"]) / 2 else "slow"
    return Seen(
        colour=colour,
        shape=shape,
        size="large" if radius > (RADII["small"] + RADII["large"]) / 2 else "small",
        direction=direction,
        speed=None if direction in (None, "still") else speed,
        way=(dx, dy),
        area=area,
        present=float(there.float().mean()),
    )


def _largest(cover: Tensor) -> Tensor:
    """Keep only the region connected to the densest place of each frame: noise elsewhere would move the centre."""
    dense = F.avg_pool2d(cover[:, None], 5, stride=1, padding=2)
    start = (dense == dense.amax((2, 3), keepdim=True)).float()
    region, inside = start, (F.avg_pool2d(cover[:, None], 3, stride=1, padding=1) > 0.2).float()
    for _ in range(max(cover.shape[1:])):
        grown = F.max_pool2d(region, 5, stride=1, padding=2) * inside
        if torch.equal(grown, region):
            break
        region = grown
    return cover * F.max_pool2d(region, 3, stride=1, padding=1)[:, 0]


def _centre(cover: Tensor) -> Tensor:
    """Return the column and row of the centre of a coverage ``[H, W]``, in pixels."""
    rows, columns = (torch.arange(length, dtype=torch.float32) for length in cover.shape)
    total = cover.sum().clamp(min=1e-6)
    return torch.stack(((cover.sum(0) * columns).sum(), (cover.sum(1) * rows).sum())) / total


def _way(frames: Tensor, centres: Tensor, count: int) -> Tensor:
    """Return the columns and rows that a centre moves in the whole clip: the slope of a line through all frames."""
    if len(frames) < 2:
        return torch.zeros(2)
    times = frames.float() - frames.float().mean()
    slope = (times[:, None] * centres).sum(0) / (times**2).sum()
    return slope * (count - 1)


def _outline(cover: Tensor, centres: Tensor, height: int) -> tuple[Shape, float]:
    """Return the shape whose template correlates best with the mean of all frames, and its share of the frame.

    Frames are aligned at their centres. Templates have the area of the mean; variants have a blur, and a radius of 10 %
    more or less.
    """
    side = 2 * math.ceil(1.15 * CIRCUMRADIUS * RADII["large"] * height) + 1
    mean = torch.stack(
        [_around(frame, centre, side) for frame, centre in zip(cover, centres, strict=True)]
    ).mean(0)
    area = float(mean.sum())
    likeness: dict[Shape, float] = {}
    middle = torch.tensor([0.5])
    for shape in SHAPES:
        radius = math.sqrt(area / _AREAS[shape]) / side
        tried = []
        for scale in (0.9, 1.0, 1.1):
            template = coverage(shape, radius * scale, middle, middle, side)[0]
            tried += [_correlation(mean, template), _correlation(mean, _blurred(template))]
        likeness[shape] = max(tried)
    best = max(SHAPES, key=lambda shape: likeness[shape])
    return best, area / height**2


def _around(cover: Tensor, centre: Tensor, side: int) -> Tensor:
    """Sample the square ``[side, side]`` around a subpixel position; zeros outside the frame."""
    steps = torch.arange(side) - side // 2
    height, width = cover.shape
    columns = (centre[0] + steps + 0.5) / width * 2 - 1
    rows = (centre[1] + steps + 0.5) / height * 2 - 1
    grid = torch.stack((columns[None, :].expand(side, side), rows[:, None].expand(side, side)), -1)
    return F.grid_sample(cover[None, None], grid[None], align_corners=False)[0, 0]


def _blurred(image: Tensor) -> Tensor:
    return F.avg_pool2d(image[None, None], 3, stride=1, padding=1)[0, 0]


def _correlation(one: Tensor, other: Tensor) -> float:
    one, other = one - one.mean(), other - other.mean()
    return float((one * other).sum() / (one.norm() * other.norm()).clamp(min=1e-6))
