"""Translation of flat keys, by the tables of ``keys`` and ``flags``, into values, notes and warnings, or one error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import evolve, field, frozen, mutable

from lightx2v_core.config.lightx2v.flags import TABLE
from lightx2v_core.config.lightx2v.keys import (
    BOOL,
    INTEGER,
    LIST,
    MM_TYPES,
    NUMBER,
    OBJECT,
    PATH,
    STRING,
    LegacyKey,
)
from lightx2v_core.config.lightx2v.schemes import is_long_name
from lightx2v_core.errors import ConfigError, first_lines, shortened, suggestion

#: the source of values set by ``--set``
SET = "--set"


@frozen(kw_only=True)
class FlatKey:
    """A flat key that is set: its name, value, source and layer. Later layers take precedence."""

    name: str
    value: Any
    #: the file, or ``--set``
    source: str
    #: ``x.json, line 3, column 5``, for errors
    place: str
    layer: int = 0

    @property
    def origin(self) -> str:
        """Return the key with its source: ``infer_steps in x.json``."""
        return origin([self])


def origin(keys: Sequence[FlatKey]) -> str:
    """Describe the origin of a value that several keys define."""
    named: dict[str, list[str]] = {}
    for key in keys:
        names = named.setdefault(key.source, [])
        names += [key.name] if key.name not in names else []
    texts = {source: ", ".join(names) for source, names in named.items()}
    return " and ".join(
        f"--set {text}" if source == SET else source if is_option(source) else f"{text} in {source}"
        for source, text in texts.items()
    )


def is_option(source: str) -> bool:
    """Return whether a source is a command-line option, which has the name of its key."""
    return source.startswith("--") and source != SET


@frozen(kw_only=True)
class TranslatedValue:
    """A value of the nested vocabulary, translated from flat keys."""

    path: tuple[str, ...]
    value: object
    keys: tuple[FlatKey, ...]
    #: equals the default, so it only overrides a value that is set
    soft: bool = False

    @property
    def layer(self) -> int:
        """Return the highest layer of its keys."""
        return max(key.layer for key in self.keys)

    @property
    def origin(self) -> str:
        """Describe where its keys were set."""
        return origin(self.keys)

    @property
    def place(self) -> str:
        """Return the line and name of its key in the file; empty if it was not set in a file."""
        key = self.keys[-1]
        return f"{key.place}: {key.name}" if key.layer == 0 and key.place != key.source else ""


@mutable
class Reading:
    """The flat keys by their newest names, and the results of their translation so far."""

    facts: dict[str, FlatKey] = field(factory=dict)
    #: other keys of the same layer with the same value, by that name
    agreeing: dict[str, list[FlatKey]] = field(factory=dict)
    translated: list[TranslatedValue] = field(factory=list)
    #: warnings: differences from LightX2V; notes: keys without effect
    warnings: list[str] = field(factory=list)
    notes: list[str] = field(factory=list)
    errors: list[str] = field(factory=list)
    #: missing requirements of a run; a plan lists them
    lacking: list[str] = field(factory=list)

    def value(self, name: str) -> Any:
        """Return the value of a key, or None if it is not set."""
        return self.facts[name].value if name in self.facts else None

    def keys(self, *names: str) -> tuple[FlatKey, ...]:
        """Collect all keys that are set under these names, which may be absent."""
        return tuple(
            key
            for name in names
            if name in self.facts
            for key in (*self.agreeing.get(name, ()), self.facts[name])
        )

    def say(self, path: str | tuple[str, ...], value: object, *names: str, soft: bool = False) -> None:
        """Set ``path`` to ``value``, as defined by those of the keys ``names`` that are set."""
        parts = tuple(path.split(".")) if isinstance(path, str) else path
        self.translated.append(TranslatedValue(path=parts, value=value, keys=self.keys(*names), soft=soft))

    def warn(self, name: str, text: str) -> None:
        """Add a warning about a key."""
        self.warnings.append(f"{origin(self.keys(name))}: {text}")

    def note(self, name: str, text: str) -> None:
        """Add a note about a key."""
        self.notes.append(f"{origin(self.keys(name))}: {text}")

    def refuse(self, name: str, text: str) -> None:
        """Add an error about a key."""
        given = self.facts[name]
        where = given.place if is_option(given.source) else f"{given.place}: {given.name}"
        self.errors.append(f"{where}: {text}")


Group = Callable[[Reading], None]


def translate(keys: Mapping[str, FlatKey], groups: Sequence[Group]) -> Reading:
    """Translate flat keys into the nested vocabulary.

    Raises ``ConfigError`` listing every key that is refused, contradicts another, or has a value of the wrong type.
    Ignored keys are listed in ``notes``.
    """
    reading = Reading()
    for given in keys.values():
        if given.value is not None:
            _admit(reading, given, TABLE[given.name])
    _expand_mm_config(reading)
    ignored: dict[str, list[FlatKey]] = {}
    for name, given in list(reading.facts.items()):
        key = TABLE[name]
        if key.read is not None:
            _read(reading, name, key)
        elif key.refused and not _is_harmless(given.value, key):
            reading.refuse(name, f"{_short(given.value)} is refused: {key.refused}")
        elif key.ignored:
            ignored.setdefault(key.ignored, []).extend(reading.keys(name))
    if not reading.errors:
        for group in groups:
            group(reading)
    reading.notes += [_ignored(given, reason) for reason, given in ignored.items()]
    if reading.errors:
        lines = [f"  {line}" for line in first_lines(reading.errors)]
        raise ConfigError("\n".join(["invalid or unsupported keys and options of LightX2V or Wan:", *lines]))
    return reading


def _admit(reading: Reading, given: FlatKey, key: LegacyKey) -> None:
    """Check the type of a value and store it under its newest name. Synonymous keys must agree."""
    name = key.same_as or given.name
    types = TABLE[name].types
    if types and not any(_is(given.value, kind) for kind in types):
        wanted = " or ".join(_WORDS[kind] for kind in types)
        reading.errors.append(f"{given.place}: {given.name}: expected {wanted}, got {_short(given.value)}")
        return
    if given.value == "" and PATH in types:
        return  # the scripts of LightX2V use "" for an unset path
    other = reading.facts.get(name)
    if other is not None and other.layer == given.layer and other.value != given.value:
        reading.errors.append(contradiction(other, given))
    if other is None or given.layer >= other.layer:
        agrees = other is not None and other.layer == given.layer and other.value == given.value
        reading.agreeing[name] = [*reading.agreeing.get(name, ()), other] if other and agrees else []
        reading.facts[name] = given


def contradiction(one: FlatKey, other: FlatKey) -> str:
    """Describe two keys with different values for the same setting."""
    return (
        f"{one.name} ({one.place}) is {_short(one.value)} and {other.name} ({other.place}) is {_short(other.value)}; "
        "both set the same value, so use only one"
    )


def _expand_mm_config(reading: Reading) -> None:
    """Replace ``mm_config`` by the newer keys for its contents."""
    config = reading.facts.pop("mm_config", None)
    if config is None:
        return
    known = ("mm_type", "weight_auto_quant")
    if wrong := [name for name in config.value if name not in known]:
        near = suggestion(wrong[0], known)
        reading.errors.append(
            f"{config.place}: unknown mm_config key {shortened([_short(name) for name in wrong])}{near}; "
            f"known: {', '.join(known)}"
        )
    kind = config.value.get("mm_type")
    if kind is not None and kind not in MM_TYPES and not is_long_name(str(kind)):
        names = "\n    ".join(first_lines(list(MM_TYPES), 12))
        reading.errors.append(
            f"{config.place}: mm_config.mm_type: unsupported value {_short(kind)}"
            f"{suggestion(str(kind), MM_TYPES)}; known:\n    {names}"
        )
        return
    facts: list[tuple[str, str, object]] = [
        ("weight_auto_quant", "mm_config.weight_auto_quant", config.value.get("weight_auto_quant"))
    ]
    if kind is not None:
        scheme = MM_TYPES.get(kind, kind)
        facts.append(("dit_quantized", "mm_config.mm_type", bool(scheme)))
        facts.append(("dit_quant_scheme", "mm_config.mm_type", scheme or None))
    for name, by, value in facts:
        if value is not None:
            _admit(reading, evolve(config, name=by, value=value), LegacyKey(same_as=name))


def _read(reading: Reading, name: str, key: LegacyKey) -> None:
    """Translate a key that does not depend on others."""
    assert key.read is not None
    try:
        value = key.read(reading.value(name))
    except ValueError as exc:
        reading.refuse(name, str(exc))
        return
    for path in key.to:
        reading.translated.append(
            TranslatedValue(path=tuple(path.split(".")), value=value, keys=reading.keys(name))
        )


def _is_harmless(value: object, key: LegacyKey) -> bool:
    return any(type(value) is type(other) and value == other for other in key.harmless)


def _ignored(given: Sequence[FlatKey], reason: str) -> str:
    options = [key.source for key in given if is_option(key.source)]
    keys = [key for key in given if not is_option(key.source)]
    names = shortened([leaf for key in keys for leaf in _leaves(key.value, key.name)], 20)
    if keys:
        names += f" ({', '.join(dict.fromkeys(key.source for key in keys))})"
    return f"{', '.join([*options, *([names] if keys else [])])}: ignored, {reason}"


def _leaves(value: object, path: str) -> list[str]:
    if isinstance(value, Mapping) and value:
        return [leaf for name, inner in value.items() for leaf in _leaves(inner, f"{path}.{name}")]
    return [path]


_WORDS = {
    BOOL: "true or false", INTEGER: "an integer", NUMBER: "a number", STRING: "a string", PATH: "a path",
    LIST: "a list", OBJECT: "an object",
}  # fmt: skip
_CLASSES: Mapping[str, tuple[type[object], ...]] = {
    BOOL: (bool,), INTEGER: (int,), NUMBER: (int, float), STRING: (str,), PATH: (str,), LIST: (list, tuple),
    OBJECT: (dict,),
}  # fmt: skip


def _is(value: object, kind: str) -> bool:
    return type(value) in _CLASSES[kind]


def _short(value: object) -> str:
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def type_words(key: LegacyKey) -> list[str]:
    """Describe the accepted types of a key's value."""
    return [_WORDS[kind] for kind in key.types]
