"""Plain data that the functions of specs take and give at plan time: what is known of a checkpoint, of a request, and
what a run will need. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen

from lightx2v_core.spec.tensors import Header


def repository_of(folder: Path) -> str:
    """Return the name of the repository, without its owner, whose snapshot in the hub's cache a folder is
    (``models--OWNER--NAME/snapshots/COMMIT``); empty for any other folder."""
    cached = folder.parent.parent.name
    is_snapshot = folder.parent.name == "snapshots" and cached.startswith("models--")
    return cached.rpartition("--")[2] if is_snapshot else ""


@frozen(kw_only=True)
class CheckpointFacts:
    """What is known of a folder before any weight is read."""

    folder: Path
    #: the architecture file of the main network (``config.json``), ``{}`` when there is none
    config: Mapping[str, Any]
    #: headers of the components that were found
    headers: Mapping[str, Header]
    #: the model's options, which may decide what it needs
    options: Any = None
    #: whether the network is a distilled one, where the configuration states it: it outweighs what names suggest
    distilled: bool | None = None

    @property
    def name(self) -> str:
        """What the folder is called; in the hub's cache, where folders are called by commits, the repository."""
        return repository_of(self.folder) or self.folder.name


@frozen(kw_only=True)
class Defaults:
    """The official sampling values of a variant at one task and size."""

    width: int
    height: int
    frames: int
    fps: float
    steps: int
    shift: float
    guide_scale: tuple[float, ...]
    scheduler: str
    negative_prompt: str
    #: stands in for a prompt that is left out or empty; without one of its own a model asks for a prompt
    prompt: str = ""
    #: guidance scales below this one act as this one; None: every scale is what it says
    least_guide_scale: float | None = None


@frozen(kw_only=True)
class SizeRules:
    """The sizes and lengths of a task, so that a front end offers no others. ``geometry`` is what decides."""

    #: official sizes (width, height), the first is the default of a front end that has no other
    presets: tuple[tuple[int, int], ...] = ()
    #: width and height are multiples of these
    step: tuple[int, int] = (1, 1)
    #: frames are ``least_frames`` and any multiple of ``frame_step`` more
    frame_step: int = 1
    least_frames: int = 1
    #: the input whose aspect the video gets: the size is only an area then
    shaped_by: tuple[str, ...] = ()


@frozen(kw_only=True)
class Recognition:
    """A checkpoint that a model plugin knows."""

    #: such as ``acme-t2v-2b``
    variant: str
    summary: str
    tasks: tuple[str, ...]
    #: components each of these tasks needs
    components: tuple[str, ...]
    #: plain data that ``build`` gets back
    architecture: Mapping[str, Any]
    #: per component, the tensors that must be there: name -> shape
    expected: Mapping[str, Mapping[str, tuple[int, ...]]]
    #: head dim of the attention calls
    head_dim: int
    #: networks that take turns while denoising; a request may give a guidance scale for each
    experts: int = 1
    #: component -> prefixes of its blocks in running order: what an offloader may move one by one
    blocks: Mapping[str, tuple[str, ...]] = field(factory=dict)
    #: notes for the plan
    notes: tuple[str, ...] = ()
    #: what of the checkpoint speaks for another model, in words: it is taken only when it is asked for by name then
    doubts: tuple[str, ...] = ()


@frozen(kw_only=True)
class Geometry:
    """The tensor sizes of one request."""

    #: [C, T, h, w] of what is denoised at once: the whole video, or one of its segments
    latent_shape: tuple[int, ...]
    #: tokens of one forward pass
    tokens: int
    width: int
    height: int
    frames: int
    #: leading latent frames that stand for reference images: no part of the video, and nothing for the decoder
    lead: int = 0
    #: how many segments the video is made in, one after the other
    segments: int = 1
    #: frames that a segment repeats of the one before; None: the model makes any video at once
    overlap: int | None = None
    #: what the inputs made of the size and length that were asked for, in words
    notes: tuple[str, ...] = field(default=(), eq=False)

    @property
    def video_latents(self) -> tuple[int, ...]:
        """[C, T, h, w] of the video's latents, as the decoder gets them; of several segments one after the other."""
        channels, frames, *sides = self.latent_shape
        return (channels, self.segments * (frames - self.lead), *sides)


@frozen(kw_only=True)
class Stage:
    """The denoising steps that run at one size: from ``start`` up to that of the next stage.

    Between two stages the prediction of the clean latents is resized, and noised again with noise of its new size.
    """

    start: int = 0
    #: flow shift of the noise levels from here on
    shift: float
    geometry: Geometry


@frozen(kw_only=True)
class Target:
    """The size that is wanted, and the inputs that may decide it: paths, or images and tensors given in memory."""

    task: str
    width: int
    height: int
    frames: int
    inputs: Mapping[str, Any] = field(factory=dict)
