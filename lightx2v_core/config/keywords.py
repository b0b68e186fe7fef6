"""Keyword arguments and batch-file keys: the configuration keys they set, and which of them a request may change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import evolve

from lightx2v_core.config.declared import settings
from lightx2v_core.config.layers import Value
from lightx2v_core.config.load import LoadedConfig
from lightx2v_core.config.model import LoraConfig
from lightx2v_core.config.overlay import lay_over
from lightx2v_core.config.structure import structure
from lightx2v_core.errors import ConfigError, RequestError, suggestion

#: keyword of ``load`` and ``generate`` -> configuration key
KEYWORDS: Mapping[str, tuple[str, ...]] = {
    setting.name: setting.path for setting in settings() if setting.knob.keyword in ("load", "request")
}
#: inputs of a task: paths, or images and tensors
INPUTS = tuple(setting.name for setting in settings() if setting.knob.keyword == "input")
#: keyword of ``plan_run`` -> configuration key
PLAN_KEYWORDS: Mapping[str, tuple[str, ...]] = {
    setting.name: setting.path for setting in settings() if setting.knob.keyword
}
#: keywords that a request may set; the others are fixed once the pipeline is loaded
PER_REQUEST = tuple(setting.name for setting in settings() if setting.knob.keyword == "request")


def request_config(
    base: LoadedConfig, request: Mapping[str, object]
) -> tuple[LoadedConfig, dict[str, object]]:
    """Overlay the values of one request on ``base``; also return the inputs that are passed in memory.

    ``base`` is not modified. Raises ``RequestError`` for values that cannot change between requests, and
    ``ConfigError`` for unknown keys and invalid values.
    """
    fixed = [name for name in request if name in KEYWORDS and name not in PER_REQUEST]
    if fixed:
        raise RequestError(f"{', '.join(fixed)} cannot change between requests; load another pipeline")
    in_memory = {name: value for name, value in request.items() if name in INPUTS and not _is_path(value)}
    keys = {name: PLAN_KEYWORDS[name] for name in (*PER_REQUEST, *INPUTS)}
    values = keyword_values({name: value for name, value in request.items() if name not in in_memory}, keys)
    loaded = lay_over(base, values)
    given = {value.origin for value in values}
    origins = {**base.origins, **{key: said for key, said in loaded.origins.items() if said in given}}
    loaded = evolve(
        loaded,
        origins=origins,
        warnings=(*base.warnings, *loaded.warnings),
        notes=(*base.notes, *loaded.notes),
    )
    return loaded, in_memory


def lora_configs(loras: Sequence[object]) -> tuple[LoraConfig, ...]:
    """Convert entries of ``loras`` (paths, objects or ``LoraConfig``) to ``LoraConfig``.

    Raises ``ConfigError`` for unknown keys and invalid values.
    """
    if isinstance(loras, str | Path | Mapping):
        raise ConfigError(f"expected a list of LoRA files, got {loras!r}; put it in a list")
    return tuple(
        lora
        if isinstance(lora, LoraConfig)
        else structure(_entry(lora), LoraConfig, path=f"$.loras[{i}]", where="loras")
        for i, lora in enumerate(loras)
    )


def _entry(lora: object) -> object:
    return {"path": str(lora)} if isinstance(lora, str | Path) else _plain(lora)


def keyword_values(given: Mapping[str, object], keys: Mapping[str, tuple[str, ...]]) -> list[Value]:
    """Convert keyword arguments to values of the configuration. Raises ``ConfigError`` for an unknown one."""
    unknown = [name for name in given if name not in keys]
    if unknown:
        raise ConfigError(
            f"unknown argument {unknown[0]!r}{suggestion(unknown[0], keys)}; known: {', '.join(keys)}"
        )
    return [Value(path=keys[name], value=_plain(value), origin=f"{name}=") for name, value in given.items()]


def _plain(value: object) -> object:
    """Convert a value to JSON types."""
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return str(value) if isinstance(value, Path) else value


def _is_path(value: object) -> bool:
    """Return whether an input is a path (or several), not an image or tensor in memory."""
    several = value if isinstance(value, list | tuple) else [value]
    return all(part is None or isinstance(part, str | Path) for part in several)
