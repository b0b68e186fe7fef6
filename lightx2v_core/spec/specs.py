"""Specs: what an implementation is, described without importing it. A hook returns a list of them.

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

    #: the class of the options; a spec is of some class where it is not written
    C = TypeVar("C", default=Any)
else:
    from typing import TypeVar

    C = TypeVar("C")

#: the end of a name in ``use`` that is passed over where nothing is called so
OPTIONAL_SUFFIX = "?"
#: the name under ``options`` that stands for whichever implementation is chosen
WILDCARD = "*"


@frozen(kw_only=True)
class NoOptions:
    """The configuration of an implementation that has nothing to configure."""


def _usable(_ctx: BuildContext) -> Sequence[str]:
    return ()


@frozen(kw_only=True, eq=False, repr=False)
class Spec(Generic[C]):
    """A named implementation. Specs are equal when they are the same one, and show their name alone: attrs, which makes
    these classes at every start of the program, then has less to write."""

    name: str = field(validator=v.matches_re(r"[a-z][a-z0-9.+_-]*"))
    summary: str
    #: attrs class that ``options`` of this implementation are structured into
    config: type[C] = NoOptions  # type: ignore[assignment]
    #: extra of the plugin's own distribution whose requirements must be installed
    extra: str | None = None
    devices: frozenset[str] = frozenset({"cpu", "cuda"})
    min_capability: tuple[int, int] = (0, 0)
    #: reasons why this machine cannot use it; empty when it can
    unusable: Callable[[BuildContext], Sequence[str]] = _usable
    #: orders ``auto`` only: 0 the core's own, 1-99 portable kernels, 100 and up with a published benchmark
    priority: int = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


@frozen(kw_only=True, eq=False, repr=False)
class WeightLoaderSpec(Spec[C]):
    """Opens weight files, chosen by file suffix."""

    #: such as ``(".safetensors",)``
    suffixes: tuple[str, ...]
    #: the tensors of one file from its head alone; ``CheckpointError`` when it is broken
    read_header: Callable[[Path], Header]
    build: Callable[[C, BuildContext], Callable[[Header], WeightSource]]


@frozen(kw_only=True)
class QuantizerOptions:
    """Which layers a quantizer takes; the others are computed in the run's dtype. Patterns such as ``blocks.0.*`` are
    matched against whole layer names, ``*`` stands for anything."""

    #: layers that stay as they are
    keep: tuple[str, ...] = ()
    #: the only layers that are taken; empty: all
    only: tuple[str, ...] = ()


def _any_shape(_shape: tuple[int, ...], _ctx: BuildContext) -> str | None:
    return None


@frozen(kw_only=True, eq=False, repr=False)
class QuantizerSpec(Spec[C]):
    """Linear layers for stored weight formats on one kernel. Its config is ``QuantizerOptions`` or has its fields."""

    #: the weight formats it runs, such as ``fp8-channel``; see ``LayerFormat``
    formats: frozenset[str]
    build: Callable[[C, BuildContext], Quantizer]
    #: the format that it makes of plain weights while they are loaded; its options may leave them plain (None).
    #: Absent: it cannot
    makes: Callable[[C], str | None] | None = None
    #: whether it computes with exactly the weights that are stored and plain activations
    exact: bool = False
    #: the formats that its ``quantize`` writes, which merging a LoRA takes; absent: all of ``formats``
    writes: frozenset[str] | None = None
    #: why a weight [out, in] cannot run on it; such a layer is decoded when it is loaded
    refuses: Callable[[tuple[int, ...], BuildContext], str | None] = _any_shape


@frozen(kw_only=True, eq=False, repr=False)
class AttentionSpec(Spec[C]):
    """An attention kernel."""

    #: head dims it can run, or None for any
    head_dims: frozenset[int] | None = None
    dtypes: frozenset[str] = frozenset({"float32", "bfloat16", "float16"})
    build: Callable[[C, BuildContext], Attention]


def _all_resident(_config: object, _ctx: BuildContext, loads: Sequence[Workload]) -> OffloadForecast:
    from lightx2v_core.spec.memory import OffloadForecast

    return OffloadForecast(
        weights=sum(load.weights for load in loads),
        activations=max((load.activations for load in loads), default=0),
    )


@frozen(kw_only=True, eq=False, repr=False)
class OffloaderSpec(Spec[C]):
    """A policy for where blocks live and when they move. No policy changes the result of a run."""

    build: Callable[[C, BuildContext], Offloader]
    #: what components take that share this offloader, under the budget and with the speeds of the context. Imports no
    #: torch. What exceeds the budget is the least that is possible.
    forecast: Callable[[C, BuildContext, Sequence[Workload]], OffloadForecast] = _all_resident
    #: options that ``auto`` may choose among; none: only what they are by default
    settings: tuple[C, ...] = ()


#: what LoRA files may do: matrices of low rank, tensors that are added, products of LyCORIS, and magnitudes of DoRA
LORA_KINDS = frozenset({"low-rank", "diff", "loha", "lokr", "magnitude"})


@frozen(kw_only=True, eq=False, repr=False)
class LoraApplierSpec(Spec[C]):
    """A way to apply adapters."""

    build: Callable[[C, BuildContext], LoraApplier]
    #: which of ``LORA_KINDS`` it can do
    kinds: frozenset[str] = LORA_KINDS
    #: whether adapters stay on the device beside the weights
    resident: bool = False


def _any_steps(_config: object) -> int | None:
    return None


@frozen(kw_only=True, eq=False, repr=False)
class SchedulerSpec(Spec[C]):
    """Timesteps and an update rule; built anew for each request."""

    build: Callable[[C, SchedulerContext], Scheduler]
    #: the number of steps that its options fix, None when any number works
    steps: Callable[[C], int | None] = _any_steps
    #: whether guidance is on by default; distilled models run without
    guided: bool = True


#: the commands of the core that take subcommands of plugins
COMMAND_PARENTS = frozenset({"plugins"})


@frozen(kw_only=True, eq=False, repr=False)
class CommandSpec(Spec[C]):
    """A subcommand of ``lightx2v-core``, or of one of its commands; ``load`` is called when the command is used."""

    load: Callable[[], click.Command]
    #: the command that it is a subcommand of, such as ``plugins``; None: of the program itself
    parent: str | None = None

    @property
    def full_name(self) -> str:
        """What is typed behind ``lightx2v-core``, such as ``ui`` or ``plugins check``."""
        return self.name if self.parent is None else f"{self.parent} {self.name}"


@frozen(kw_only=True, eq=False, repr=False)
class CheckpointSpec(Spec[C]):
    """A model's folder, or a folder of LoRA files, that comes with the plugin. Paths begin with its name:
    ``--model-path NAME``, ``--lora NAME/file.safetensors``."""

    #: where its files are; asked for when a path names it
    folder: Callable[[], Path]
    #: configuration values that hold for this model's folder where nobody says otherwise, nested as in a file
    settings: Mapping[str, Any] = field(factory=dict)
    #: prompts that it understands, for a model that knows few; for people to begin with
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
    """A family of models: recognizes a checkpoint, lists its components, builds the pipeline.

    Everything but ``build`` runs at plan time and imports no torch.
    """

    tasks: Mapping[str, TaskSpec]
    components: tuple[ComponentSpec, ...]
    #: which variant the folder holds, or the reason why it is none of this family
    recognize: Callable[[CheckpointFacts], Recognition | str]
    #: official values for a variant, a task and (width, height) or None for the official size
    defaults: Callable[[Recognition, str, tuple[int, int] | None], Defaults]
    #: tensor sizes; ``RequestError`` for sizes, frame counts and inputs that the model cannot do
    geometry: Callable[[Recognition, Target], Geometry]
    #: component -> forecast, for a compute dtype
    memory: Callable[[Recognition, Geometry, str, C], Mapping[str, MemoryNeed]]
    build: Callable[[C, ModelParts], VideoModel]
    #: sizes that the denoising of a request goes through, the last one being that of the video; ``RequestError`` for
    #: options that cannot be followed
    stages: Callable[[Recognition, Request, Geometry, C], Sequence[Stage]] = _one_stage
    #: what sizes and lengths a front end may offer for a task
    sizes: Callable[[Recognition, str], SizeRules] = _any_size
    #: what of the prompts of a request is not seen, in words, asked for each prompt; assets are by component and name
    remarks: Callable[[Recognition, Request, Mapping[str, Mapping[str, Path]]], Sequence[str]] = (
        _nothing_to_say
    )
    #: what LoRA files make of a network that was recognized; they are given by their names, component by component. A
    #: distilled one brings other defaults
    with_loras: Callable[[Recognition, Mapping[str, Sequence[str]]], Recognition] = _as_it_is
    #: other names of the family, from existing scripts and configurations -> whether they ask for a distilled network
    #: (None: they do not say)
    aliases: Mapping[str, bool | None] = field(factory=dict)
    #: where its files can be downloaded
    repositories: Callable[[], Sequence[Repository]] = tuple
    #: writes a tiny checkpoint with random weights, for tests and demonstrations
    write_tiny: Callable[[Path, int], None] | None = None

    if not TYPE_CHECKING:
        # ``recognize`` was called ``recognise`` in 0.1; type checkers know the new name alone

        def __init__(self, **fields: object) -> None:
            self.__attrs_init__(**renamed_fields("ModelSpec", fields))

        @property
        def recognise(self) -> Callable[[CheckpointFacts], Recognition | str]:
            warn_renamed("ModelSpec.recognise")
            return self.recognize
