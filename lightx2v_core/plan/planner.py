"""The Python API of ``lightx2v-core plan``. Reads no weights and does not import torch."""

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
    """Read a configuration file, in either vocabulary, as nested data for the ``config`` of ``plan_run`` and ``load``.

    Contains only the keys that are set.
    """
    loaded = load_config(file, ())
    return _explicit(loaded.to_json(), frozenset(loaded.origins), "")


def _explicit(data: Mapping[str, Any], origins: frozenset[str], above: str) -> dict[str, Any]:
    """Return the keys of a configuration that are set explicitly."""
    explicit = {}
    for key, value in data.items():
        name = f"{above}{key}"
        if name in origins:
            explicit[key] = value
        elif isinstance(value, Mapping) and any(origin.startswith(f"{name}.") for origin in origins):
            explicit[key] = _explicit(value, origins, f"{name}.")
    return explicit


class Planner:
    """A planner for many runs, such as those of a user interface. Reads the headers of each file once."""

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
        """Plan a run; see ``plan_run``."""
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
    """Plan the loading of a model and the run of a request, without doing either.

    ``config`` is a file or plain data. ``overrides`` are those of ``load``, and the paths of inputs: ``image``,
    ``src_video``, ... Raises ``RequestError`` (or a subclass) for every error in the request. A missing prompt or task
    input is an error only with ``ready``.
    """
    return Planner(plugins).plan(model_path, config=config, ready=ready, **overrides)
