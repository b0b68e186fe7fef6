"""Selection of implementations from sections of the configuration, with structured options."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Generic

from attrs import evolve, fields, frozen

from lightx2v_core.config.load import LoadedConfig
from lightx2v_core.config.model import ComponentConfig, RunConfig, Section
from lightx2v_core.config.structure import structure, unstructure
from lightx2v_core.discovery.isolation import called
from lightx2v_core.discovery.plugins import Provided, S, S_co
from lightx2v_core.discovery.registry import Kind, Registry, Selection
from lightx2v_core.errors import ConfigError, PluginError, RequestError, suggestion
from lightx2v_core.plan.plan import Choice, KernelUse
from lightx2v_core.spec.components import ComponentSpec
from lightx2v_core.spec.context import BuildContext
from lightx2v_core.spec.hooks import kind_of
from lightx2v_core.spec.recognition import Recognition
from lightx2v_core.spec.specs import OPTIONAL_SUFFIX, WILDCARD, AttentionSpec, ModelSpec, SchedulerSpec

#: reasons against a candidate in this run, in addition to its own
Objections = Callable[[Provided[S]], Sequence[str]]
#: reasons why an implementation with these options computes wrong results on this machine; empty when it is correct
Prove = Callable[[Provided, object, BuildContext, Sequence[KernelUse]], Sequence[str]]


def no_objections(_candidate: Provided) -> Sequence[str]:
    """Return no objections."""
    return ()


def unproved(
    _candidate: Provided, _config: object, _ctx: BuildContext, _uses: Sequence[KernelUse]
) -> Sequence[str]:
    """Prove nothing, since a plan computes nothing. Returns no reasons."""
    return ()


@frozen(kw_only=True)
class Implementation(Generic[S_co]):
    """A selected implementation and its structured options."""

    selection: Selection[S_co]
    config: Any

    @property
    def spec(self) -> S_co:
        return self.selection.chosen.spec

    def as_choice(self, kind: str) -> Choice:
        """Convert to plain data for the plan."""
        return Choice(
            kind=kind,
            use=self.selection.chosen.qualified,
            why=self.selection.why,
            rejected={rejection.name: rejection.reasons for rejection in self.selection.rejected},
            options=unstructure(self.config),
        )


def select(
    registry: Registry,
    of: type[S],
    section: Section,
    ctx: BuildContext,
    *,
    origin: str,
    objections: Objections[S] = no_objections,
    loaded: LoadedConfig | None = None,
    prove: Prove = unproved,
    uses: Callable[[S, Any], Sequence[KernelUse]] = lambda _spec, _config: (KernelUse(),),
    at: tuple[str, ...] | None = None,
) -> Implementation[S]:
    """Select the implementation of a section and structure its options.

    A candidate that fails ``prove`` for one of its ``uses`` is rejected. ``at`` is the key of the section (``None``:
    the kind's own); errors name the file and line where it is set. Raises ``PluginError`` with all reasons if no
    candidate is usable, ``ConfigError`` for wrong options.
    """
    kind = kind_of(of)

    def against(candidate: Provided[S]) -> Sequence[str]:
        if (reasons := objections(candidate)) or prove is unproved:
            return reasons
        options = structured_options(section, registry, kind, candidate, loaded=loaded, whole=False)
        return prove(candidate, options, ctx, uses(candidate.spec, options))

    try:
        with placed(loaded, *((kind, "use") if at is None else at)):
            selection = registry.select(of, section.want, ctx, origin=origin, limits=against)
    except PluginError as exc:
        # not every quantizer reads a file: its caller lists the alternatives
        if prove is unproved or kind == "quantizer":
            raise
        # others are not tried: a kernel that the user did not select might crash the process
        others = [one for one in registry.candidates(of) if not one.reasons(ctx) and not objections(one)]
        names = [one.spec.name for one in others if not named(section, registry, kind, one)]
        raise PluginError(f"{exc}\n  alternatives: {', '.join(names)}" if names else str(exc)) from None
    config = structured_options(section, registry, kind, selection.chosen, loaded=loaded)
    return Implementation(selection=selection, config=config)


@contextmanager
def placed(loaded: LoadedConfig | None, *path: str) -> Iterator[None]:
    """Add file, line and key of the value at ``path`` to a ``PluginError`` raised inside, if a file sets it."""
    try:
        yield
    except PluginError as exc:
        where = loaded.place(*path) if loaded is not None and path else ""
        if not where or where in str(exc):
            raise
        raise PluginError(f"{where}: {exc}") from None


def named(section: Section, registry: Registry, kind: Kind, candidate: Provided) -> bool:
    """Return True if a section names an implementation."""
    return any(candidate in registry.named(kind, name.removesuffix(OPTIONAL_SUFFIX)) for name in section.use)


def by_true_name(loaded: LoadedConfig, registry: Registry) -> tuple[LoadedConfig, tuple[str, ...]]:
    """Replace model aliases in the configuration by the real names. Returns notes on the aliases too.

    An alias may imply a distilled network. Raises ``ConfigError`` if the configuration contradicts that.
    """
    config, origins, notes = loaded.config, dict(loaded.origins), []
    use = list(config.model.use)
    for index, name in enumerate(use):
        models = registry.named(ModelSpec, name)
        if len(models) != 1 or name in (models[0].spec.name, models[0].qualified):
            continue
        spec = models[0].spec
        use[index], distilled = models[0].qualified, spec.aliases[name]
        where = loaded.origin("model", "use")
        note = f"{name} ({where}) is {spec.name}" + (" with a distilled network" if distilled else "")
        notes.append(note)
        if distilled is None:
            continue
        part = spec.components[0].group or spec.components[0].name
        setting = config.components.get(part, ComponentConfig())
        if setting.distilled not in (None, distilled):
            raise ConfigError(
                f"components.{part}.distilled ({loaded.origin('components', part, 'distilled')}) contradicts the model "
                f"{name!r} ({where}); set only one of the two"
            )
        components = {**config.components, part: evolve(setting, distilled=distilled)}
        config = evolve(config, components=components)
        origins.setdefault(f"components.{part}.distilled", f"model {name}, {where}")
    config = evolve(config, model=evolve(config.model, use=tuple(use)))
    return evolve(loaded, config=config, origins=origins), tuple(notes)


def component_setting(config: RunConfig, part: ComponentSpec, key: str) -> tuple[Any, str]:
    """Return the setting of a component in ``components``, and the name it is set under: its own or its group's.

    ``None`` and the component's own name if it is not set.
    """
    for name in (part.name, part.group):
        value = getattr(config.components.get(name or "", ComponentConfig()), key)
        if name is not None and value is not None:
            return value, name
    return None, part.name


def select_each(
    registry: Registry, of: type[S], loaded: LoadedConfig, parts: Sequence[ComponentSpec], ctx: BuildContext
) -> Mapping[str, Implementation[S]]:
    """Select an implementation for each component, by its own section or the common one. Omits those with neither."""
    kind = kind_of(of)
    selected = {}
    for part in parts:
        own, name = component_setting(loaded.config, part, kind)
        section = own or getattr(loaded.config, kind)
        path = ("components", name, kind, "use") if own else (kind, "use")
        if section is not None:
            selected[part.name] = select(
                registry, of, section, ctx, origin=loaded.origin(*path), loaded=loaded, at=path
            )
    return selected


def structured_options(
    section: Section,
    registry: Registry,
    kind: str,
    chosen: Provided,
    *,
    loaded: LoadedConfig | None = None,
    whole: bool = True,
) -> Any:
    """Structure the options of ``chosen`` as its config class. Its own options override those of ``*``.

    The options of every named alternative are checked too. Unless ``whole``, unknown options of ``*`` are ignored,
    since another candidate may be selected in the end.
    """
    shared = section.options.get(WILDCARD, {})
    own: Mapping[str, object] = {}
    used = [name.removesuffix(OPTIONAL_SUFFIX) for name in section.use]
    named = {candidate.qualified for name in used for candidate in registry.named(kind, name)}
    for name, options in section.options.items():
        if name == WILDCARD:
            continue
        if name in used and not registry.named(kind, name):
            continue  # optional, and not installed
        candidate = registry.find(kind, name)
        if section.use != ("auto",) and candidate.qualified not in named:
            raise ConfigError(
                f"{kind}.options has {name!r}, which {kind}.use does not name"
                f" ({', '.join(used)}){suggestion(name, used)}"
            )
        if candidate is chosen:
            own = options
        else:
            _structured(kind, candidate, options, path=f"$.{kind}.options[{name!r}]")
    known = [option.name for option in fields(chosen.spec.config)]
    if whole:
        check_wildcard(section, kind, chosen, loaded)
    options = {**{key: value for key, value in shared.items() if key in known}, **own}

    def place(path: tuple[str | int, ...]) -> str:
        under = WILDCARD if path[-1] in shared and path[-1] not in own else str(path[-2])
        where = loaded.origin(kind, "options", under, str(path[-1])) if loaded is not None else "default"
        return where if where != "default" else ""

    return _structured(kind, chosen, options, path=f"$.{kind}.options[{chosen.spec.name!r}]", place=place)


def check_wildcard(section: Section, kind: str, chosen: Provided, loaded: LoadedConfig | None) -> None:
    """Raise ``ConfigError`` if ``chosen`` lacks an option that is set for ``*``, any implementation."""
    known = [option.name for option in fields(chosen.spec.config)]
    unknown = [key for key in section.options.get(WILDCARD, {}) if key not in known]
    if unknown:
        where = loaded.origin(kind, "options", WILDCARD, unknown[0]) if loaded is not None else "default"
        asked = f" ({where})" if where != "default" else ""
        raise ConfigError(
            f"{kind} {chosen.spec.name} has no option {unknown[0]!r}{asked}{suggestion(unknown[0], known)}; "
            f"it has {', '.join(known) or 'none'}"
        )


def _structured(kind: str, candidate: Provided, options: Mapping[str, object], **said: Any) -> Any:
    who = f"plugin {candidate.plugin}: reading the options of {kind} {candidate.spec.name}"
    return called(who, structure, options, candidate.spec.config, **said)


def check_steps(spec: SchedulerSpec, options: object, steps: int | None, origin: str) -> None:
    """Raise ``RequestError`` if the options of a scheduler fix a number of steps other than the configured one."""
    fixed = spec.steps(options)
    if steps is not None and fixed is not None and steps != fixed:
        raise RequestError(
            f"scheduler {spec.name} has a fixed number of {fixed} steps, but {steps} were requested "
            f"({origin}); omit the steps, or change the scheduler's options"
        )


def attention_objections(recognition: Recognition, ctx: BuildContext) -> Objections[AttentionSpec]:
    """Build a function that rejects kernels without support for the head size and dtype of this model."""

    def objections(candidate: Provided[AttentionSpec]) -> Sequence[str]:
        dims, reasons = candidate.spec.head_dims, []
        if dims is not None and recognition.head_dim not in dims:
            reasons.append(
                f"supports head sizes {', '.join(map(str, sorted(dims)))}; the model has {recognition.head_dim}"
            )
        if ctx.dtype not in candidate.spec.dtypes:
            reasons.append(f"supports {', '.join(sorted(candidate.spec.dtypes))}, not {ctx.dtype}")
        return reasons

    return objections
