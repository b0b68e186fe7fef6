"""Sizes of videos and latents: the sizes that a request may have, and those that an image or a source video implies.

Nothing here imports torch. Formulas: the official pipelines (Wan-Video/Wan2.1, ``wan/image2video.py``,
``wan/utils/vace_processor.py``).
"""

from __future__ import annotations

from math import sqrt

SPATIAL_STRIDE, TEMPORAL_STRIDE = 8, 4


#: training sizes of the official models, in landscape; portrait sizes have the sides swapped
HD, SD = (1280, 720), (832, 480)
SQUARE_HD, SQUARE_SD = (960, 960), (624, 624)


def turned(size: tuple[int, int]) -> tuple[int, int]:
    """Swap width and height."""
    return size[1], size[0]


def latent_frames(frames: int) -> int:
    """Return the number of latent frames of 4k + 1 frames: k + 1."""
    return (frames - 1) // TEMPORAL_STRIDE + 1


def frame_problems(frames: int, *, least: int = 1) -> list[str]:
    """Explain why a frame count is invalid, with the nearest valid ones; empty for a valid one."""
    if frames % TEMPORAL_STRIDE == 1 and frames >= least:
        return []
    lower = max((frames - 1) // TEMPORAL_STRIDE * TEMPORAL_STRIDE + 1, least)
    if frames < least:
        return [f"frames must be 4k + 1 and at least {least}: instead of {frames} use {lower}"]
    return [f"frames must be 4k + 1: instead of {frames} use {lower} or {lower + TEMPORAL_STRIDE}"]


def side_problems(width: int, height: int, patch: tuple[int, int]) -> list[str]:
    """Explain why a frame size is invalid, with the nearest valid ones; empty for a valid one.

    ``patch`` is in rows and columns.
    """
    problems = []
    for name, value, step in (
        ("width", width, SPATIAL_STRIDE * patch[1]),
        ("height", height, SPATIAL_STRIDE * patch[0]),
    ):
        if value % step or value < step:
            lower = max(value // step * step, step)
            problems.append(
                f"{name} must be divisible by {step}: instead of {value} use {lower} or {lower + step}"
            )
    return problems


def size_for_image(width: int, height: int, area: int, patch: tuple[int, int]) -> tuple[int, int]:
    """Compute width and height of a video with the aspect ratio of an image and about ``area`` pixels.

    A side that would be shorter than a patch is 0. ``patch`` is in rows and columns.
    """
    aspect = height / width
    rows = round(sqrt(area * aspect) // SPATIAL_STRIDE // patch[0] * patch[0])
    columns = round(sqrt(area / aspect) // SPATIAL_STRIDE // patch[1] * patch[1])
    return columns * SPATIAL_STRIDE, rows * SPATIAL_STRIDE


def shaped_note(size: tuple[int, int], source: str, asked: tuple[int, int]) -> str:
    """Format the note for a video whose aspect ratio follows an input, described by ``source``: ``image 640x480``."""
    return "size {}x{}: aspect ratio of {}, area of {}x{}".format(*size, source, *asked)


def size_for_video(
    width: int, height: int, available: int, area: int, frames: int, patch: tuple[int, int]
) -> tuple[int, int, int]:
    """Compute width, height and frames that VACE generates for a source video of ``available`` frames.

    The video has the source's aspect ratio, at most ``area`` pixels, at most the source's size, and at most ``frames``
    frames. A side that would be shorter than a patch is 0.
    """
    step_y, step_x = SPATIAL_STRIDE * patch[0], SPATIAL_STRIDE * patch[1]
    tokens = min(area / (step_y * step_x), (height // step_y) * (width // step_x))
    rows = round(sqrt(tokens * height / width))
    columns = int(tokens / rows) if rows else 0
    latents = min(latent_frames(max(available, 1)), latent_frames(frames))
    return columns * step_x, rows * step_y, (latents - 1) * TEMPORAL_STRIDE + 1
