"""Possible runs from a folder, with their command lines, determined by planning them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path

from lightx2v_core.checkpoint.header_cache import ReadHeader
from lightx2v_core.config.layers import Value
from lightx2v_core.config.load import load_config
from lightx2v_core.discovery.plugins import PluginSet
from lightx2v_core.discovery.registry import Registry
from lightx2v_core.errors import LightX2VError
from lightx2v_core.inspection.report import ComponentReport, Runnable
from lightx2v_core.plan.bundled import with_bundled
from lightx2v_core.plan.recognize import ModelMatch
from lightx2v_core.plan.resolve import runnable

#: most alternatives that are tried; a folder with more is a collection of models
_MOST = 24
#: inputs whose option has another name
_OPTION: Mapping[str, str] = {"ref_images": "ref_image"}


def possible_runs(
    folder: Path, networks: Sequence[ComponentReport], plugins: PluginSet, read: ReadHeader, named: str = ""
) -> tuple[list[Runnable], list[str]]:
    """Find the possible runs, and the reasons why others are not possible.

    ``named`` is the name of the checkpoint, if the folder is one that a plugin provides; its settings apply then.
    """
    asked, registry = named or str(folder), Registry(plugins)
    runs: list[Runnable] = []
    obstacles: list[str] = []
    asked_for: list[str] = []
    seen: set[tuple[object, ...]] = set()
    for settings in _alternatives(folder, networks):
        values = [Value(path=path, value=value, origin="inspect") for path, value in settings.items()]
        try:
            loaded, _ = with_bundled(load_config({"model_path": asked}, values), registry)
            match = runnable(loaded, plugins, read)
        except LightX2VError as exc:
            obstacles.append(str(exc))
            if not settings:
                asked_for = [str(exc)]
            continue
        files = tuple(sorted(str(c.files) for name, c in match.components.items() if match.part(name).main))
        if files in seen:
            continue
        seen.add(files)
        runs += _runs(asked, match, settings)
    # the obstacle without any settings; those of the alternatives only repeat it
    return runs, asked_for if runs else obstacles[:1]


def _alternatives(
    folder: Path, networks: Sequence[ComponentReport]
) -> Iterable[Mapping[tuple[str, ...], object]]:
    """Yield settings to try: none, then those that select one of several networks: precision, distilled, and path."""
    yield {}
    if len(networks) < 2:
        return
    key = ("components", networks[0].component)
    precisions = sorted({_precision(network) for network in networks})
    wishes = product([None, *precisions], [None, True, False])
    count = 0
    for precision, distilled in wishes:
        settings: dict[tuple[str, ...], object] = {
            (*key, "precision"): precision,
            (*key, "distilled"): distilled,
        }
        chosen = {path: value for path, value in settings.items() if value is not None}
        if chosen and (count := count + 1) <= _MOST:
            yield chosen
    for network in networks[:_MOST]:
        if len(network.files) == 1:
            yield {(*key, "path"): str(folder / network.files[0])}


def _precision(network: ComponentReport) -> str:
    return network.scheme.partition("-")[0] if network.scheme else "original"


def _runs(asked: str, match: ModelMatch, settings: Mapping[tuple[str, ...], object]) -> list[Runnable]:
    runs = []
    for task in match.recognition.tasks:
        words = ["lightx2v-core", "run", "--model-path", asked]
        if len(match.recognition.tasks) > 1:
            words += ["--task", task]
        for name in sorted(match.spec.tasks[task].required):
            words += [f"--{_OPTION.get(name, name).replace('_', '-')}", "FILE"]
        for path, value in settings.items():
            text = value if isinstance(value, str) else str(value).lower()
            words += ["--set", f"{'.'.join(path)}={text}"]
        words += ["--prompt", "TEXT", "--output", "out.mp4"]
        runs.append(
            Runnable(
                model=match.spec.name,
                variant=match.recognition.variant,
                task=task,
                command=shlex.join(words),
            )
        )
    return runs
