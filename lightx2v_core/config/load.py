"""Config file + command line -> ``RunConfig``, remembering where each value came from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from lightx2v_core.config import jsonc
from lightx2v_core.config.model import RunConfig
from lightx2v_core.config.structure import structure, unstructure
from lightx2v_core.errors import ConfigError

#: keys that hold a choice of implementation and may be spelt in short
SECTIONS = ("model", "attention", "quantizer", "offloader", "lora_applier", "scheduler")
#: what a section that gives only ``options`` uses; the other sections have to say it
_DEFAULT_USE = {"model": "auto", "attention": "auto", "offloader": "none", "lora_applier": "merge"}


#: a part of a dotted key: in quotes, or without dots, quotes and equals signs
_PART = r'"([^"]+)"|([^\s."=](?:[^."=]*[^\s."=])?)'
_SET = re.compile(rf"(?P<key>\s*(?:{_PART})(?:\s*\.\s*(?:{_PART}))*\s*)=(?P<value>.*)", re.DOTALL)


@frozen(kw_only=True)
class Value:
    """A value given outside the file: the path of its key, and where it came from (``--steps``)."""

    path: tuple[str, ...]
    value: Any
    origin: str


@frozen(kw_only=True)
class LoadedConfig:
    """A configuration, and the origin of every key that was set (``sampling.steps`` -> ``--steps``)."""

    config: RunConfig
    origins: Mapping[str, str]

    def origin(self, *path: str) -> str:
        """Where the value of a key came from; ``default`` when nobody set it."""
        for end in range(len(path), 0, -1):
            found = self.origins.get(".".join(path[:end]))
            if found is not None:
                return found
        return "default"

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain data, ready to be written as a config file."""
        data: dict[str, Any] = unstructure(self.config)
        return data


def load_config(
    source: Path | str | Mapping[str, Any] | None = None, values: Iterable[Value] = ()
) -> LoadedConfig:
    """Read ``source`` (a file or plain data) and lay ``values`` over it; later ones win."""
    origins: dict[str, str] = {}
    if source is None:
        data: dict[str, Any] = {}
    elif isinstance(source, Mapping):
        data = _copied(source)
        _record(data, "config", origins)
    else:
        data = jsonc.read(Path(source))
        data.pop("$schema", None)
        _record(data, str(source), origins)
    for item in values:
        _put(data, item)
        at = ".".join(item.path)
        for path in [path for path in origins if path == at or path.startswith(f"{at}.")]:
            del origins[path]  # what stood there is gone
        origins.update(dict.fromkeys(_leaves(item.value, at), item.origin))
    given_by = sorted(set(origins.values()))
    where = f"configuration (from {', '.join(given_by)})" if given_by else "configuration"
    return LoadedConfig(config=structure(_normal(data), RunConfig, where=where), origins=origins)


def parse_set(text: str) -> Value:
    """``dotted.key=JSON`` of ``--set``; a value that is no JSON is taken as a string. A key that has dots itself is
    put in quotes: ``model.options."wan2.1".vae_tile=256``."""
    match = _SET.fullmatch(text)
    if match is None:
        raise ConfigError(f"--set {text!r}: expected dotted.key=value, such as sampling.steps=20")
    key, raw = match.group("key").strip(), match.group("value")
    try:
        value = jsonc.loads(raw, f"--set {key}")
    except ConfigError:
        if raw.lstrip()[:1] in ("{", "[", '"'):
            raise
        value = raw
    parts = [quoted or plain for quoted, plain in re.findall(_PART, key)]
    return Value(path=tuple(parts), value=value, origin=f"--set {key}")


def parse_size(text: str) -> list[int]:
    """``832x480`` (or ``832*480``) as [width, height]."""
    match = re.fullmatch(r"\s*(\d{1,9})\s*[xX*\u00d7]\s*(\d{1,9})\s*", text)
    if match is None:
        raise ConfigError(f"size {text[:100]!r}: expected WIDTHxHEIGHT in pixels, such as 832x480")
    return [int(match.group(1)), int(match.group(2))]


def parse_bytes(text: str) -> int:
    """``24GB`` (10^9), ``24GiB`` (2^30), ``500MB``, ... or a plain number, in bytes."""
    match = re.fullmatch(r"\s*(\d{1,12}(?:\.\d{1,6})?)\s*(?:([KMGT])(i?)B?|B)?\s*", text, re.IGNORECASE)
    if match is None:
        raise ConfigError(
            f"size of memory {text[:100]!r}: expected a number and a unit, such as 24GB or 16GiB"
        )
    power = " KMGT".index((match.group(2) or " ").upper())
    return int(float(match.group(1)) * (1024 if match.group(3) else 1000) ** power)


def default_config() -> dict[str, Any]:
    """The defaults as plain data."""
    data: dict[str, Any] = unstructure(RunConfig())
    return data


def _normal(data: dict[str, Any]) -> dict[str, Any]:
    """Short spellings written out: ``"sdpa"`` -> ``{"use": ["sdpa"]}``, ``"832x480"`` -> ``[832, 480]``."""
    out = dict(data)
    for key in SECTIONS:
        if key in out:
            out[key] = _section(out[key])
        if isinstance(out.get(key), Mapping) and "use" not in out[key] and key in _DEFAULT_USE:
            out[key] = {"use": [_DEFAULT_USE[key]], **out[key]}
    if isinstance(out.get("components"), Mapping):
        out["components"] = {name: _component(value) for name, value in out["components"].items()}
    sampling = out.get("sampling")
    if isinstance(sampling, Mapping):
        sampling = dict(sampling)
        if isinstance(sampling.get("size"), str):
            sampling["size"] = parse_size(sampling["size"])
        if type(sampling.get("guide_scale")) in (int, float):
            sampling["guide_scale"] = [sampling["guide_scale"]]
        out["sampling"] = sampling
    if isinstance(out.get("memory"), Mapping):
        texts = {key: parse_bytes(item) for key, item in out["memory"].items() if isinstance(item, str)}
        out["memory"] = {**out["memory"], **texts}
    if isinstance(out.get("loras"), Sequence) and not isinstance(out["loras"], str):
        out["loras"] = [{"path": item} if isinstance(item, str) else item for item in out["loras"]]
    return out


def _component(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {key: _section(item) if key in ("quantizer", "offloader") else item for key, item in value.items()}


def _section(value: Any) -> Any:
    if isinstance(value, str):
        return {"use": [value]}
    if isinstance(value, list | tuple):
        return {"use": list(value)}
    if isinstance(value, Mapping) and isinstance(value.get("use"), str):
        return {**value, "use": [value["use"]]}
    return value


def _put(data: dict[str, Any], item: Value) -> None:
    """Set a value by its path, keeping what else a section holds."""
    *parents, last = item.path
    here = data
    for depth, key in enumerate(parents):
        below = here.get(key)
        if depth == 0 and key in SECTIONS and below is not None:
            below = _section(below)
        if below is None:
            below = {}
        if not isinstance(below, dict):
            at = ".".join(parents[: depth + 1])
            raise ConfigError(f"{item.origin}: {at} is {below!r}, which holds no keys")
        here[key] = dict(below)
        here = here[key]
    here[last] = item.value


def _record(value: Any, origin: str, origins: dict[str, str]) -> None:
    origins.update(dict.fromkeys(_leaves(value, ""), origin))


def _leaves(value: Any, path: str) -> list[str]:
    if isinstance(value, Mapping) and value:
        return [leaf for key, item in value.items() for leaf in _leaves(item, f"{path}.{key}".lstrip("."))]
    return [path]


def _copied(value: Mapping[str, Any]) -> dict[str, Any]:
    return {str(key): _copied(item) if isinstance(item, Mapping) else item for key, item in value.items()}
