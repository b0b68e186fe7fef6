"""Checkpoints that plugins provide: paths that start with the name of one, and its default settings.

``--model-path NAME`` and ``--lora NAME/file`` refer to files of an installed distribution. An existing file or folder
of the same name takes precedence, so that no plugin can change the meaning of a path.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from attrs import evolve

from lightx2v_core.checkpoint.folders import expanded
from lightx2v_core.checkpoint.hub_cache import cached, snapshot_of
from lightx2v_core.config.layers import Value, parts_of
from lightx2v_core.config.load import LoadedConfig
from lightx2v_core.config.overlay import lay_over
from lightx2v_core.discovery import catalog
from lightx2v_core.discovery.registry import Registry
from lightx2v_core.errors import CheckpointError
from lightx2v_core.spec.recognition import repository_of
from lightx2v_core.spec.specs import CheckpointSpec

KIND = "checkpoint"


def place_of(path: str | Path, registry: Registry) -> str:
    """Resolve a path that may start with the name of a checkpoint. Returns other paths unchanged.

    The folder of a repository in the hub cache resolves to its snapshot, as does ``OWNER/NAME`` of a cached repository.
    Raises ``CheckpointError`` if a path leaves the checkpoint's folder, or names a checkpoint that can be installed
    but is not.
    """
    text = str(path)
    local = expanded(text)
    if text and os.path.isdir(local):
        snapshot = snapshot_of(local)
        return text if snapshot == local else str(snapshot)
    if not text or os.path.lexists(local) or local.is_absolute() or text.startswith((".", "~")):
        return text
    name, *inside = PurePosixPath(text).parts
    checkpoints = registry.named(CheckpointSpec, name)
    if not checkpoints and (fetched := cached(text)) is not None:
        return str(fetched)
    if not checkpoints:
        if not os.path.exists(name) and (brought := catalog.provider(KIND, name)):
            raise CheckpointError(f"{text!r} does not exist here; {brought}")
        return text
    if ".." in inside:
        raise CheckpointError(f"{text!r} leaves the folder of {name!r}")
    return str(_spec(registry, name).folder().joinpath(*inside))


def with_bundled(loaded: LoadedConfig, registry: Registry) -> tuple[LoadedConfig, tuple[str, ...]]:
    """Replace names of installed checkpoints by their paths, and apply the settings of the model's checkpoint.

    These settings are defaults: any configured value wins. Returns the configuration, and notes on the checkpoint.
    """
    loaded, notes = _with_settings(loaded, registry)
    config = loaded.config
    if config.model_path is None:
        return loaded, notes
    components = {
        name: evolve(
            setting,
            path=None if setting.path is None else place_of(setting.path, registry),
            assets={asset: place_of(path, registry) for asset, path in setting.assets.items()},
        )
        for name, setting in config.components.items()
    }
    model_path = place_of(config.model_path, registry)
    config = evolve(config, model_path=model_path, components=components)
    return evolve(loaded, config=config), notes


def _with_settings(loaded: LoadedConfig, registry: Registry) -> tuple[LoadedConfig, tuple[str, ...]]:
    path = loaded.config.model_path
    if path is None or (place := place_of(path, registry)) == path:
        return loaded, ()
    if repository_of(Path(place)):
        return loaded, (f"{path} is {place}, in the hub cache",)
    if len(PurePosixPath(path).parts) > 1:
        return loaded, ()
    provided = registry.find(CheckpointSpec, path)
    origin = f"checkpoint {path}"
    brought = [
        part
        for where, value in _leaves(_spec(registry, path).settings)
        for part in parts_of(Value(path=where, value=value, origin=origin))
        if loaded.origin(*part.path) == "default"
    ]
    laid = lay_over(loaded, brought)
    origins = {key: text for key, text in laid.origins.items() if text == origin} | dict(loaded.origins)
    note = (
        f"{path} is {provided.spec.summary}, from {provided.dist.name if provided.dist else provided.plugin}"
    )
    return evolve(loaded, config=laid.config, origins=origins), (note,)


def _leaves(
    settings: Mapping[str, object], above: Sequence[str] = ()
) -> list[tuple[tuple[str, ...], object]]:
    leaves: list[tuple[tuple[str, ...], object]] = []
    for key, value in settings.items():
        here = (*above, key)
        leaves += _leaves(value, here) if isinstance(value, Mapping) else [(here, value)]
    return leaves


def _spec(registry: Registry, name: str) -> CheckpointSpec:
    return registry.find(CheckpointSpec, name).spec
