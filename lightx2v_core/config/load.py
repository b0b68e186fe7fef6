"""Config file + command line -> ``RunConfig``, remembering where each value came from.

Two vocabularies are read, our own nested one and the flat one of ``legacy``, also mixed. Each value has a layer: the
file is the lowest, then come the values of the command line in their order. Flat keys are translated all together,
since several may mean one thing, and what they mean lies in the layer of the highest of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import field, frozen

from lightx2v_core.config import jsonc
from lightx2v_core.config.legacy import LEGACY
from lightx2v_core.config.legacy_groups import GROUPS
from lightx2v_core.config.legacy_translation import SET, Given, Said, contradiction, translate
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
    #: what was passed over, or is not what its key promises
    warnings: tuple[str, ...] = field(default=())
    #: the keys that were set in the flat vocabulary
    flat: frozenset[str] = field(default=frozenset())

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
    """Read ``source`` (a file or plain data) and lay ``values`` over it; later ones win. ``ConfigError`` for what is
    unknown, wrong, or said twice in different ways."""
    data, name, document = _read(source)
    given = {
        key: Given(name=key, value=data.pop(key), source=name, place=_place(name, document, (key,)))
        for key in list(data)
        if _is_legacy(key)
    }
    origins: dict[str, str] = {}
    if data:
        data = _normal(data)
        _record(data, name, origins)
    own = list(values)
    for layer, item in enumerate(own, 1):
        if _is_legacy(item.path[0]):
            given[item.path[0]] = _laid(given.get(item.path[0]), item, layer)
    reading = translate(given, GROUPS)
    _check_agreement(reading.said, data, origins, name, document)
    flat: set[str] = set()
    for layer in range(len(own) + 1):
        if layer and not _is_legacy(own[layer - 1].path[0]):
            flat.difference_update(_lay(data, own[layer - 1], origins))
        for said in reading.said:
            if said.layer == layer and not (said.soft and _found(data, said.path) is None):
                flat.update(_lay(data, Value(path=said.path, value=said.value, origin=said.origin), origins))
    sources = dict.fromkeys([*([name] if data and document else []), *_sources(origins.values())])
    where = f"configuration (from {', '.join(sources)})" if sources else "configuration"

    def place(path: tuple[str | int, ...]) -> str:
        return _why_here(path, origins, name, document)

    config = structure(_normal(data), RunConfig, where=where, place=place, more_keys=LEGACY)
    return LoadedConfig(
        config=config, origins=origins, warnings=tuple(reading.warnings), flat=frozenset(flat)
    )


def _read(
    source: Path | str | Mapping[str, Any] | None,
) -> tuple[dict[str, Any], str, jsonc.Document | None]:
    """Plain data, what to call it, and its text if it has one."""
    if source is None or isinstance(source, Mapping):
        document, data, name = None, _copied(source or {}), "config"
    else:
        document = jsonc.read_document(Path(source))
        data, name = _copied(document.value), str(source)
    data.pop("$schema", None)  # for editors
    return data, name, document


def _is_legacy(key: str) -> bool:
    return key in LEGACY


def _laid(before: Given | None, item: Value, layer: int) -> Given:
    """A flat key with a value of ``--set`` on top, which may be one of the keys inside it."""
    name, *inside = item.path
    value = item.value
    if inside:
        held = before.value if before is not None else {}
        if not isinstance(held, Mapping):
            raise ConfigError(f"{item.origin}: {name} is {held!r}, which holds no keys")
        value = _copied(held)
        _put(value, Value(path=tuple(inside), value=item.value, origin=item.origin))
    return Given(name=name, value=value, source=SET, place=SET, layer=layer)


def _check_agreement(
    said: Sequence[Said],
    data: Mapping[str, Any],
    origins: Mapping[str, str],
    name: str,
    document: jsonc.Document | None,
) -> None:
    """What is said twice in one layer must be the same; all contradictions in one ``ConfigError``."""
    problems = []
    first: dict[tuple[tuple[str, ...], int], Said] = {}
    for item in said:
        other = first.setdefault((item.path, item.layer), item)
        if other is not item and other.value != item.value:
            problems.append(contradiction(other.keys[0], item.keys[0]))
        stands = _found(data, item.path)
        explicit = any(".".join(item.path[:end]) in origins for end in range(1, len(item.path) + 1))
        if item.layer == 0 and explicit and stands is not None and stands != item.value:
            key = Given(
                name=".".join(item.path), value=stands, source=name, place=_place(name, document, item.path)
            )
            problems.append(contradiction(key, item.keys[0]))
    if problems:
        lines = [f"  {line}" for line in problems]
        raise ConfigError("\n".join(["the configuration contradicts itself:", *lines]))


def _lay(data: dict[str, Any], item: Value, origins: dict[str, str]) -> list[str]:
    """Set a value, and remember where it came from. Returns the keys that it says."""
    _put(data, item)
    at = ".".join(item.path)
    for path in [path for path in origins if path == at or path.startswith(f"{at}.")]:
        del origins[path]  # what stood there is gone
    leaves = _leaves(item.value, at)
    origins.update(dict.fromkeys(leaves, item.origin))
    return leaves


def _found(data: Any, path: Sequence[str]) -> Any:
    """The value at a path, None when there is none."""
    for key in path:
        if not isinstance(data, Mapping) or key not in data:
            return None
        data = data[key]
    return data


def _sources(origins: Iterable[str]) -> list[str]:
    """Where values came from, without the keys: x.json, --steps, --set sampling.seed."""
    return sorted({origin.rpartition(" in ")[2] for origin in origins})


def _place(name: str, document: jsonc.Document | None, path: tuple[str | int, ...]) -> str:
    """``x.json, line 3, column 5``; without a text, what the data is called."""
    at = document.place(path) if document is not None else ""
    return f"{name}, {at}" if at else name


def _why_here(
    path: tuple[str | int, ...], origins: Mapping[str, str], name: str, document: jsonc.Document | None
) -> str:
    """Where a value that is wrong came from: its key in the other vocabulary, or its line."""
    for end in range(len(path), 0, -1):
        origin = origins.get(".".join(map(str, path[:end])))
        if origin is not None and origin != name:
            return origin
        if document is not None and origin == name:
            break
    return _place(name, document, path) if document is not None and document.place(path) else ""


def parse_set(text: str) -> Value:
    """``dotted.key=JSON`` of ``--set``; a value that is no JSON is taken as a string. A key that has dots itself is
    put in quotes: ``model.options."acme-1.0".tile=256``."""
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
