"""Validation of the values that plugins return, and conversion to plain types.

A function of a spec can return anything: ``None``, an endless iterator, a string whose methods raise. Its result is
checked once, here, so that no other code has to expect such values.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from functools import cache
from itertools import islice
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

import attrs

from lightx2v_core.discovery.isolation import called, kind_of, one_line, shown
from lightx2v_core.spec.specs import Spec

#: most items of an iterator, and keys of a mapping that is not a dict; more count as endless
MOST, MOST_KEYS = 10_000, 1_000_000


class Reason:
    """The hint for a text that users read, converted to one line of bounded length."""


class Built:
    """The hint for a built object: anything but None."""


class Function:
    """The hint for a callable."""


Hint = Callable[[], object]
T = TypeVar("T")


def _tasks() -> object:
    from lightx2v_core.spec.components import TaskSpec

    return Mapping[str, TaskSpec]


def _components() -> object:
    from lightx2v_core.spec.components import ComponentSpec

    return tuple[ComponentSpec, ...]


def _repositories() -> object:
    from lightx2v_core.spec.components import Repository

    return Sequence[Repository]


def _header() -> object:
    from lightx2v_core.spec.tensors import Header

    return Header


def _command() -> object:
    import click

    return click.Command


def _fact(name: str, among: Callable[[object], object] = lambda fact: fact) -> Hint:
    def hint() -> object:
        from lightx2v_core.spec import memory, recognition

        return among(getattr(recognition if hasattr(recognition, name) else memory, name))

    return hint


#: for hints whose classes are only known at run time
_MAPPING: Any = Mapping
_SEQUENCE: Any = Sequence
#: field of a spec -> its type. Built lazily: listing plugins needs few of these classes
_FIELDS: Mapping[str, Hint] = {
    "name": lambda: str,
    "summary": lambda: str,
    "extra": lambda: str | None,
    "parent": lambda: str | None,
    "devices": lambda: frozenset[str],
    "min_capability": lambda: tuple[int, int],
    "priority": lambda: int,
    "suffixes": lambda: tuple[str, ...],
    "formats": lambda: frozenset[str],
    "exact": lambda: bool,
    "writes": lambda: frozenset[str] | None,
    "head_dims": lambda: frozenset[int] | None,
    "dtypes": lambda: frozenset[str],
    "kinds": lambda: frozenset[str],
    "resident": lambda: bool,
    "guided": lambda: bool,
    "aliases": lambda: Mapping[str, bool | None],
    "tasks": _tasks,
    "components": _components,
    "makes": lambda: Function | None,
    "write_tiny": lambda: Function | None,
}
#: function of a spec -> its return type
_ANSWERS: Mapping[str, Hint] = {
    "unusable": lambda: Reason | Sequence[Reason],
    "read_header": _header,
    "makes": lambda: str | None,
    "refuses": lambda: Reason | None,
    "forecast": _fact("OffloadForecast"),
    "steps": lambda: int | None,
    "load": _command,
    "folder": lambda: Path,
    "recognize": _fact("Recognition", lambda fact: fact | Reason),
    "defaults": _fact("Defaults"),
    "geometry": _fact("Geometry"),
    "memory": _fact("MemoryNeed", lambda fact: _MAPPING[str, fact]),
    "stages": _fact("Stage", lambda fact: _SEQUENCE[fact]),
    "sizes": _fact("SizeRules"),
    "remarks": lambda: Sequence[Reason],
    "with_loras": _fact("Recognition"),
    "repositories": _repositories,
    "write_tiny": lambda: Any,
    "build": lambda: Built,
}


def isolated(kind: str, plugin: str, spec: Spec[object]) -> Spec[object]:
    """Convert the fields of a spec to plain values, and wrap its functions in ``isolation.called``.

    The wrapped functions return values that match their hints, or raise. Raises ``TypeError`` that names a wrong field.
    """
    fields = [field.name for field in attrs.fields(type(spec))]
    plain: dict[str, Any] = {}
    for name in fields:
        given = getattr(spec, name)
        hint: object = _FIELDS[name]() if name in _FIELDS else Function if name in _ANSWERS else Any
        try:
            value = taken(given, hint)
        except TypeError:
            raise TypeError(f"wrong {name}: {shown(given)}") from None
        if name in _ANSWERS and value is not None:
            value = _Isolated(f"plugin {plugin}: {name} of {kind} {plain['name']}", value, name, kind)
        plain[name] = value
    return attrs.evolve(
        spec, **{name: plain[name] for name in fields if plain[name] is not getattr(spec, name)}
    )


def default_options(spec: Spec[object]) -> object:
    """Create the default options of an implementation. Raises ``PluginFault`` if its config class fails."""
    return called(f"{spec.config.__name__}() of {spec.name}", spec.config)


class _Isolated:
    """A function of a spec whose failure becomes a one-line error. ``build`` does not count as planning."""

    def __init__(self, who: str, function: Callable[..., object], name: str, kind: str) -> None:
        self._who, self._name, self._kind = who, name, kind
        self.__wrapped__ = function

    def __call__(self, *arguments: object, **named: object) -> object:
        planning = self._name not in ("build", "write_tiny")
        return called(self._who, self._answer, *arguments, planning=planning, **named)

    def _answer(self, *arguments: object, **named: object) -> object:
        hint, given = _ANSWERS[self._name](), self.__wrapped__(*arguments, **named)
        if type(given) is hint and any(given is argument for argument in arguments):
            return given  # an argument from the core needs no check
        answer = taken(given, hint)
        if self._name == "build" and self._kind == "weight_loader":  # its opener is a function too
            opens = taken(answer, Function)
            return lambda header: called(self._who, _opened, opens, header, planning=False)
        return taken(answer, Function) if self._name == "build" and self._kind == "attention" else answer


def _opened(opens: Callable[[object], object], header: object) -> object:
    return taken(opens(header), Built)


def taken(value: object, hint: object) -> Any:
    """Check a value against a type hint, and convert it to plain types.

    Plain values are returned as they are, any sequence as a tuple, any mapping as a dict. Raises ``TypeError`` that
    shows the value if it does not match; exceptions of its methods pass.
    """
    # fast path for most values of specs: thousands of names at every start
    if type(value) is hint and hint in _ATOMS:
        return value
    origin, inner = _parts(hint)
    if hint is Any:
        return value
    if origin in (Union, UnionType):
        return _one_of(value, inner)
    if origin is Literal:
        return (
            value if any(type(value) is type(one) and value == one for one in inner) else _wrong(value, hint)
        )
    if origin in (tuple, list, Sequence, Iterable):
        return _items(value, inner)
    if origin in (frozenset, set, Set):
        if not isinstance(value, Set):
            _wrong(value, hint)
        return frozenset(taken(member, inner[0]) for member in _upto(value, MOST))
    if origin is Mapping or origin is dict:
        return _mapping(value, hint, *inner)
    # Callable, and hints that only type checkers understand
    if origin is not None or not isinstance(hint, type):
        return value
    return _plain(value, hint)


#: classes whose direct instances need no conversion
_ATOMS = frozenset({str, int, float, bool})


@cache
def _parts(hint: object) -> tuple[Any, tuple[Any, ...]]:
    return get_origin(hint), get_args(hint)


def _one_of(value: object, hints: Sequence[object]) -> object:
    if value is None and type(None) in hints:
        return None
    *others, last = [hint for hint in hints if hint is not type(None)]
    for hint in others:
        if issubclass(type(value), _class_of(hint)):
            return taken(value, hint)
    return taken(value, last)


def _class_of(hint: object) -> type:
    kind: Any = get_origin(hint) or hint
    return str if kind is Reason else kind


def _plain(value: Any, hint: type) -> object:
    """Convert a value to an instance of exactly ``hint``, without the methods of a subclass."""
    own = type(value)
    if hint in (str, Reason):
        if not issubclass(own, str):
            _wrong(value, str)
        return one_line(value) if hint is Reason else value if own is str else str.__str__(value)
    if hint is int:
        return value if own in (int, bool) else operator.index(value)
    if hint is float:
        return (
            value
            if own in (float, int)
            else float(value)
            if hasattr(own, "__float__")
            else _wrong(value, hint)
        )
    if hint is Path:
        if issubclass(own, str):
            _wrong(value, hint)
        return value if own is type(Path()) else Path(str.__str__(os.fspath(value)))
    if hint is Function:
        return value if callable(value) else _wrong(value, "function")
    if hint is Built:
        return _wrong(value, "built object") if value is None else value
    if (hint is bool and own is not bool) or not issubclass(own, hint):
        _wrong(value, hint)
    if not attrs.has(own) or hint.__name__ in _WHOLE:
        return value
    known = _hints(hint)
    given = {field.name: getattr(value, field.name) for field in attrs.fields(own) if field.init}
    plain = {name: taken(given[name], known.get(name, Any)) for name in given}
    changed = {name: plain[name] for name in given if plain[name] is not given[name]}
    return attrs.evolve(value, **changed) if changed else value


_SHAPE = tuple[int, ...]
#: classes whose fields are not checked: a header may have a hundred thousand tensors
_WHOLE = frozenset({"Header"})


@cache
def _hints(cls: type) -> Mapping[str, object]:
    return get_type_hints(cls)


def _items(value: Any, hints: Sequence[object]) -> object:
    """Convert any iterable to a tuple, except strings, bytes and mappings."""
    if isinstance(value, (str, bytes, Mapping)):
        _wrong(value, "list")
    if type(value) is tuple and len(hints) == 2 and hints[1] is Ellipsis and _all_of(value, hints[0]):
        return value
    if type(value) is tuple and len(hints) == len(value) and _are_atoms(value, hints):
        return value
    given = value if type(value) in (tuple, list) else list(_upto(value, MOST))
    if (len(hints) == 2 and hints[1] is Ellipsis) or len(hints) == 1:
        each: Sequence[object] = [hints[0]] * len(given)
    elif len(hints) == len(given):
        each = hints
    else:
        raise TypeError(f"returned {len(given)} items, not {len(hints)}")
    plain = tuple(taken(member, hint) for member, hint in zip(given, each, strict=True))
    same = type(value) is tuple and all(new is old for new, old in zip(plain, value, strict=True))
    return value if same else plain


def _are_atoms(value: tuple[object, ...], hints: Sequence[object]) -> bool:
    return all(type(part) is hint and hint in _ATOMS for part, hint in zip(value, hints, strict=True))


def _mapping(value: object, hint: object, keys: object, values: object) -> object:
    if not isinstance(value, Mapping):
        _wrong(value, hint)
    plain_class = type(value) in (dict, MappingProxyType)
    if plain_class and keys is str and _are_shapes(value, values):
        return value
    pairs = value.items() if plain_class else list(_upto(value.items(), MOST_KEYS))
    plain = {taken(key, keys): taken(entry, values) for key, entry in pairs}
    same = plain_class and all(plain[key] is entry and type(key) in _HASHED for key, entry in pairs)
    return value if same else plain


_HASHED = (str, int)
#: classes whose direct instances are plain
_EXACT = frozenset({str, int, float})


def _all_of(items: tuple[object, ...], hint: object) -> bool:
    """Return True if every item is an instance of exactly the class ``hint``."""
    return hint in _EXACT and {*map(type, items)} <= {hint}


def _are_shapes(value: Mapping[Any, Any], hint: object) -> bool:
    """Return True if a mapping is from strings to tuples of integers, as the hint requires.

    Every plan checks the shapes of thousands of tensors, so this avoids a call for each.
    """
    if hint != _SHAPE or {*map(type, value)} - {str}:
        return False
    if {*map(type, value.values())} - {tuple}:
        return False
    return {type(size) for shape in value.values() for size in shape} <= {int}


def _upto(items: Iterable[T], most: int) -> Iterable[T]:
    given = iter(items)
    yield from islice(given, most)
    for _ in given:
        raise TypeError(f"endless: more than {most} items")


def _wrong(value: object, hint: object) -> NoReturn:
    name = getattr(hint, "__name__", None) or str(hint)
    raise TypeError(f"returned {shown(value)} ({kind_of(value)}), not {name}")
