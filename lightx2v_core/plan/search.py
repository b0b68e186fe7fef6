"""The components of a model in a folder: its networks first, which say whether it is that model, then the others."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from attrs import evolve

from lightx2v_core.checkpoint.candidates import Wish
from lightx2v_core.checkpoint.components import Component, OfAnother, locate_component, read_component
from lightx2v_core.checkpoint.folders import expanded
from lightx2v_core.checkpoint.header_cache import ReadHeader
from lightx2v_core.config.load import LoadedConfig
from lightx2v_core.config.model import RunConfig
from lightx2v_core.errors import CheckpointError, suggestion
from lightx2v_core.plan.selection import component_setting
from lightx2v_core.spec.components import ComponentSpec
from lightx2v_core.spec.recognition import Recognition
from lightx2v_core.spec.specs import ModelSpec


def networks_of(spec: ModelSpec) -> list[ComponentSpec]:
    """What a model knows a checkpoint by: its main component, else its first one, and the others of its group."""
    main = next((part for part in spec.components if part.main), spec.components[0])
    return [part for part in spec.components if part is main or (part.group and part.group == main.group)]


def found_networks(
    spec: ModelSpec,
    config: RunConfig,
    folder: Path,
    read: ReadHeader,
    loaded: LoadedConfig | None,
) -> dict[str, Component]:
    """The networks that are there. Where there is none it is another model's folder, and what the configuration says is
    not meant for this one."""
    components: dict[str, Component] = {}
    for part in networks_of(spec):
        if (component := _component(spec, config, folder, read, part, components)) is not None:
            components[part.name] = component
    if components:
        _check_names(spec, config, loaded)
    return components


def found_beside(
    spec: ModelSpec, config: RunConfig, folder: Path, read: ReadHeader, networks: Mapping[str, Component]
) -> tuple[dict[str, Component], dict[str, CheckpointError]]:
    """The networks and all other components that are there, and what is wrong with those that cannot be read."""
    components, wrong = dict(networks), dict[str, CheckpointError]()
    for part in [part for part in spec.components if part not in networks_of(spec)] if networks else ():
        try:
            if (component := _component(spec, config, folder, read, part, networks)) is not None:
                components[part.name] = component
        except CheckpointError as exc:
            wrong[part.name] = exc
    return components, wrong


def fault_of(
    spec: ModelSpec, config: RunConfig, answer: Recognition, wrong: Mapping[str, CheckpointError]
) -> CheckpointError | None:
    """What is wrong with a component that is needed, or named in the configuration. Nobody asked for others."""
    for name, exc in wrong.items():
        override, _ = component_setting(config, component_spec(spec, name), "path")
        if name in answer.components or override is not None or name in config.components:
            return exc
    return None


def _component(
    spec: ModelSpec,
    config: RunConfig,
    folder: Path,
    read: ReadHeader,
    part: ComponentSpec,
    networks: Mapping[str, Component],
) -> Component | None:
    """A component, where it is there; of other files than networks those near the network come first."""
    main = networks.get(networks_of(spec)[0].name)
    wish = _wish(config, part, main.files[0].parent if main is not None else None)
    override, asked_as = component_setting(config, part, "path")
    if override is not None and asked_as != part.name:
        _check_group(spec, override, asked_as)
    elif override is not None:
        part = evolve(part, experts=())  # whatever it is called
    located = locate_component(part, folder, override, read, wish)
    if located is None:
        return None
    own = config.components.get(part.name)
    return read_component(part, folder, located, read, own.assets if own is not None else None)


def _check_names(spec: ModelSpec, config: RunConfig, loaded: LoadedConfig | None) -> None:
    """``CheckpointError`` when the configuration names a component that the model does not have."""
    names = component_names(spec)
    for name in config.components:
        if name not in names and not (loaded is not None and is_incidental(loaded, name)):
            raise CheckpointError(
                f"components.{name}: {spec.name} has no such component{suggestion(name, names)}; "
                f"it has {', '.join(names)}"
            )


def _wish(config: RunConfig, part: ComponentSpec, near: Path | None) -> Wish:
    """What the configuration asks of a component beside its path."""
    precision, key = component_setting(config, part, "precision")
    distilled, other = component_setting(config, part, "distilled")
    key = key if precision is not None else other
    return Wish(key=f"components.{key}", precision=precision, distilled=distilled, near=near)


def _check_group(spec: ModelSpec, path: str, group: str) -> None:
    """``OfAnother`` when one file is given for all of a group: it cannot be several networks."""
    members = [part.name for part in spec.components if part.group == group]
    if len(members) > 1 and os.path.isfile(expanded(path)):
        ways = " and ".join(f"components.{name}.path" for name in members)
        raise OfAnother(
            f"components.{group}.path {path!r} is one file, and {spec.name} has {len(members)} networks; use {ways}"
        )


def component_spec(spec: ModelSpec, name: str) -> ComponentSpec:
    """The component of a model by its name."""
    return next(part for part in spec.components if part.name == name)


def component_names(spec: ModelSpec) -> list[str]:
    """What a configuration may call the components of a model, groups included."""
    groups = {part.group for part in spec.components if part.group is not None}
    return [*(part.name for part in spec.components), *sorted(groups)]


def is_incidental(loaded: LoadedConfig, name: str) -> bool:
    """Whether only flat keys speak of a component, and none names a file of it."""
    said = [path for path in loaded.origins if path.startswith(f"components.{name}.")]
    return bool(said) and loaded.flat.issuperset(said) and loaded.config.components[name].path is None
