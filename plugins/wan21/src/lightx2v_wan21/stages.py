"""Changing the resolution while denoising: the first steps at smaller sizes, the last ones at the size of the video.

Nothing here imports torch. Formulas: LightX2V's changing resolution. A rate gives latents of ``int(side * rate)``,
rounded down to whole patches; a size is used up to the step listed for its rate, counted from 1; after the n-th change
the flow shift is the request's plus n.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import evolve

from lightx2v_core.api import RequestError

if TYPE_CHECKING:
    from lightx2v_core.api import Geometry, Recognition, Request, Stage

_TASKS = ("t2v", "i2v")


def check_changes(rates: Sequence[float], steps: Sequence[int]) -> None:
    """Raise ``ValueError`` unless there is a step for each rate, or one rate and no step."""
    if wrong := [rate for rate in rates if not 0 < rate <= 1]:
        raise ValueError(f"'changing_resolution_rates' must be above 0 and at most 1: {wrong[0]}")
    if steps and not rates:
        raise ValueError("'changing_resolution_steps' needs 'changing_resolution_rates', such as [0.75]")
    if len(steps) != len(rates) and (steps or len(rates) > 1):
        raise ValueError(
            f"'changing_resolution_steps' must name the last step of each of {len(rates)} rates: {list(steps)}"
        )
    if list(steps) != sorted(set(steps)) or any(step < 1 for step in steps):
        raise ValueError(f"'changing_resolution_steps' must rise from 1 or more: {list(steps)}")


def changing_stages(
    recognition: Recognition,
    request: Request,
    geometry: Geometry,
    rates: Sequence[float],
    steps: Sequence[int],
    patch: tuple[int, int],
) -> tuple[Stage, ...]:
    """Build a stage for each rate and one at full size.

    Without ``steps`` a single rate is used for half of the steps. ``patch`` is in rows and columns of latents.

    ``RequestError`` for other tasks than t2v and i2v, for steps that the request does not have, and for rates that
    leave nothing of a side, with the nearest valid values.
    """
    from lightx2v_core.api import Stage

    if rates and request.task not in _TASKS:
        raise RequestError(
            f"the resolution can change while denoising for {' and '.join(_TASKS)}, not for {request.task}: leave "
            "changing_resolution_rates empty"
        )
    ends = list(steps) or [request.steps // 2] * len(rates)
    if problems := [*_step_problems(ends, request.steps), *_rate_problems(rates, geometry, patch)]:
        raise RequestError(f"{recognition.variant}: {'; '.join(problems)}")
    shapes = [_scaled(geometry, rate, patch) for rate in rates]
    return tuple(
        Stage(start=start, shift=request.shift + number, geometry=shape)
        for number, (start, shape) in enumerate(zip([0, *ends], [*shapes, geometry], strict=True))
    )


def _step_problems(ends: Sequence[int], total: int) -> list[str]:
    """Explain why sizes cannot change after these steps, with the nearest steps after which they can."""
    if ends and len(ends) >= total:
        changes = "one change" if len(ends) == 1 else f"{len(ends)} changes"
        return [f"{changes} of the resolution need {len(ends) + 1} steps or more, not {total}"]
    if not ends or ends[-1] < total:
        return []
    nearest = [min(end, total - len(ends) + number) for number, end in enumerate(ends)]
    return [
        f"changing_resolution_steps must be below the {total} steps: instead of {list(ends)} use {nearest}"
    ]


def _rate_problems(rates: Sequence[float], geometry: Geometry, patch: tuple[int, int]) -> list[str]:
    """Explain why latents cannot be scaled by these rates, with the smallest valid rate."""
    rows, columns = geometry.latent_shape[2:]
    # rounded up to percent, so that the suggested rate is valid in spite of rounding
    least = math.ceil(100 * max(patch[0] / rows, patch[1] / columns)) / 100
    return [
        f"changing_resolution_rates: {rate:g} leaves nothing of latents of {rows}x{columns}, use {least:g} or more"
        for rate in rates
        if int(rows * rate) < patch[0] or int(columns * rate) < patch[1]
    ]


def _scaled(geometry: Geometry, rate: float, patch: tuple[int, int]) -> Geometry:
    """Scale the sizes by a rate. Pixels follow the latents."""
    channels, frames, *sides = geometry.latent_shape
    rows, columns = (int(side * rate) // step * step for side, step in zip(sides, patch, strict=True))
    return evolve(
        geometry,
        latent_shape=(channels, frames, rows, columns),
        tokens=frames * (rows // patch[0]) * (columns // patch[1]),
        width=geometry.width // sides[1] * columns,
        height=geometry.height // sides[0] * rows,
    )
