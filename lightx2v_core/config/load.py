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

from attrs import evolve, field, frozen

from lightx2v_core.config import jsonc
from lightx2v_core.config.declared import SECTIONS, settings
from lightx2v_core.config.layers import (
    Layers,
    Value,
    component_of,
    found_at,
    is_section,
    parts_of,
    put,
    section_of,
)
from lightx2v_core.config.lightx2v.flag_groups import FLAG_GROUPS
from lightx2v_core.config.lightx2v.flags import TABLE
from lightx2v_core.config.lightx2v.groups import GROUPS
from lightx2v_core.config.lightx2v.keys import LEGACY
from lightx2v_core.config.lightx2v.translate import SET, Given, Said, contradiction, translate
from lightx2v_core.config.model import RunConfig, Section
from lightx2v_core.config.structure import structure, unstructure
from lightx2v_core.errors import ConfigError, first_lines, shortened

#: what a section that gives only ``options`` uses; the other sections have to say it
_DEFAULT_USE = {
    name: list(section.use) for name in SECTIONS if isinstance(section := getattr(RunConfig(), name), Section)
}

#: a part of a dotted key: in quotes, or without dots, quotes and equals signs
_PART = r'"([^"]+)"|([^\s."=](?:[^."=]*[^\s."=])?)'
_SET = re.compile(rf"(?P<key>\s*(?:{_PART})(?:\s*\.\s*(?:{_PART}))*\s*)=(?P<value>.*)", re.DOTALL)


@frozen(kw_only=True)
class LoadedConfig:
    """A configuration, and the origin of every key that was set (``sampling.steps`` -> ``--steps``)."""

    config: RunConfig
    origins: Mapping[str, str]
    #: what was passed over, or is not what its key promises
    warnings: tuple[str, ...] = field(default=())
    #: facts of a flat configuration: what changes nothing here, and what stands in for what
    notes: tuple[str, ...] = field(default=())
    #: the keys that were set in the flat vocabulary
    flat: frozenset[str] = field(default=frozenset())
    #: the options of implementations over which a later layer says which one is used
    beneath: frozenset[str] = field(default=frozenset())
    #: what flat keys of a file say -> where: ``x.json, line 3, column 5: dit_quant_scheme``
    places: Mapping[str, str] = field(factory=dict)
    #: the file and its text, when there is one
    source: str = ""
    text: jsonc.Document | None = field(default=None, repr=False)
    #: what was asked for and is not there: a plan warns of it, and a run is refused
    lacking: tuple[str, ...] = field(default=())

    def place(self, *path: str) -> str:
        """File, line and name of the key that says a value; empty when no text of a file does."""
        if found := self.places.get(".".join(path)):
            return found
        if self.text is None or self.origin(*path) != self.source or not (at := self.text.place(path)):
            return ""
        return f"{self.source}, {at}: {'.'.join(path)}"

    def says(self, key: str) -> bool:
        """Whether somebody set a key, or one below it."""
        return any(path == key or path.startswith(f"{key}.") for path in self.origins)

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
        if key in LEGACY
    }
    layers = Layers(data=_normal(data))
    layers.record(name)
    own = list(values)
    for layer, item in enumerate(own, 1):
        if item.path[0] in TABLE:
            given[item.path[0]] = _laid(given.get(item.path[0]), item, layer)
    reading = translate(given, (*FLAG_GROUPS, *GROUPS))
    said = [evolve(what, path=part.path, value=part.value) for what in reading.said for part in _parts(what)]
    _check_agreement(said, layers, name, document)
    flat: set[str] = set()
    passed: list[Said] = []
    places: dict[str, str] = {}
    by_layer: dict[int, list[Said]] = {}
    for what in said:
        by_layer.setdefault(what.layer, []).append(what)
    for layer in range(len(own) + 1):
        if layer and own[layer - 1].path[0] not in TABLE:
            for key in layers.lay(own[layer - 1], layer):
                flat.discard(key)
                places.pop(key, None)
        for what in by_layer.get(layer, ()):
            if what.soft and found_at(layers.data, what.path) is None:
                passed.append(what)
            else:
                keys = layers.lay(_value(what), layer)
                flat.update(keys)
                places.update(dict.fromkeys(keys, what.place))
    layers.overrule()
    origins = layers.origins
    sources = list(dict.fromkeys([*([name] if data and document else []), *_sources(origins.values())]))
    where = f"configuration (from {shortened(sources)})" if sources else "configuration"

    def place(path: tuple[str | int, ...]) -> str:
        return _why_here(path, origins, name, document)

    config = structure(_complete(_normal(layers.data)), RunConfig, where=where, place=place, more_keys=LEGACY)
    return LoadedConfig(
        config=config,
        origins=origins,
        warnings=(*reading.warnings, *reading.lacking, *layers.warnings, *_without_effect(passed, layers)),
        notes=tuple(reading.notes),
        flat=frozenset(flat),
        beneath=layers.beneath(),
        places={key: place for key, place in places.items() if place and key in origins},
        source=name,
        text=document,
        lacking=tuple(reading.lacking),
    )


def _value(said: Said) -> Value:
    return Value(path=said.path, value=said.value, origin=said.origin)


def _parts(said: Said) -> list[Value]:
    return parts_of(_value(said))


def _without_effect(passed: Sequence[Said], layers: Layers) -> list[str]:
    """Warnings of what has no effect: a later choice for all components on one that has its own, and what flat keys
    say of a component because it holds for all of them, and no longer does."""
    found = [
        f"{by}: no effect on {own.rpartition('.')[0]}, which is {', '.join(holds)} ({layers.origins[own]})"
        for own, by, holds in layers.own_choices()
    ]
    for item in passed:
        *section, last = item.path
        if len(section) != 3 or not is_section(section) or found_at(layers.data, item.path) is not None:
            continue
        key = f"{section[-1]}.{last}"
        holds = found_at(layers.data, (section[-1], last)) or _DEFAULT_USE[section[-1]]
        if list(holds) != list(item.value):
            by = layers.origins.get(key, "default")
            found.append(f"{item.origin}: no effect, since {section[-1]} is {', '.join(holds)} ({by})")
    return found


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


def _laid(before: Given | None, item: Value, layer: int) -> Given:
    """A flat key with a value of ``--set`` on top, which may be one of the keys inside it."""
    name, *inside = item.path
    value = item.value
    if inside:
        held = before.value if before is not None else {}
        if not isinstance(held, Mapping):
            raise ConfigError(f"{item.origin}: {name} is {held!r}, which holds no keys")
        value = _copied(held)
        put(value, Value(path=tuple(inside), value=item.value, origin=item.origin))
    source = SET if item.origin.startswith(f"{SET} ") else item.origin
    return Given(name=name, value=value, source=source, place=source, layer=layer)


def _check_agreement(
    said: Sequence[Said],
    layers: Layers,
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
        stands = found_at(layers.data, item.path)
        explicit = any(".".join(item.path[:end]) in layers.origins for end in range(1, len(item.path) + 1))
        if item.layer == 0 and explicit and stands is not None and stands != item.value:
            key = Given(
                name=".".join(item.path), value=stands, source=name, place=_place(name, document, item.path)
            )
            problems.append(contradiction(key, item.keys[0]))
    if problems:
        lines = [f"  {line}" for line in first_lines(problems)]
        raise ConfigError("\n".join(["the configuration contradicts itself:", *lines]))


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
        raise ConfigError(f"--set {text[:100]!r}: expected dotted.key=value, such as sampling.steps=20")
    key, raw = match.group("key").strip(), match.group("value")
    try:
        value = jsonc.loads(raw, f"--set {key}")
    except ConfigError:
        if raw.lstrip()[:1] in ("{", "[", '"'):
            raise
        value = raw
    parts = [quoted or plain for quoted, plain in re.findall(_PART, key)]
    return Value(path=tuple(parts), value=value, origin=f"--set {key}")


def default_config() -> dict[str, Any]:
    """The defaults as plain data."""
    data: dict[str, Any] = unstructure(RunConfig())
    return data


_SHORT_FORMS = {setting.path: setting.knob.short for setting in settings() if setting.knob.short is not None}


def _normal(data: Mapping[str, Any]) -> dict[str, Any]:
    """Short spellings written out: ``"sdpa"`` -> ``{"use": ["sdpa"]}``, ``"832x480"`` -> ``[832, 480]``."""
    out = {key: section_of(value) if key in SECTIONS else value for key, value in data.items()}
    if isinstance(out.get("components"), Mapping):
        out["components"] = {name: component_of(value) for name, value in out["components"].items()}
    for (section, key), short in _SHORT_FORMS.items():
        held = out.get(section)
        if isinstance(held, Mapping) and short.fits(held.get(key)):
            out[section] = {**held, key: short.read(held[key])}
    if isinstance(out.get("loras"), Sequence) and not isinstance(out["loras"], str):
        out["loras"] = [{"path": item} if isinstance(item, str) else item for item in out["loras"]]
    return out


def _complete(data: Mapping[str, Any]) -> dict[str, Any]:
    """With what sections use by default, where only their options are given."""
    chosen = {
        key: {"use": use, **data[key]}
        for key, use in _DEFAULT_USE.items()
        if isinstance(data.get(key), Mapping) and "use" not in data[key]
    }
    return {**data, **chosen}


def _copied(value: Mapping[str, Any]) -> dict[str, Any]:
    return {str(key): _copied(item) if isinstance(item, Mapping) else item for key, item in value.items()}
