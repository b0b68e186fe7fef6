"""The interfaces of built objects: one protocol per kind of implementation. Nothing here imports torch.

Shape legend for attention: B batch, L query tokens, S key tokens, H heads, D head dim. For videos: C latent channels,
T h w latent frames, rows and columns, F frames (n: some of them), H W frame rows and columns.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from attrs import frozen

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from lightx2v_core.events import Emit
    from lightx2v_core.spec.request import Request
    from lightx2v_core.spec.tensors import LayerFormat, TensorInfo


class WeightSource(Protocol):
    """Tensors by name, known from headers and read one at a time."""

    def names(self) -> Sequence[str]:
        """List the names of all tensors."""

    def info(self, name: str) -> TensorInfo:
        """Return shape, dtype and file of a tensor without reading it. Raises ``KeyError`` for an unknown name."""

    def read(self, name: str, device: str = "cpu") -> Tensor:
        """Read the tensor in its stored dtype, onto ``device``."""

    def close(self) -> None:
        """Close the files. Tensors already read stay valid, and a later ``read`` reopens the files."""


class DirectSource(WeightSource, Protocol):
    """A source that can also read into existing memory.

    Optional: weights of other sources are read as new tensors, and an offloader that needs them repeatedly keeps a
    copy.
    """

    def direct(self, name: str) -> bool:
        """Return whether ``read_into`` copies the stored bytes unchanged, so that repeating it costs only the read.

        Raises ``KeyError`` for an unknown name.
        """

    def read_into(self, name: str, out: Tensor, *, cached: bool = True) -> None:
        """Read into ``out``, which is contiguous, on the CPU and has the stored shape and dtype. Must be thread-safe.

        With ``cached=False`` a source should bypass the page cache if it can: the data is read repeatedly and does not
        fit into memory. Raises ``RunError`` if the file has changed or disappeared since it was opened.
        """


class Attention(Protocol):
    """Scaled dot-product attention without a mask."""

    def __call__(
        self, q_BLHD: Tensor, k_BSHD: Tensor, v_BSHD: Tensor, *, scale: float | None = None
    ) -> Tensor:
        """Compute ``softmax(q k^T * scale) v`` as [B, L, H, D] in the dtype of ``q``.

        ``scale`` defaults to ``D ** -0.5``.
        """


class Quantizer(Protocol):
    """Linear layers for stored weight formats, and conversion to and from these formats."""

    def linear(self, plain: nn.Linear, layer: LayerFormat) -> nn.Module:
        """Build a module on the meta device that replaces ``plain`` and computes from the tensors of ``layer``.

        It computes in the dtype of the weight of ``plain``. Its parameters and buffers are named by the suffixes of
        the stored tensors (``weight``, ``weight_scale``, ``bias``).
        """

    def quantize(self, weight: Tensor, format: str) -> dict[str, Tensor]:
        """Quantize ``weight`` [out, in] to tensors by suffix. Raises ``ValueError`` if ``format`` cannot store it."""

    def dequantize(self, stored: Mapping[str, Tensor], layer: LayerFormat) -> Tensor:
        """Dequantize the tensors of a layer, given by suffix, to a float32 weight [out, in]."""


@frozen(kw_only=True)
class ModuleTensor:
    """A parameter or buffer of a module: attribute ``key`` of ``owner``, on any device."""

    #: full name within the module, such as ``blocks.0.ffn.0.weight``
    name: str
    #: the submodule that owns it
    owner: nn.Module
    #: its attribute name, such as ``weight``
    key: str
    #: True for a parameter, False for a buffer
    parameter: bool
    shape: tuple[int, ...]
    #: dtype in the module, which may differ from the stored one
    dtype: torch.dtype
    #: size in bytes, in ``dtype``
    nbytes: int


class ModuleWeights(Protocol):
    """The stored weights of one module on the meta device. They can be read at any time and repeatedly."""

    def fill(self, prefix: str, device: str) -> int:
        """Read the tensors under ``prefix`` (``""``: all) that are on the meta device and assign them on ``device``.

        Each is cast to the dtype that its parameter was created with. Returns the number of bytes read.
        """

    def tensors(self, prefix: str) -> Sequence[ModuleTensor]:
        """List every stored tensor of the module under ``prefix`` (``""``: all)."""

    def direct(self, name: str) -> bool:
        """Return whether ``read_into`` only reads. Otherwise it computes: a cast, a merge or a concatenation."""

    def read_into(self, name: str, out: Tensor, *, cached: bool = True) -> None:
        """Read one tensor into ``out``, which is contiguous, on the CPU and has the shape and dtype of the tensor.

        Thread-safe for tensors that are ``direct``. ``cached`` as in ``DirectSource``.
        """

    def refill(self, names: Collection[str], device: str) -> int:
        """Read the tensors ``names`` again, cast them and assign them on ``device``.

        Tensors already on ``device`` keep their memory. Returns the number of bytes read.
        """


class Offloader(Protocol):
    """Decides where the blocks of a component are kept and when they move. Never changes the result of a run.

    Order of calls: ``place`` once per component, in any order and before anything runs; then requests, each with any
    number of uses inside ``active``; ``close`` at the end, also after a failure. All calls come from one thread.
    Nothing is called between two requests: weights that one use left on the device may stay for the next.

    While ``active`` is open the component is called like any module, its blocks once or never, in the order given to
    ``place``; calls in another order or of only some blocks may be slow but must be correct. An exception that leaves
    ``active`` ends the use at that point, and the next use must work. Uses do not overlap. A use that is still open
    when another starts was abandoned (a decoder whose chunks were not all read): it is closed at some later time,
    possibly during another use, and must not disturb that one.

    Errors for users are ``LightX2VError``; a file that has changed or disappeared is a ``RunError``.
    """

    def place(self, component: str, module: nn.Module, weights: ModuleWeights, blocks: Sequence[str]) -> None:
        """Fill ``module``, which is on the meta device, now or later.

        ``blocks`` are the prefixes of its blocks in execution order. A block is called as a module and not used
        outside that call; everything else is used in every call. Submodules may be wrapped afterwards, for example by
        adapters: keep references to modules, not names.
        """

    def active(self, component: str) -> AbstractContextManager[None]:
        """Return the context manager entered around each use of a component (``text_encoder``, ``dit``, ``vae``)."""

    def prepare(self, component: str) -> None:
        """Prefetch ``component``: it is used after the next use of the active component, or next if none is active.

        This is a hint and may be ignored.
        """

    def close(self) -> None:
        """Release memory, threads and files. May be called twice; nothing is used afterwards."""

    def refresh(self, component: str, names: Collection[str]) -> None:
        """Replace held copies of the tensors ``names`` of the placed module, whose stored values have changed.

        Called between two uses when LoRA files are switched. The new values come from the ``weights`` passed to
        ``place``; read them now or on next use.
        """


@frozen(kw_only=True)
class Change:
    """The change of one tensor of a network by one LoRA.

    Kinds and their tensors: ``low-rank`` (``down`` [r, in, ...], ``up`` [out, r], and ``mid`` [r, r, ...] for a Tucker
    decomposition), ``diff`` (``diff``, added unchanged), ``loha`` and ``lokr`` (factors as in LyCORIS). ``alpha`` and
    ``magnitude`` (DoRA) are optional.
    """

    #: official name of the changed tensor
    target: str
    #: ``low-rank``, ``diff``, ``loha`` or ``lokr``
    kind: str
    #: role -> name of the tensor in the LoRA file
    tensors: Mapping[str, str]
    #: shape of the changed tensor
    shape: tuple[int, ...]
    #: rank of the factors; None for kinds without one
    rank: int | None = None
    #: range of affected rows (first, end), end exclusive; None: all rows
    rows: tuple[int, int] | None = None
    #: alpha / rank, multiplied by the strength of the adapter
    scale: float = 1.0

    @property
    def part_shape(self) -> tuple[int, ...]:
        """Return the shape of the affected rows, which is that of the added tensor."""
        return self.shape if self.rows is None else (self.rows[1] - self.rows[0], *self.shape[1:])


@frozen(kw_only=True)
class Adapter:
    """A LoRA file, the tensors that it changes, and its strength."""

    #: tensors of the file
    source: WeightSource
    changes: Sequence[Change]
    #: factor of all changes; 0 disables them, negative values subtract
    strength: float = 1.0
    #: the component that it changes, such as ``dit`` or ``high_noise``
    target: str = "dit"
    #: the file, for messages
    name: str = ""


class LoraApplier(Protocol):
    """Merges adapters into weights, or attaches them to a loaded module. Adapters are applied in the given order."""

    def merged(self, base: WeightSource, adapters: Sequence[Adapter]) -> WeightSource:
        """Return a source that reads ``base`` with the adapters added; ``base`` itself if they are attached instead.

        In a run the changed tensors of ``base`` are float32 or wider: quantized weights are decoded before and
        re-quantized after, others are widened before and rounded once after, to the compute dtype of the module.
        """

    def attach(self, module: nn.Module, adapters: Sequence[Adapter]) -> None:
        """Attach adapters to a module, replacing those attached before; an empty sequence detaches them.

        The module may be on the meta device: an offloader fills its parameters, by their names, at any time.
        """


class Scheduler(Protocol):
    """Timesteps and the update rule of one request. It may keep a history, so it serves one request only."""

    #: timestep argument of the network at each step
    timesteps: Sequence[float]
    #: noise level before each step, in [0, 1], and a final 0: one value more than ``timesteps``
    sigmas: Sequence[float]

    def step(self, prediction: Tensor, index: int, latents: Tensor) -> Tensor:
        """Compute the latents after step ``index``, in float32. ``prediction`` is the flow velocity (noise - data)."""


@frozen(kw_only=True)
class Step:
    """The current step of a denoising loop."""

    #: number of the step, from 0
    index: int
    #: steps of the request
    count: int
    #: timestep argument of the network
    timestep: float
    #: noise level before the step, in [0, 1]
    sigma: float


@frozen(kw_only=True)
class Conditions:
    """An encoded request. ``positive``, ``negative`` and ``shared`` are opaque to the core."""

    #: [C, T, h, w] of the latents to denoise
    latent_shape: tuple[int, ...]
    #: conditions of the prompt, in any form that ``VideoModel.predict`` accepts
    positive: Any
    #: conditions of the negative prompt; None if guidance needs no second pass
    negative: Any | None = None
    #: constants of the request, shared by both passes
    shared: Any | None = None
    #: leading latent frames that are conditions and not part of the video; equals ``lead`` of the plan's ``Geometry``
    lead: int = 0
    #: leading frames of the decoded segment that repeat the end of the previous segment
    overlap: int = 0
    #: final frames of this segment that the next segment starts from; 0: this is the last one
    carry: int = 0


@frozen(kw_only=True)
class Segment:
    """The previous segment of a video."""

    #: number of the segment, from 0
    index: int
    #: its last frames [3, n, H, W] in [-1, 1]
    frames: Tensor


class VideoModel(Protocol):
    """A loaded model. It serves many requests and keeps no state between them."""

    def encode(
        self,
        request: Request,
        inputs: Mapping[str, Any],
        *,
        guided: bool,
        emit: Emit,
        before: Segment | None = None,
    ) -> Conditions:
        """Encode prompts and inputs; with ``guided`` also the negative prompt.

        ``inputs`` maps names of the configuration's ``inputs`` to paths, or to images and tensors in memory. For a
        model that generates a video in segments this is called again, with the previous segment as ``before``, as long
        as the conditions ``carry`` frames.
        """

    def constrain(self, latents: Tensor, conditions: Conditions) -> Tensor:
        """Return the latents with the values fixed by the request written into them.

        Called on the initial noise and after every step.
        """

    def expert(self, step: Step) -> int:
        """Return the network of this step: 0 if there is one only; else 0 for high noise and 1 for low noise."""

    def predict(
        self, latents: Tensor, step: Step, conditions: Sequence[Any], shared: Any
    ) -> Sequence[Tensor]:
        """Predict the flow velocity of ``latents`` [C, T, h, w] under each of ``conditions`` in one batched pass.

        Returns one float32 tensor per condition.
        """

    def decode(self, latents: Tensor, request: Request) -> Iterator[Tensor]:
        """Yield decoded frames in order, as float32 chunks [3, n, H, W] in [-1, 1]."""


@frozen(kw_only=True)
class LoadedComponent:
    """The selected files and services for building one component."""

    #: the component, such as ``dit``
    name: str
    #: its tensors, by official names
    source: WeightSource
    #: fills a module built on the meta device, given its block prefixes, and hands it to the offloader
    load: Callable[[nn.Module, Sequence[str]], None]
    #: files other than weights, such as a tokenizer folder: name in ``ComponentSpec.assets`` -> path
    assets: Mapping[str, Any]
    #: the offloader that serves this component
    offloader: Offloader


@frozen(kw_only=True)
class ModelParts:
    """Everything that was selected for a run, passed to ``ModelSpec.build``."""

    #: ``Recognition.variant``
    variant: str
    #: ``Recognition.architecture``
    architecture: Mapping[str, Any]
    #: name -> component
    components: Mapping[str, LoadedComponent]
    attention: Attention
    #: torch device, such as ``cuda:0``
    device: str
    #: compute dtype
    dtype: torch.dtype
