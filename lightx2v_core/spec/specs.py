"""Specs: descriptions of implementations that do not import them. A hook returns a list of specs.

``build`` and ``unusable`` import heavy packages inside their bodies, so listing plugins imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

from attrs import field, frozen
from attrs import validators as v

from lightx2v_core.spec.context import BuildContext
from lightx2v_core.spec.renamed import renamed_fields, warn_renamed

if TYPE_CHECKING:
    import click
    from typing_extensions import TypeVar

    from lightx2v_core.spec.components import ComponentSpec, Repository, TaskSpec
    from lightx2v_core.spec.memory import MemoryNeed, OffloadForecast, Workload
    from lightx2v_core.spec.protocols import (
        Attention,
        LoraApplier,
        ModelParts,
        Offloader,
        Quantizer,
        Scheduler,
        VideoModel,
        WeightSource,
    )
    from lightx2v_core.spec.recognition import (
        CheckpointFacts,
        Defaults,
        Geometry,
        Recognition,
        SizeRules,
        Stage,
        Target,
    )
    from lightx2v_core.spec.request import Request, SchedulerContext
    from lightx2v_core.spec.tensors import Header

    #: the options class; ``Any`` if a spec is not parametrized
    C = TypeVar("C", default=Any)
else:
    from typing import TypeVar

    C = TypeVar("C")

#: suffix of a name in ``use`` that is skipped if no implementation has that name
OPTIONAL_SUFFIX = "?"
#: the name under ``options`` whose values apply to the selected implementation, whichever it is
WILDCARD = "*"


@frozen(kw_only=True)
class NoOptions:
    """The configuration of an implementation without options."""


def _usable(_ctx: BuildContext) -> Sequence[str]:
    return ()


@frozen(kw_only=True, eq=False, repr=False)
class Spec(Generic[C]):
    """A named implementation. Compared by identity."""

    # eq and repr are off because attrs generates these methods at every start of the program

    #: name in configurations and on the command line
    name: str = field(validator=v.matches_re(r"[a-z][a-z0-9.+_-]*"))
    #: one line for listings
    summary: str
    #: attrs class of the configuration's ``options`` for this implementation
    config: type[C] = NoOptions  # type: ignore[assignment]
    #: extra of the plugin's distribution that must be installed; None: no further requirements
    extra: str | None = None
    #: supported device types
    devices: frozenset[str] = frozenset({"cpu", "cuda"})
    #: lowest CUDA compute capability; ignored on ``cpu``
    min_capability: tuple[int, int] = (0, 0)
    #: returns the reasons why this machine cannot use it; empty if it can
    unusable: Callable[[BuildContext], Sequence[str]] = _usable
    #: rank for ``auto``, highest first, the core's own on a tie: 0 for the core, 1-99 for portable kernels, 100+ with a
    #: published benchmark
    priority: int = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


@frozen(kw_only=True, eq=False, repr=False)
class WeightLoaderSpec(Spec[C]):
    """A reader of weight files, selected by file suffix."""

    #: lower-case file suffixes, such as ``(".safetensors",)``
    suffixes: tuple[str, ...]
    #: reads the tensor list of one file without its data; imports no torch; ``CheckpointError`` for a damaged file
    read_header: Callable[[Path], Header]
    #: builds the function that opens the tensors of a header; its files may be several
    build: Callable[[C, BuildContext], Callable[[Header], WeightSource]]


@frozen(kw_only=True)
class QuantizerOptions:
    """The layers that a quantizer applies to; all others run in the compute dtype.

    Patterns such as ``blocks.0.*`` match full layer names; ``*`` matches any characters.
    """

    #: patterns of layers to leave unquantized
    keep: tuple[str, ...] = ()
    #: patterns of the only layers to quantize; empty: all
    only: tuple[str, ...] = ()


def _any_shape(_shape: tuple[int, ...], _ctx: BuildContext) -> str | None:
    return None


@frozen(kw_only=True, eq=False, repr=False)
class QuantizerSpec(Spec[C]):
    """Linear layers for stored weight formats on one kernel.

    ``config`` is ``QuantizerOptions`` or a class with its fields.
    """

    #: supported weight formats, such as ``fp8-channel``; see ``LayerFormat``
    formats: frozenset[str]
    #: builds the quantizer
    build: Callable[[C, BuildContext], Quantizer]
    #: returns the format to quantize plain weights to while loading, or None if its options leave them plain; None:
    #: never quantizes plain weights
    makes: Callable[[C], str | None] | None = None
    #: whether it computes with the exact stored weights and unquantized activations
    exact: bool = False
    #: formats that its ``quantize`` supports, as needed for merging a LoRA; None: all of ``formats``
    writes: frozenset[str] | None = None
    #: returns why a weight [out, in] is unsupported, or None; such layers are dequantized when loaded
    refuses: Callable[[tuple[int, ...], BuildContext], str | None] = _any_shape


@frozen(kw_only=True, eq=False, repr=False)
class AttentionSpec(Spec[C]):
    """An attention kernel."""

    #: supported head dims, in elements; None: any
    head_dims: frozenset[int] | None = None
    #: supported dtypes, as torch names
    dtypes: frozenset[str] = frozenset({"float32", "bfloat16", "float16"})
    #: builds the kernel
    build: Callable[[C, BuildContext], Attention]


def _all_resident(_config: object, _ctx: BuildContext, loads: Sequence[Workload]) -> OffloadForecast:
    from lightx2v_core.spec.memory import OffloadForecast

    return OffloadForecast(
        weights=sum(load.weights for load in loads),
        activations=max((load.activations for load in loads), default=0),
    )


@frozen(kw_only=True, eq=False, repr=False)
class OffloaderSpec(Spec[C]):
    """A policy for the placement and movement of blocks. No policy changes the result of a run."""

    #: builds the offloader of one or several components, within the budget of the context
    build: Callable[[C, BuildContext], Offloader]
    #: forecasts the memory and time of the components that share this offloader, for the budget and speeds of the
    #: context; imports no torch. If the budget is too small, the forecast is the smallest possible use
    forecast: Callable[[C, BuildContext, Sequence[Workload]], OffloadForecast] = _all_resident
    #: options that ``auto`` may choose from; empty: only the defaults
    settings: tuple[C, ...] = ()


#: types of changes in LoRA files: low-rank matrices, added tensors, LyCORIS products, and DoRA magnitudes
LORA_KINDS = frozenset({"low-rank", "diff", "loha", "lokr", "magnitude"})


@frozen(kw_only=True, eq=False, repr=False)
class LoraApplierSpec(Spec[C]):
    """A method of applying adapters."""

    #: builds the applier
    build: Callable[[C, BuildContext], LoraApplier]
    #: the supported ones of ``LORA_KINDS``
    kinds: frozenset[str] = LORA_KINDS
    #: whether adapters stay on the device in addition to the weights
    resident: bool = False


def _any_steps(_config: object) -> int | None:
    return None


@frozen(kw_only=True, eq=False, repr=False)
class SchedulerSpec(Spec[C]):
    """Timesteps and an update rule."""

    #: builds a scheduler for one request
    build: Callable[[C, SchedulerContext], Scheduler]
    #: returns the number of steps fixed by its options, or None if any number works
    steps: Callable[[C], int | None] = _any_steps
    #: whether guidance is on by default; distilled models run without it
    guided: bool = True


#: commands of the core that accept subcommands from plugins
COMMAND_PARENTS = frozenset({"plugins"})


@frozen(kw_only=True, eq=False, repr=False)
class CommandSpec(Spec[C]):
    """A subcommand of ``lightx2v-core``, or of one of its commands."""

    #: imports and returns the command; called when the command is used
    load: Callable[[], click.Command]
    #: its parent command, such as ``plugins``; None: the program itself
    parent: str | None = None

    @property
    def full_name(self) -> str:
        """Return the words after ``lightx2v-core`` on the command line, such as ``ui`` or ``plugins check``."""
        return self.name if self.parent is None else f"{self.parent} {self.name}"


@frozen(kw_only=True, eq=False, repr=False)
class CheckpointSpec(Spec[C]):
    """A model folder, or a folder of LoRA files, bundled with the plugin.

    Paths start with its name: ``--model-path NAME``, ``--lora NAME/file.safetensors``.
    """

    #: returns its folder; called when a path names it
    folder: Callable[[], Path]
    #: default configuration values for this model folder, nested as in a configuration file
    settings: Mapping[str, Any] = field(factory=dict)
    #: example prompts for users, for a model that supports only a few
    examples: tuple[str, ...] = ()


def _one_stage(
    _recognition: Recognition, request: Request, geometry: Geometry, _config: object
) -> Sequence[Stage]:
    from lightx2v_core.spec.recognition import Stage

    return (Stage(shift=request.shift, geometry=geometry),)


def _as_it_is(recognition: Recognition, _loras: Mapping[str, Sequence[str]]) -> Recognition:
    return recognition


def _nothing_to_say(
    _recognition: Recognition, _request: Request, _assets: Mapping[str, Mapping[str, Path]]
) -> Sequence[str]:
    return ()


def _any_size(_recognition: Recognition, _task: str) -> SizeRules:
    from lightx2v_core.spec.recognition import SizeRules

    return SizeRules()


@frozen(kw_only=True, eq=False, repr=False)
class ModelSpec(Spec[C]):
    """A family of models: recognizes checkpoints, lists their components, builds the pipeline.

    Everything except ``build`` runs at plan time and imports no torch.
    """

    #: task name, such as ``t2v`` -> its inputs
    tasks: Mapping[str, TaskSpec]
    #: all components of the family; the first is the denoising network, or one of them
    components: tuple[ComponentSpec, ...]
    #: recognizes the variant in a folder, or returns the reason why it does not belong to this family
    recognize: Callable[[CheckpointFacts], Recognition | str]
    #: returns the official values for a variant, a task and (width, height), or None for the official size
    defaults: Callable[[Recognition, str, tuple[int, int] | None], Defaults]
    #: computes tensor sizes; ``RequestError`` for unsupported sizes, frame counts and inputs
    geometry: Callable[[Recognition, Target], Geometry]
    #: forecasts the memory of each component, for a compute dtype
    memory: Callable[[Recognition, Geometry, str, C], Mapping[str, MemoryNeed]]
    #: builds the pipeline from the selected components
    build: Callable[[C, ModelParts], VideoModel]
    #: returns the stages of denoising, the last one at the size of the video; ``RequestError`` for options that cannot
    #: be satisfied
    stages: Callable[[Recognition, Request, Geometry, C], Sequence[Stage]] = _one_stage
    #: returns the sizes and lengths that a front end may offer for a task
    sizes: Callable[[Recognition, str], SizeRules] = _any_size
    #: returns messages about parts of the prompt that the model ignores, per prompt; assets by component and name
    remarks: Callable[[Recognition, Request, Mapping[str, Mapping[str, Path]]], Sequence[str]] = (
        _nothing_to_say
    )
    #: adjusts the recognition to the LoRA files in use (component -> file names); a distilled one changes the defaults
    with_loras: Callable[[Recognition, Mapping[str, Sequence[str]]], Recognition] = _as_it_is
    #: alternative names of the family in existing scripts and configurations -> whether they require a distilled
    #: network (None: unspecified)
    aliases: Mapping[str, bool | None] = field(factory=dict)
    #: returns the hub repositories with its files
    repositories: Callable[[], Sequence[Repository]] = tuple
    #: writes a tiny checkpoint with random weights into a folder, given a seed, for tests and demonstrations
    write_tiny: Callable[[Path, int], None] | None = None

    if not TYPE_CHECKING:
        # ``recognize`` was called ``recognise`` in 0.1; type checkers see only the new name

        def __init__(self, **fields: object) -> None:
            self.__attrs_init__(**renamed_fields("ModelSpec", fields))

        @property
        def recognise(self) -> Callable[[CheckpointFacts], Recognition | str]:
            warn_renamed("ModelSpec.recognise")
            return self.recognize
