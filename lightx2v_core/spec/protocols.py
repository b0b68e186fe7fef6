"""What built objects must do: one protocol for each kind of implementation. Nothing here imports torch.

Shape legend of attention: B batch, L tokens (query), S tokens (key), H heads, D head dim. Of videos: C latent channels,
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

    def names(self) -> Sequence[str]: ...

    def info(self, name: str) -> TensorInfo:
        """Shape, dtype and file of a tensor, without reading it. ``KeyError`` for an unknown name."""

    def read(self, name: str, device: str = "cpu") -> Tensor:
        """Read the tensor in its stored dtype, onto ``device``."""

    def close(self) -> None:
        """Release files; tensors that were read stay valid, and a later ``read`` opens them again."""


class DirectSource(WeightSource, Protocol):
    """A source that can also read into memory that is already there. Optional: weights of other sources are read as
    new tensors, and an offloader that reads them again and again keeps a copy of them."""

    def direct(self, name: str) -> bool:
        """Tell whether ``read_into`` takes the bytes as they are stored, so that a second time costs no more than
        reading. ``KeyError`` for an unknown name."""

    def read_into(self, name: str, out: Tensor, *, cached: bool = True) -> None:
        """Read into ``out``: contiguous, on the CPU, of the stored shape and dtype. Called from several threads at
        once. ``RunError`` when the file changed or vanished since it was opened. Without ``cached`` the system's cache
        of files is better left alone, as far as a source can: what is read will be read again and again, and there is
        no room for it."""


class Attention(Protocol):
    """Scaled dot-product attention without a mask."""

    def __call__(
        self, q_BLHD: Tensor, k_BSHD: Tensor, v_BSHD: Tensor, *, scale: float | None = None
    ) -> Tensor:
        """``softmax(q k^T * scale) v`` as [B, L, H, D] in the dtype of ``q``; scale defaults to ``D ** -0.5``."""


class Quantizer(Protocol):
    """A linear layer for stored weight formats, and the maths of these formats."""

    def linear(self, plain: nn.Linear, layer: LayerFormat) -> nn.Module:
        """Build a module on the meta device that computes what ``plain`` does, in the dtype of its weight, from the
        tensors of ``layer``: parameters and buffers are named by their suffixes (``weight``, ``weight_scale``,
        ``bias``)."""

    def quantize(self, weight: Tensor, format: str) -> dict[str, Tensor]:
        """Quantize ``weight`` [out, in] to tensors by suffix. ``ValueError`` when the format cannot store it."""

    def dequantize(self, stored: Mapping[str, Tensor], layer: LayerFormat) -> Tensor:
        """Dequantize the tensors of a layer, by suffix, to a float32 weight [out, in]."""


@frozen(kw_only=True)
class ModuleTensor:
    """A parameter or buffer of a module, wherever its data lies: ``owner``'s attribute ``key``."""

    name: str
    owner: nn.Module
    key: str
    #: a parameter, else a buffer
    parameter: bool
    shape: tuple[int, ...]
    dtype: torch.dtype
    #: bytes in ``dtype``
    nbytes: int


class ModuleWeights(Protocol):
    """The stored weights of one module that still lies on the meta device. They can be read at any time, and again."""

    def fill(self, prefix: str, device: str) -> int:
        """Read every tensor under ``prefix`` (``""``: all) that lies on the meta device, cast it to the dtype its
        parameter was created with and assign it on ``device``. Returns the bytes read."""

    def tensors(self, prefix: str) -> Sequence[ModuleTensor]:
        """List every stored tensor of the module under ``prefix`` (``""``: all)."""

    def direct(self, name: str) -> bool:
        """Tell whether ``read_into`` only reads. Otherwise it computes: a cast, a merge, a join."""

    def read_into(self, name: str, out: Tensor, *, cached: bool = True) -> None:
        """Read one tensor into ``out``, which is contiguous, on the CPU and has the tensor's shape and dtype. Where
        ``direct`` says so it may be called from several threads at once. ``cached`` is that of ``DirectSource``."""

    def refill(self, names: Collection[str], device: str) -> int:
        """Read the tensors ``names`` again, cast them, and assign them on ``device``; into the memory they had, where
        they lay on this device. Returns the bytes read."""


class Offloader(Protocol):
    """Decides where the blocks of a component live, and when they move. It never changes a result.

    The order of calls: ``place`` once for each component, in any order and before anything runs; then requests, each
    of them any number of uses inside ``active``; ``close`` at the end, also after a failure. All of it comes from one
    thread. Between two requests nothing is called: what a use left in place may stay for the next.

    While ``active`` is open the component is called like any module, its blocks once or never, in the order given to
    ``place``; calls in another order, or of some blocks only, may be slow and must be right. An exception that leaves
    ``active`` ends the use wherever it was, and the next use must work. Uses do not overlap. One that is still open
    when another begins was given up (a decoder of which not all chunks were read): it is closed at some later time,
    even in the middle of another use, and must not disturb that one.

    ``LightX2VError`` is the only error meant for users: a file that changed or vanished is a ``RunError``.
    """

    def place(self, component: str, module: nn.Module, weights: ModuleWeights, blocks: Sequence[str]) -> None:
        """Fill ``module`` (on the meta device), now or later. ``blocks`` are the prefixes of its blocks in running
        order; a block is called as a module, and nothing of it is used outside of its call. Everything else is used
        in every call. Afterwards submodules may be wrapped, such as by adapters: hold modules, not names."""

    def active(self, component: str) -> AbstractContextManager[None]:
        """Entered around each use of a component: ``text_encoder``, ``dit``, ``vae``, ..."""

    def prepare(self, component: str) -> None:
        """A hint: after the next use of the component at work, or at once when none is, ``component`` is used.
        Ignoring it is fine."""

    def close(self) -> None:
        """Give back everything: memory, threads, files. May be called twice; nothing is used afterwards."""

    def refresh(self, component: str, names: Collection[str]) -> None:
        """The stored values of ``names`` (of the placed module) are others now, since LoRA files were switched: what is
        held of them is read again, from the weights that ``place`` was given, now or when it is needed next. Comes
        between two uses."""


@frozen(kw_only=True)
class Change:
    """What one LoRA does to one tensor of a network.

    ``tensors`` are stored names by role. Kinds: ``low-rank`` (``down`` [r, in, ...], ``up`` [out, r], for a Tucker
    decomposition ``mid`` [r, r, ...]), ``diff`` (``diff``, added as it is), ``loha`` and ``lokr`` (the factors as in
    LyCORIS). ``alpha`` and ``magnitude`` (of a DoRA) may stand beside them.
    """

    #: the tensor, by its official name
    target: str
    kind: str
    tensors: Mapping[str, str]
    #: shape of that tensor
    shape: tuple[int, ...]
    rank: int | None = None
    #: rows of the tensor that are meant (first, behind the last), ``None`` for all of them
    rows: tuple[int, int] | None = None
    #: alpha / rank; the adapter's strength comes on top of it
    scale: float = 1.0

    @property
    def part_shape(self) -> tuple[int, ...]:
        """Shape of what is added: of the rows that are meant."""
        return self.shape if self.rows is None else (self.rows[1] - self.rows[0], *self.shape[1:])


@frozen(kw_only=True)
class Adapter:
    """A LoRA file and how strongly it is applied; ``target`` is a component such as ``dit`` or ``high_noise``."""

    source: WeightSource
    changes: Sequence[Change]
    strength: float = 1.0
    target: str = "dit"
    #: the file, for messages
    name: str = ""


class LoraApplier(Protocol):
    """Merges adapters into weights, or attaches them to a loaded module. Adapters are applied in their order."""

    def merged(self, base: WeightSource, adapters: Sequence[Adapter]) -> WeightSource:
        """Return a source that reads as ``base`` with the adapters added; ``base`` itself when they are attached. What
        they change of ``base`` is in float32 or finer in a run: quantized weights are decoded before and quantized
        again after, others are widened before and rounded once after, to what the module computes in."""

    def attach(self, module: nn.Module, adapters: Sequence[Adapter]) -> None:
        """Attach to a module in place of what was attached to it before; nothing, when there are no adapters.

        The module may lie on the meta device: an offloader fills its parameters, by their names, when it wants to.
        """


class Scheduler(Protocol):
    """Timesteps and the update rule of one request. It may keep a history, so it serves one request only."""

    #: what the network is told at each step
    timesteps: Sequence[float]
    #: noise level before each step, and a last 0
    sigmas: Sequence[float]

    def step(self, prediction: Tensor, index: int, latents: Tensor) -> Tensor:
        """Compute the latents after step ``index``, in float32. ``prediction`` is the flow velocity (noise - data)."""


@frozen(kw_only=True)
class Step:
    """Where a denoising loop is: ``index`` of ``count``, the network's timestep and the noise level."""

    index: int
    count: int
    timestep: float
    sigma: float


@frozen(kw_only=True)
class Conditions:
    """What a request was encoded to. ``positive`` and ``negative`` mean something to their model only."""

    latent_shape: tuple[int, ...]
    positive: Any
    #: None when guidance needs no second pass
    negative: Any | None = None
    #: constants of the request that both passes share
    shared: Any | None = None
    #: leading latent frames that are conditions and no part of the video; the plan's ``Geometry`` says the same
    lead: int = 0
    #: leading frames of the decoded segment that the segment before it already gave
    overlap: int = 0
    #: frames of this segment's end that the next segment starts from; 0: this is the last one
    carry: int = 0


@frozen(kw_only=True)
class Segment:
    """The part of a video that came before: its number from 0, and its last frames [3, n, H, W] in [-1, 1]."""

    index: int
    frames: Tensor


class VideoModel(Protocol):
    """A loaded model. It serves many requests and keeps nothing of them."""

    def encode(
        self,
        request: Request,
        inputs: Mapping[str, Any],
        *,
        guided: bool,
        emit: Emit,
        before: Segment | None = None,
    ) -> Conditions:
        """Encode prompts and inputs; ``guided`` asks for ``negative`` too. ``inputs`` holds paths, or images and
        tensors given in memory, by the names of the configuration's ``inputs``. A model that makes its video in
        segments is asked again, with the segment ``before``, as long as its conditions ``carry`` frames."""

    def constrain(self, latents: Tensor, conditions: Conditions) -> Tensor:
        """Latents with what the request fixes written into them; called on the noise and after every step."""

    def expert(self, step: Step) -> int:
        """Tell which network runs this step: 0, or the high-noise expert 0 and the low-noise expert 1."""

    def predict(
        self, latents: Tensor, step: Step, conditions: Sequence[Any], shared: Any
    ) -> Sequence[Tensor]:
        """Predict the flow velocity of ``latents`` [C, T, h, w] under each of ``conditions`` (one pass, batched),
        float32."""

    def decode(self, latents: Tensor, request: Request) -> Iterator[Tensor]:
        """Chunks [3, n, H, W] of float32 frames in [-1, 1], in order, as they are decoded."""


@frozen(kw_only=True)
class LoadedComponent:
    """What a model gets to build one component from."""

    name: str
    source: WeightSource
    #: fills a module built on the meta device and hands it to the offloader
    load: Callable[[nn.Module, Sequence[str]], None]
    #: files that are no weights, such as a tokenizer folder, by the name the model gave them
    assets: Mapping[str, Any]
    offloader: Offloader


@frozen(kw_only=True)
class ModelParts:
    """Everything a run selected, handed to the model that uses it."""

    variant: str
    architecture: Mapping[str, Any]
    components: Mapping[str, LoadedComponent]
    attention: Attention
    device: str
    dtype: torch.dtype
