"""Loading of a configuration file and command-line values into a ``RunConfig``, with the origin of each value.

Two vocabularies are read, and may be mixed: the nested one of this project and the flat one of LightX2V
(``config.lightx2v``). Each value has a layer: the file is the lowest, followed by the values of the command line in
their order. Flat keys are translated together, since several may define one setting; the result belongs to the highest
layer among them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen, mutable

from lightx2v_core.config import jsonc
from lightx2v_core.config.declared import SECTIONS, settings
from lightx2v_core.config.layers import (
    Layers,
    Value,
    component_of,
    is_section,
    parts_of,
    put,
    section_of,
    value_at,
)
from lightx2v_core.config.lightx2v.flag_groups import FLAG_GROUPS
from lightx2v_core.config.lightx2v.flags import TABLE
from lightx2v_core.config.lightx2v.groups import GROUPS
from lightx2v_core.config.lightx2v.keys import LEGACY
from lightx2v_core.config.lightx2v.translate import SET, FlatKey, TranslatedValue, contradiction, translate
from lightx2v_core.config.model import RunConfig, Section
from lightx2v_core.config.structure import structure, unstructure
from lightx2v_core.errors import ConfigError, first_lines, shortened

#: default of ``use`` in a section with only ``options``; other sections require ``use``
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
    #: ignored values, and differences from LightX2V
    warnings: tuple[str, ...] = field(default=())
    #: notes on a flat configuration: keys without effect, and substitutes
    notes: tuple[str, ...] = field(default=())
    #: the keys that were set in the flat vocabulary
    flat: frozenset[str] = field(default=frozenset())
    #: option keys from a lower layer than the choice of the implementation
    beneath: frozenset[str] = field(default=frozenset())
    #: key -> place of the flat key that sets it in a file: ``x.json, line 3, column 5: dit_quant_scheme``
    places: Mapping[str, str] = field(factory=dict)
    #: the file and its text, if there is one
    source: str = ""
    text: jsonc.Document | None = field(default=None, repr=False)
    #: missing requirements: a plan warns, a run fails
    lacking: tuple[str, ...] = field(default=())

    def place(self, *path: str) -> str:
        """Return the file, line and name of the key that sets a value; empty if no text of a file sets it."""
        if place := self.places.get(".".join(path)):
            return place
        if self.text is None or self.origin(*path) != self.source or not (at := self.text.place(path)):
            return ""
        return f"{self.source}, {at}: {'.'.join(path)}"

    def says(self, key: str) -> bool:
        """Return whether a key, or one below it, was set."""
        return any(path == key or path.startswith(f"{key}.") for path in self.origins)

    def origin(self, *path: str) -> str:
        """Return the origin of the value of a key; ``default`` if it was not set."""
        for end in range(len(path), 0, -1):
            if (origin := self.origins.get(".".join(path[:end]))) is not None:
                return origin
        return "default"

    def to_json(self) -> dict[str, Any]:
        """Return the configuration as plain data that is valid in a configuration file."""
        data: dict[str, Any] = unstructure(self.config)
        return data


def load_config(
    source: Path | str | Mapping[str, object] | None = None, values: Iterable[Value] = ()
) -> LoadedConfig:
    """Read ``source`` (a file or plain data) and overlay ``values``; later ones take precedence.

    Raises ``ConfigError`` for unknown keys, invalid values and contradictions within a layer.
    """
    data, name, document = _read(source)
    own = list(values)
    flat_keys = _flat_keys(data, name, document, own)
    layers = Layers(data=_normal(data))
    layers.record(name)
    reading = translate(flat_keys, (*FLAG_GROUPS, *GROUPS))
    translated = [
        evolve(value, path=part.path, value=part.value)
        for value in reading.translated
        for part in _parts(value)
    ]
    _check_agreement(translated, layers, name, document)
    laid = _lay(layers, own, translated)
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
        warnings=(
            *reading.warnings,
            *reading.lacking,
            *layers.warnings,
            *_without_effect(laid.skipped, layers),
        ),
        notes=tuple(reading.notes),
        flat=frozenset(laid.flat),
        beneath=layers.beneath(),
        places={key: place for key, place in laid.places.items() if place and key in origins},
        source=name,
        text=document,
        lacking=tuple(reading.lacking),
    )


def _flat_keys(
    data: dict[str, object], name: str, document: jsonc.Document | None, values: Sequence[Value]
) -> dict[str, FlatKey]:
    """Collect the flat keys of the file, which are removed from ``data``, overlaid with those of the command line."""
    keys = {
        key: FlatKey(name=key, value=data.pop(key), source=name, place=_place(name, document, (key,)))
        for key in list(data)
        if key in LEGACY
    }
    for layer, value in enumerate(values, 1):
        if (key := value.path[0]) in TABLE:
            keys[key] = _on_top(keys.get(key), value, layer)
    return keys


@mutable
class _Laid:
    """The results of overlaying translated values on a configuration."""

    #: keys set by flat keys, and the places of the latter
    flat: set[str] = field(factory=set)
    places: dict[str, str] = field(factory=dict)
    #: soft values, skipped because their key is not set
    skipped: list[TranslatedValue] = field(factory=list)


def _lay(layers: Layers, own: Sequence[Value], translated: Sequence[TranslatedValue]) -> _Laid:
    """Overlay values and translated values on a configuration, layer by layer."""
    laid = _Laid()
    for layer in range(len(own) + 1):
        if layer and own[layer - 1].path[0] not in TABLE:
            for key in layers.lay(own[layer - 1], layer):
                laid.flat.discard(key)
                laid.places.pop(key, None)
        for value in (value for value in translated if value.layer == layer):
            if value.soft and value_at(layers.data, value.path) is None:
                laid.skipped.append(value)
            else:
                keys = layers.lay(_value(value), layer)
                laid.flat.update(keys)
                laid.places.update(dict.fromkeys(keys, value.place))
    return laid


def _value(translated: TranslatedValue) -> Value:
    return Value(path=translated.path, value=translated.value, origin=translated.origin)


def _parts(translated: TranslatedValue) -> list[Value]:
    return parts_of(_value(translated))


def _without_effect(skipped: Sequence[TranslatedValue], layers: Layers) -> list[str]:
    """List the warnings about values without effect.

    These are global choices in a later layer for a component with a choice of its own, and soft values of flat keys for
    a component that differ from the global choice in effect.
    """
    warnings = [
        f"{by}: no effect on {own.rpartition('.')[0]}, which is {', '.join(holds)} ({layers.origins[own]})"
        for own, by, holds in layers.own_choices()
    ]
    for value in skipped:
        *section, last = value.path
        if len(section) != 3 or not is_section(section) or value_at(layers.data, value.path) is not None:
            continue
        key = f"{section[-1]}.{last}"
        holds = value_at(layers.data, (section[-1], last)) or _DEFAULT_USE[section[-1]]
        if list(holds) != value.value:
            by = layers.origins.get(key, "default")
            warnings.append(f"{value.origin}: no effect, since {section[-1]} is {', '.join(holds)} ({by})")
    return warnings


def _read(
    source: Path | str | Mapping[str, object] | None,
) -> tuple[dict[str, object], str, jsonc.Document | None]:
    """Return the plain data of a source, its name in messages, and its text if it has one."""
    if source is None or isinstance(source, Mapping):
        document, data, name = None, _copied(source or {}), "config"
    else:
        document = jsonc.read_document(Path(source))
        data, name = _copied(document.value), str(source)
    data.pop("$schema", None)  # for editors
    return data, name, document


def _on_top(before: FlatKey | None, value: Value, layer: int) -> FlatKey:
    """Overlay a value of the command line on a flat key. With ``--set`` the value may be that of a key inside it."""
    name, *inside = value.path
    whole = value.value
    if inside:
        held = before.value if before is not None else {}
        if not isinstance(held, Mapping):
            raise ConfigError(f"{value.origin}: {name} is {held!r}, not an object")
        keys = _copied(held)
        put(keys, Value(path=tuple(inside), value=value.value, origin=value.origin))
        whole = keys
    source = SET if value.origin.startswith(f"{SET} ") else value.origin
    return FlatKey(name=name, value=whole, source=source, place=source, layer=layer)


def _check_agreement(
    translated: Sequence[TranslatedValue], layers: Layers, name: str, document: jsonc.Document | None
) -> None:
    """Raise ``ConfigError`` listing every setting with two different values in one layer."""
    problems = []
    first: dict[tuple[tuple[str, ...], int], TranslatedValue] = {}
    for value in translated:
        other = first.setdefault((value.path, value.layer), value)
        if other is not value and other.value != value.value:
            problems.append(contradiction(other.keys[0], value.keys[0]))
        stands = value_at(layers.data, value.path)
        explicit = any(".".join(value.path[:end]) in layers.origins for end in range(1, len(value.path) + 1))
        if value.layer == 0 and explicit and stands is not None and stands != value.value:
            key = FlatKey(
                name=".".join(value.path), value=stands, source=name, place=_place(name, document, value.path)
            )
            problems.append(contradiction(key, value.keys[0]))
    if problems:
        lines = [f"  {line}" for line in first_lines(problems)]
        raise ConfigError("\n".join(["the configuration contradicts itself:", *lines]))


def _sources(origins: Iterable[str]) -> list[str]:
    """List the sources of values, without keys: x.json, --steps, --set sampling.seed."""
    return sorted({origin.rpartition(" in ")[2] for origin in origins})


def _place(name: str, document: jsonc.Document | None, path: tuple[str | int, ...]) -> str:
    """Format a place as ``x.json, line 3, column 5``; only the name if there is no text."""
    at = document.place(path) if document is not None else ""
    return f"{name}, {at}" if at else name


def _why_here(
    path: tuple[str | int, ...], origins: Mapping[str, str], name: str, document: jsonc.Document | None
) -> str:
    """Return the origin of an invalid value: its key in the other vocabulary, or its line."""
    for end in range(len(path), 0, -1):
        origin = origins.get(".".join(map(str, path[:end])))
        if origin is not None and origin != name:
            return origin
        if document is not None and origin == name:
            break
    return _place(name, document, path) if document is not None and document.place(path) else ""


def parse_set(text: str) -> Value:
    """Parse ``dotted.key=JSON`` of ``--set``. A value that is not JSON is read as a string.

    A key part that contains dots is quoted: ``model.options."acme-1.0".tile=256``. Raises ``ConfigError`` for malformed
    text.
    """
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
    """Return the default configuration as plain data."""
    data: dict[str, Any] = unstructure(RunConfig())
    return data


_SHORT_FORMS = {setting.path: setting.knob.short for setting in settings() if setting.knob.short is not None}


def _normal(data: Mapping[str, object]) -> dict[str, object]:
    """Expand short forms: ``"sdpa"`` -> ``{"use": ["sdpa"]}``, ``"832x480"`` -> ``[832, 480]``."""
    out = {key: section_of(value) if key in SECTIONS else value for key, value in data.items()}
    if isinstance(components := out.get("components"), Mapping):
        out["components"] = {name: component_of(value) for name, value in components.items()}
    for (section, key), short in _SHORT_FORMS.items():
        held = out.get(section)
        if isinstance(held, Mapping) and short.fits(held.get(key)):
            out[section] = {**held, key: short.read(held[key])}
    if isinstance(loras := out.get("loras"), Sequence) and not isinstance(loras, str):
        out["loras"] = [{"path": lora} if isinstance(lora, str) else lora for lora in loras]
    return out


def _complete(data: Mapping[str, object]) -> dict[str, object]:
    """Add the default ``use`` to sections that only have options."""
    complete = dict(data)
    for name, use in _DEFAULT_USE.items():
        section = data.get(name)
        if isinstance(section, Mapping) and "use" not in section:
            complete[name] = {"use": use, **section}
    return complete


def _copied(value: Mapping[str, object]) -> dict[str, object]:
    return {str(key): _copied(inner) if isinstance(inner, Mapping) else inner for key, inner in value.items()}
