"""Arguments and results of the plan-time functions of specs: facts about a checkpoint, sizes of a request, and
requirements of a run. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen

from lightx2v_core.spec.tensors import Header


def repository_of(folder: Path) -> str:
    """Return the repository name, without owner, of a snapshot folder in the hub cache.

    Such folders are ``models--OWNER--NAME/snapshots/COMMIT``; the result is empty for any other folder.
    """
    cached = folder.parent.parent.name
    is_snapshot = folder.parent.name == "snapshots" and cached.startswith("models--")
    return cached.rpartition("--")[2] if is_snapshot else ""


@frozen(kw_only=True)
class CheckpointFacts:
    """The facts about a checkpoint folder that are known before any weight is read."""

    #: the model folder
    folder: Path
    #: content of the main network's architecture file (``config.json``); ``{}`` if there is none
    config: Mapping[str, Any]
    #: component -> header of its files, for the components found
    headers: Mapping[str, Header]
    #: the model's options, which may affect its requirements
    options: Any = None
    #: whether the network is a distilled one, as configured; overrides file names. None: not configured
    distilled: bool | None = None

    @property
    def name(self) -> str:
        """Return the name of the folder; in the hub cache, where folders are named after commits, the repository."""
        return repository_of(self.folder) or self.folder.name


@frozen(kw_only=True)
class Defaults:
    """The official sampling values of a variant at one task and size."""

    #: pixels
    width: int
    #: pixels
    height: int
    #: frames of the video
    frames: int
    #: frames per second
    fps: float
    #: denoising steps
    steps: int
    #: flow shift of the noise levels
    shift: float
    #: guidance scales: one value, or one per expert with the high-noise expert first
    guide_scale: tuple[float, ...]
    #: name of the scheduler
    scheduler: str
    negative_prompt: str
    #: replaces a missing or empty prompt; if empty, the user must give one
    prompt: str = ""
    #: lower bound of guidance scales: smaller ones are raised to it; None: no bound
    least_guide_scale: float | None = None


@frozen(kw_only=True)
class SizeRules:
    """Valid sizes and lengths of a task, for front ends. ``ModelSpec.geometry`` is authoritative."""

    #: official sizes (width, height); front ends default to the first
    presets: tuple[tuple[int, int], ...] = ()
    #: width and height are multiples of these, in pixels
    step: tuple[int, int] = (1, 1)
    #: valid frame counts are ``least_frames`` plus any multiple of ``frame_step``
    frame_step: int = 1
    #: smallest frame count
    least_frames: int = 1
    #: inputs that determine the aspect ratio of the video: width and height then give its area only
    shaped_by: tuple[str, ...] = ()


@frozen(kw_only=True)
class Recognition:
    """A recognized checkpoint: its variant and requirements."""

    #: such as ``acme-t2v-2b``
    variant: str
    #: one line for plans and listings
    summary: str
    #: tasks that this checkpoint runs, of ``ModelSpec.tasks``
    tasks: tuple[str, ...]
    #: components that each of these tasks needs
    components: tuple[str, ...]
    #: plain data for ``build``, passed on as ``ModelParts.architecture``
    architecture: Mapping[str, Any]
    #: component -> required tensors: official name -> shape
    expected: Mapping[str, Mapping[str, tuple[int, ...]]]
    #: head dim of the attention calls
    head_dim: int
    #: networks that alternate during denoising; a request may give one guidance scale for each
    experts: int = 1
    #: component -> prefixes of its blocks in execution order: the units that an offloader moves
    blocks: Mapping[str, tuple[str, ...]] = field(factory=dict)
    #: notes for the plan
    notes: tuple[str, ...] = ()
    #: reasons to suspect another model; with any, this one is used only if requested by name
    doubts: tuple[str, ...] = ()


@frozen(kw_only=True)
class Geometry:
    """The tensor sizes of one request."""

    #: [C, T, h, w] denoised at once: the whole video or one segment
    latent_shape: tuple[int, ...]
    #: tokens of one forward pass
    tokens: int
    #: of the video, in pixels
    width: int
    #: of the video, in pixels
    height: int
    #: frames of the video
    frames: int
    #: leading latent frames that hold reference images; they are not part of the video and not decoded
    lead: int = 0
    #: number of segments, generated one after the other
    segments: int = 1
    #: frames that a segment repeats from the previous one; None: the model never generates in segments
    overlap: int | None = None
    #: messages about changes of the requested size and length due to the inputs
    notes: tuple[str, ...] = field(default=(), eq=False)

    @property
    def video_latents(self) -> tuple[int, ...]:
        """Return the shape [C, T, h, w] of the latents passed to the decoder, with all segments concatenated."""
        channels, frames, *sides = self.latent_shape
        return (channels, self.segments * (frames - self.lead), *sides)


@frozen(kw_only=True)
class Stage:
    """The denoising steps that run at one size, up to the ``start`` of the next stage.

    Between two stages the predicted clean latents are resized, and noise of the new size is added.
    """

    #: index of its first step
    start: int = 0
    #: flow shift of the noise levels from this step on
    shift: float
    #: tensor sizes of these steps
    geometry: Geometry


@frozen(kw_only=True)
class Target:
    """The requested size, and the inputs that may determine it."""

    task: str
    #: pixels
    width: int
    #: pixels
    height: int
    #: frames of the video
    frames: int
    #: name in the configuration's ``inputs`` -> path, or image or tensor in memory
    inputs: Mapping[str, Any] = field(factory=dict)
