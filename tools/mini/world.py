"""The world of the mini checkpoints: short clips of one or two coloured shapes on a plain or graded background.

Lengths are in shares of the clip's side, so that a scene can be rendered at any size and number of frames.

Shape legend: F frames, S side in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from random import Random
from typing import Literal, get_args

import torch
from attrs import field, frozen
from attrs import validators as v
from torch import Tensor

Colour = Literal["red", "green", "blue", "yellow", "purple", "white"]
Shape = Literal["circle", "square", "triangle"]
Direction = Literal["still", "right", "left", "up", "down"]
Size = Literal["small", "large"]
Speed = Literal["slow", "fast"]
Ground = Literal["black", "white", "grey", "blue", "green"]
Kind = Literal["plain", "graded"]
Look = Literal["none", "framed"]

COLOURS: tuple[Colour, ...] = get_args(Colour)
SHAPES: tuple[Shape, ...] = get_args(Shape)
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
SIZES: tuple[Size, ...] = get_args(Size)
SPEEDS: tuple[Speed, ...] = get_args(Speed)
GROUNDS: tuple[Ground, ...] = get_args(Ground)
KINDS: tuple[Kind, ...] = get_args(Kind)

#: red, green, blue in [0, 1] of every named colour
PALETTE = {
    "red": (0.90, 0.10, 0.10),
    "green": (0.10, 0.75, 0.20),
    "blue": (0.10, 0.20, 0.90),
    "yellow": (0.95, 0.90, 0.10),
    "purple": (0.75, 0.10, 0.75),
    "white": (0.97, 0.97, 0.97),
    "black": (0.05, 0.05, 0.05),
    "grey": (0.50, 0.50, 0.50),
}
#: the frame of the look ``framed``
GOLD = (0.72, 0.46, 0.12)
#: width of that frame, and the least distance of shapes from an edge
FRAME, MARGIN = 0.08, 0.085
#: loss of brightness of a graded background from the top row to the bottom one
FADE = 0.55
RADII: dict[Size, float] = {"small": 0.13, "large": 0.185}
#: distance that a shape moves in the whole clip, for any number of frames
TRAVEL: dict[Speed, float] = {"slow": 0.18, "fast": 0.36}
#: unit vectors, columns to the right and rows downwards
VECTORS: dict[Direction, tuple[float, float]] = {
    "still": (0.0, 0.0),
    "right": (1.0, 0.0),
    "left": (-1.0, 0.0),
    "up": (0.0, -1.0),
    "down": (0.0, 1.0),
}
#: half the side of a square, and the circumradius of a triangle, in radii
HALF_SIDE, CIRCUMRADIUS = 0.9, 1.35
_GAP = 0.05


@frozen(kw_only=True)
class Companion:
    """A second, small shape, which does not move."""

    colour: Colour = field(validator=v.in_(COLOURS))
    shape: Shape = field(validator=v.in_(SHAPES))
    #: centre, column and row
    place: tuple[float, float]


@frozen(kw_only=True)
class Scene:
    """The content of a clip. ``ValueError`` for a shape of the same colour as its background."""

    colour: Colour = field(validator=v.in_(COLOURS))
    shape: Shape = field(validator=v.in_(SHAPES))
    size: Size = field(validator=v.in_(SIZES))
    direction: Direction = field(validator=v.in_(DIRECTIONS))
    speed: Speed = field(validator=v.in_(SPEEDS))
    ground: Ground = field(validator=v.in_(GROUNDS))
    kind: Kind = field(validator=v.in_(KINDS))
    #: centre in the first frame, column and row
    start: tuple[float, float]
    second: Companion | None = None

    def __attrs_post_init__(self) -> None:
        colours = [self.ground, self.colour, *([self.second.colour] if self.second else [])]
        if len({*colours}) < len(colours):
            raise ValueError(f"shapes and background must differ in colour: {', '.join(colours)}")
        if self.kind == "graded" and self.ground == "black":
            raise ValueError("a black background cannot fade to a darker one")


def held_out(colour: Colour, shape: Shape, direction: Direction) -> bool:
    """Return whether a combination of attributes is reserved for the tests.

    A sixth of them, chosen so that every pair of attributes occurs in the training set.
    """
    place = COLOURS.index(colour) + 2 * SHAPES.index(shape) + DIRECTIONS.index(direction)
    return place % len(COLOURS) == 0


def sample(random: Random, *, split: Literal["train", "test", "all"] = "all", two: float = 0.25) -> Scene:
    """Draw a scene from ``random``; with probability ``two`` it has a second shape.

    ``split`` restricts scenes to one side of ``held_out``.
    """
    while True:
        colour, shape, direction = random.choice(COLOURS), random.choice(SHAPES), random.choice(DIRECTIONS)
        if split == "all" or held_out(colour, shape, direction) == (split == "test"):
            break
    ground = random.choice([name for name in GROUNDS if name != colour])
    kind = random.choice(KINDS) if ground != "black" else "plain"
    size, speed, second = random.choice(SIZES), random.choice(SPEEDS), None
    paired = random.random() < two
    if paired and direction == "still":
        size = "large"  # of two shapes that stand still, only the size distinguishes the first
    room = _room(shape, RADII[size], direction, speed)
    if paired:
        room, second = _share(random, room, colour, ground, direction)
    start = (random.uniform(*room[0]), random.uniform(*room[1]))
    return Scene(
        colour=colour,
        shape=shape,
        size=size,
        direction=direction,
        speed=speed,
        ground=ground,
        kind=kind,
        start=start,
        second=second,
    )


def scenes(
    seed: int, *, split: Literal["train", "test", "all"] = "all", two: float = 0.25
) -> Iterator[Scene]:
    """Yield an endless sequence of scenes; the same seed gives the same ones."""
    random = Random(f"scenes {split} {seed}")
    while True:
        yield sample(random, split=split, two=two)


def render(scene: Scene, *, side: int = 64, frames: int = 17, look: Look = "none") -> Tensor:
    """Render the clip, antialiased, float32 ``[3, F, S, S]`` in [-1, 1]."""
    rows, columns = _grid(side)
    fade = 1 - FADE * rows if scene.kind == "graded" else torch.ones_like(rows)
    background = _rgb(PALETTE[scene.ground]) * fade
    clip = background.expand(3, frames, side, side).clone()
    if scene.second is not None:
        cover = coverage(scene.second.shape, RADII["small"], *_centre(scene.second.place), side)
        clip = torch.lerp(clip, _rgb(PALETTE[scene.second.colour]), cover)
    share = torch.linspace(0, 1, frames) if frames > 1 else torch.zeros(1)
    (dx, dy), way = VECTORS[scene.direction], TRAVEL[scene.speed]
    x, y = scene.start[0] + dx * way * share, scene.start[1] + dy * way * share
    clip = torch.lerp(clip, _rgb(PALETTE[scene.colour]), coverage(scene.shape, RADII[scene.size], x, y, side))
    if look == "framed":
        edge = torch.minimum(torch.minimum(rows, 1 - rows), torch.minimum(columns, 1 - columns))
        clip = torch.lerp(clip, _rgb(GOLD), ((FRAME - edge) * side + 0.5).clamp(0, 1))
    return clip * 2 - 1


def coverage(shape: Shape, radius: float, x_F: Tensor, y_F: Tensor, side: int) -> Tensor:
    """Compute a shape's coverage of each pixel from its signed distance, float32 ``[F, S, S]`` in [0, 1]."""
    rows, columns = _grid(side)
    x, y = columns - x_F[:, None, None], rows - y_F[:, None, None]
    if shape == "circle":
        distance = torch.hypot(x, y) - radius
    elif shape == "square":
        distance = torch.maximum(x.abs(), y.abs()) - HALF_SIDE * radius
    else:
        # three half-planes, half a circumradius from the centre; the tip points up
        slope = math.sqrt(3) / 2
        distance = torch.maximum(y, slope * x.abs() - y / 2) - CIRCUMRADIUS * radius / 2
    return (0.5 - distance * side).clamp(0, 1)


def reach(shape: Shape, radius: float) -> tuple[float, float, float]:
    """Return the extent of a shape from its centre: to both sides, upwards, downwards."""
    if shape == "circle":
        return radius, radius, radius
    if shape == "square":
        return HALF_SIDE * radius, HALF_SIDE * radius, HALF_SIDE * radius
    return CIRCUMRADIUS * radius * math.sqrt(3) / 2, CIRCUMRADIUS * radius, CIRCUMRADIUS * radius / 2


_Room = tuple[tuple[float, float], tuple[float, float]]
"""Range of a centre's start, for columns and for rows."""


def _room(shape: Shape, radius: float, direction: Direction, speed: Speed) -> _Room:
    beside, above, below = reach(shape, radius)
    dx, dy = (part * TRAVEL[speed] for part in VECTORS[direction])
    left, right = MARGIN + beside - min(dx, 0), 1 - MARGIN - beside - max(dx, 0)
    top, bottom = MARGIN + above - min(dy, 0), 1 - MARGIN - below - max(dy, 0)
    return (left, right), (top, bottom)


def _share(
    random: Random, room: _Room, colour: Colour, ground: Ground, direction: Direction
) -> tuple[_Room, Companion]:
    """Reserve one side of the path for a second shape, and the rest for the first."""
    shape = random.choice(SHAPES)
    own = random.choice([name for name in COLOURS if name not in (colour, ground)])
    beside, above, below = reach(shape, RADII["small"])
    columns, rows = room
    first = random.random() < 0.5
    if direction in ("right", "left"):
        needed = above + below + _GAP
        rows = (rows[0] + needed, rows[1]) if first else (rows[0], rows[1] - needed)
        y = MARGIN + above if first else 1 - MARGIN - below
        x = random.uniform(MARGIN + beside, 1 - MARGIN - beside)
    else:
        needed = 2 * beside + _GAP
        columns = (columns[0] + needed, columns[1]) if first else (columns[0], columns[1] - needed)
        x = MARGIN + beside if first else 1 - MARGIN - beside
        y = random.uniform(MARGIN + above, 1 - MARGIN - below)
    return (columns, rows), Companion(colour=own, shape=shape, place=(x, y))


def _grid(side: int) -> tuple[Tensor, Tensor]:
    """Return the rows ``[S, 1]`` and columns ``[1, S]`` of the pixels' centres, in shares of the side."""
    places = (torch.arange(side, dtype=torch.float32) + 0.5) / side
    return places[:, None], places[None, :]


def _rgb(colour: tuple[float, float, float]) -> Tensor:
    return torch.tensor(colour).view(3, 1, 1, 1)


def _centre(place: tuple[float, float]) -> tuple[Tensor, Tensor]:
    return torch.tensor([place[0]]), torch.tensor([place[1]])
