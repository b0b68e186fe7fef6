"""Search for the components of a model in a folder: first the networks, which identify the model, then the others."""

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
    """Return the components that identify a model: the main one, else the first, and the others of its group."""
    main = next((part for part in spec.components if part.main), spec.components[0])
    return [part for part in spec.components if part is main or (part.group and part.group == main.group)]


def found_networks(
    spec: ModelSpec,
    config: RunConfig,
    folder: Path,
    read: ReadHeader,
    loaded: LoadedConfig | None,
) -> dict[str, Component]:
    """Find the networks of a model in a folder.

    Checks the component names of the configuration only if there is one: otherwise the folder, and so the
    configuration, is for another model.
    """
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
    """Find the other components of a model. Returns them with the networks, and the errors of unreadable ones."""
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
    """Return the error of a component that is required or configured, if any. Errors of others do not matter."""
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
    """Find and read one component; None if it is missing. Files near the network are preferred."""
    main = networks.get(networks_of(spec)[0].name)
    wish = _wish(config, part, main.files[0].parent if main is not None else None)
    override, asked_as = component_setting(config, part, "path")
    if override is not None and asked_as != part.name:
        _check_group(spec, override, asked_as)
    elif override is not None:
        part = evolve(part, experts=())  # an explicit path may have any name
    located = locate_component(part, folder, override, read, wish)
    if located is None:
        return None
    own = config.components.get(part.name)
    return read_component(part, folder, located, read, own.assets if own is not None else None)


def _check_names(spec: ModelSpec, config: RunConfig, loaded: LoadedConfig | None) -> None:
    """Raise ``CheckpointError`` if the configuration names a component that the model does not have."""
    names = component_names(spec)
    for name in config.components:
        if name not in names and not (loaded is not None and is_incidental(loaded, name)):
            raise CheckpointError(
                f"components.{name}: {spec.name} has no such component{suggestion(name, names)}; "
                f"it has {', '.join(names)}"
            )


def _wish(config: RunConfig, part: ComponentSpec, near: Path | None) -> Wish:
    """Build the search criteria that the configuration sets for a component besides its path."""
    precision, key = component_setting(config, part, "precision")
    distilled, other = component_setting(config, part, "distilled")
    key = key if precision is not None else other
    return Wish(key=f"components.{key}", precision=precision, distilled=distilled, near=near)


def _check_group(spec: ModelSpec, path: str, group: str) -> None:
    """Raise ``OfAnother`` if one file is configured for a group of several networks."""
    members = [part.name for part in spec.components if part.group == group]
    if len(members) > 1 and os.path.isfile(expanded(path)):
        ways = " and ".join(f"components.{name}.path" for name in members)
        raise OfAnother(
            f"components.{group}.path {path!r} is one file, but {spec.name} has {len(members)} networks; set {ways}"
        )


def component_spec(spec: ModelSpec, name: str) -> ComponentSpec:
    """Return a component of a model by name."""
    return next(part for part in spec.components if part.name == name)


def component_names(spec: ModelSpec) -> list[str]:
    """List the names of a model's components and groups, for use in a configuration."""
    groups = {part.group for part in spec.components if part.group is not None}
    return [*(part.name for part in spec.components), *sorted(groups)]


def is_incidental(loaded: LoadedConfig, name: str) -> bool:
    """Return True if only flat keys configure a component, and none of them names a file."""
    paths = [path for path in loaded.origins if path.startswith(f"components.{name}.")]
    return bool(paths) and loaded.flat.issuperset(paths) and loaded.config.components[name].path is None
