"""The plan of a run from Python: what ``lightx2v-core plan`` answers, without reading a weight or importing torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightx2v_core.checkpoint.header_cache import Reader
from lightx2v_core.config.keyword_types import PlanKeywords
from lightx2v_core.config.keywords import PLAN_KEYWORDS, keyword_values
from lightx2v_core.config.layers import Value
from lightx2v_core.config.load import load_config
from lightx2v_core.discovery.plugins import PluginSet, load_plugins
from lightx2v_core.discovery.registry import Registry
from lightx2v_core.plan.plan import Plan
from lightx2v_core.plan.recognize import read_header
from lightx2v_core.plan.resolve import check_ready, resolve

if TYPE_CHECKING:
    from typing_extensions import Unpack


def read_config(file: str | Path) -> dict[str, Any]:
    """What a configuration file says, in either vocabulary, as nested data: what ``plan_run`` and ``load`` take as
    ``config``, with changes on top."""
    loaded = load_config(file, ())
    return _said(loaded.to_json(), frozenset(loaded.origins), "")


def _said(data: Mapping[str, Any], origins: frozenset[str], above: str) -> dict[str, Any]:
    """The part of a configuration that somebody set."""
    said = {}
    for key, value in data.items():
        name = f"{above}{key}"
        if name in origins:
            said[key] = value
        elif isinstance(value, Mapping) and any(origin.startswith(f"{name}.") for origin in origins):
            said[key] = _said(value, origins, f"{name}.")
    return said


class Planner:
    """Plans runs one after the other, and reads the headers of each file once: for whoever asks what is possible."""

    def __init__(self, plugins: PluginSet | None = None) -> None:
        self._plugins = plugins or load_plugins()
        registry = Registry(self._plugins)
        self._read = Reader(lambda path: read_header(registry, path))

    def plan(
        self,
        model_path: str | Path,
        *,
        config: str | Path | Mapping[str, Any] | None = None,
        ready: bool = False,
        **overrides: Unpack[PlanKeywords],
    ) -> Plan:
        """See ``plan_run``."""
        values = [
            Value(path=("model_path",), value=str(model_path), origin="model_path"),
            *keyword_values(overrides, PLAN_KEYWORDS),
        ]
        resolved = resolve(load_config(config, values), self._plugins, read=self._read)
        if ready:
            check_ready(resolved)
        return resolved.plan


def plan_run(
    model_path: str | Path,
    *,
    config: str | Path | Mapping[str, Any] | None = None,
    plugins: PluginSet | None = None,
    ready: bool = False,
    **overrides: Unpack[PlanKeywords],
) -> Plan:
    """What loading a model and running a request would do. ``config`` is a file or plain data; ``overrides`` are those
    of ``load``, and the paths of inputs: ``image``, ``src_video``, ...

    Raises ``RequestError`` (and its kinds) for everything that is wrong with it; what a plan can do without, a prompt
    and the inputs of the task, only when it has to be ``ready`` to run.
    """
    return Planner(plugins).plan(model_path, config=config, ready=ready, **overrides)
