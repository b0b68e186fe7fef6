"""Sections of the configuration -> selected implementations with structured options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import frozen

from lightx2v_core.config.load import LoadedConfig
from lightx2v_core.config.model import ComponentConfig, RunConfig, Section
from lightx2v_core.config.structure import structure, unstructure
from lightx2v_core.errors import ConfigError, suggestion
from lightx2v_core.plan import Choice
from lightx2v_core.plugins import Provided
from lightx2v_core.registry import Registry, Selection
from lightx2v_core.specs import AttentionSpec, BuildContext, ComponentSpec, Recognition

Limits = Callable[[Provided], Sequence[str]]


def no_limits(_item: Provided) -> Sequence[str]:
    """Nothing speaks against a candidate beyond what it says itself."""
    return ()


@frozen(kw_only=True)
class Chosen:
    """A selected implementation and its structured options."""

    selection: Selection
    config: Any

    @property
    def spec(self) -> Any:
        return self.selection.chosen.spec

    def as_choice(self, kind: str) -> Choice:
        """This choice as plain data for the plan."""
        return Choice(
            kind=kind,
            use=self.selection.chosen.qualified,
            why=self.selection.why,
            rejected={item.name: item.reasons for item in self.selection.rejected},
            options=unstructure(self.config),
        )


def choose(
    registry: Registry,
    kind: str,
    section: Section,
    ctx: BuildContext,
    *,
    origin: str,
    limits: Limits = no_limits,
) -> Chosen:
    """The implementation a section means. ``PluginError`` with reasons, ``ConfigError`` for its options."""
    selection = registry.select(kind, section.want, ctx, origin=origin, limits=limits)
    return Chosen(selection=selection, config=structured_options(section, registry, kind, selection.chosen))


def component_setting(config: RunConfig, part: ComponentSpec, key: str) -> tuple[Any, str]:
    """What ``components`` says of one component, and under which name: its own, or that of its group. ``None`` and
    the component's own name when it says nothing."""
    for name in (part.name, part.group):
        value = getattr(config.components.get(name or "", ComponentConfig()), key)
        if name is not None and value is not None:
            return value, name
    return None, part.name


def choose_each(
    registry: Registry, kind: str, loaded: LoadedConfig, parts: Sequence[ComponentSpec], ctx: BuildContext
) -> Mapping[str, Chosen]:
    """A choice for each component: its own section, else the one for all; components with neither are left out."""
    found = {}
    for part in parts:
        own, name = component_setting(loaded.config, part, kind)
        section = own or getattr(loaded.config, kind)
        path = ("components", name, kind, "use") if own else (kind, "use")
        if section is not None:
            found[part.name] = choose(registry, kind, section, ctx, origin=loaded.origin(*path))
    return found


def structured_options(section: Section, registry: Registry, kind: str, chosen: Provided) -> Any:
    """The options of ``chosen`` as its config class. Options of every named alternative are checked too."""
    result = structure({}, chosen.spec.config)
    for name, options in section.options.items():
        if section.use != ("auto",) and name not in section.use:
            raise ConfigError(
                f"{kind}.options has {name!r}, which {kind}.use does not name"
                f" ({', '.join(section.use)}){suggestion(name, section.use)}"
            )
        item = registry.find(kind, name)
        value = structure(options, item.spec.config, path=f"$.{kind}.options[{name!r}]")
        if item is chosen:
            result = value
    return result


def attention_limits(recognition: Recognition, ctx: BuildContext) -> Limits:
    """Head dim and dtype that a kernel for this model must run."""

    def limits(item: Provided) -> Sequence[str]:
        assert isinstance(item.spec, AttentionSpec)
        dims, found = item.spec.head_dims, []
        if dims is not None and recognition.head_dim not in dims:
            found.append(
                f"runs head dims {', '.join(map(str, sorted(dims)))}, the model has {recognition.head_dim}"
            )
        if ctx.dtype not in item.spec.dtypes:
            found.append(f"runs {', '.join(sorted(item.spec.dtypes))}, not {ctx.dtype}")
        return found

    return limits
