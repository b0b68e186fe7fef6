"""Strict structuring of plain data into attrs classes: no silent conversions or unknown keys, all errors at once."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, TypeVar, get_args

import attrs
from cattrs import Converter, transform_error
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError, IterableValidationError

from lightx2v_core.errors import ConfigError, first_lines, suggestion

T = TypeVar("T")

#: errors listed in a message; the others are counted
_SHOWN = 15
#: characters of one error
_LONGEST = 2000


#: converter of a value to an instance of a class
Structure = Callable[[object, Any], object]
#: maps the path of an error to its place in a file; empty if unknown
Place = Callable[[tuple[str | int, ...]], str]


def _nowhere(_path: tuple[str | int, ...]) -> str:
    return ""


def structure(
    data: object,
    cls: type[T],
    *,
    path: str = "$",
    where: str = "configuration",
    place: Place = _nowhere,
    more_keys: Iterable[str] = (),
) -> T:
    """Structure ``data`` into an instance of ``cls``.

    Raises ``ConfigError`` listing every error with its path and its ``place``. ``path`` is the path of ``data``;
    ``more_keys`` are suggested for an unknown key in addition to those of ``cls``.
    """

    explained = 0

    def explain(exc: BaseException, _kind: object) -> str:
        nonlocal explained
        explained += 1
        if explained > _SHOWN:  # not shown, and the search for similar names is slow
            return ""
        return _explain(exc, more_keys if getattr(exc, "cl", None) is cls else ())[:_LONGEST]

    try:
        return _converter().structure(data, cls)
    except (ClassValidationError, IterableValidationError, ValueError, TypeError, KeyError) as exc:
        mistakes = transform_error(exc, path=path, format_exception=explain)
        problems = first_lines(
            [_placed(line, place) for line in mistakes[:_SHOWN]] + mistakes[_SHOWN:], _SHOWN
        )
        raise ConfigError(
            "\n".join([f"{where} is not valid:", *(f"  {line}" for line in problems)])
        ) from None


_STEP = re.compile(r"\.(\w+)|\['((?:[^'\\]|\\.)*)'\]|\[(\d+)\]")
_KEY = re.compile(r"(?:unknown key )?'(\w+)'")


def _placed(line: str, place: Place) -> str:
    """Append its place in the file to an error."""
    message, _, path = line.rpartition(" @ $")
    steps = [int(index) if index else name or quoted for name, quoted, index in _STEP.findall(path)]
    named = _KEY.match(message)  # an unknown key, or the field named by a validator
    at = place((*steps, *([named.group(1)] if named else [])))
    return f"{line} ({at})" if at else line


def unstructure(value: object) -> Any:
    """Convert attrs instances to plain JSON data."""
    return _converter().unstructure(value)


@cache
def _converter() -> Converter:
    converter = Converter(forbid_extra_keys=True)
    for kind in (bool, int, float, str):
        converter.register_structure_hook(kind, _exact)
    converter.register_structure_hook_func(
        lambda cls: getattr(cls, "__origin__", None) is tuple, _tuple(converter)
    )
    converter.register_structure_hook_func(attrs.has, _object(converter))
    converter.register_structure_hook_func(_is_literal, _literal)
    return converter


def _exact(value: object, kind: type[object]) -> object:
    """Return the value if it has exactly this JSON type; an integer is accepted for a float, a bool never.

    Raises ``TypeError`` for another type, and ``ValueError`` for invalid text and numbers that are not finite.
    """
    accepted = (int, float) if kind is float else (kind,)
    if type(value) not in accepted:
        raise TypeError(f"expected {_word(kind)}, got {_word(type(value))} {_short(value)}")
    if isinstance(value, str) and not is_text(value):
        raise ValueError(f"{_short(value)} is not valid text: it contains NUL or a lone surrogate")
    if kind is not float or not isinstance(value, int | float):
        return value
    if not abs(value) <= sys.float_info.max:
        raise ValueError(f"expected a finite number, got {_short(value)}")
    return float(value)


def is_text(value: str) -> bool:
    """Return whether a string is valid in a run record, a file name and a tokenizer: UTF-8 without NUL."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value


def _short(value: object) -> str:
    text = repr(value[:200] if isinstance(value, str | list) else value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _object(converter: Converter) -> Structure:
    def build(value: object, cls: type[object]) -> object:
        if not isinstance(value, Mapping):
            raise TypeError(f"expected an object, got {_word(type(value))} {_short(value)}")
        return make(value, cls)

    from cattrs.gen import make_dict_structure_fn

    made: dict[type[object], Callable[[Mapping[str, object], Any], object]] = {}

    def make(value: Mapping[str, object], cls: type[object]) -> object:
        if cls not in made:
            made[cls] = make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True)
        return made[cls](value, cls)

    return build


def _tuple(converter: Converter) -> Structure:
    def build(value: object, cls: object) -> object:
        if not isinstance(value, list | tuple):
            raise TypeError(f"expected a list, got {_word(type(value))} {_short(value)}")
        kinds = get_args(cls)
        if len(kinds) == 2 and kinds[1] is Ellipsis:
            return tuple(converter.structure(list(value), list[kinds[0]]))  # type: ignore[valid-type]
        if len(value) != len(kinds):
            raise ValueError(f"expected {len(kinds)} values, got {len(value)}")
        return tuple(converter.structure(part, kind) for part, kind in zip(value, kinds, strict=True))

    return build


def _is_literal(cls: object) -> bool:
    return str(getattr(cls, "__origin__", "")) == "typing.Literal"


def _literal(value: object, cls: object) -> object:
    allowed = get_args(cls)
    if value not in allowed or type(value) not in {type(choice) for choice in allowed}:
        choices = ", ".join(repr(choice) for choice in allowed)
        raise ValueError(
            f"{_short(value)} is not one of {choices}{suggestion(str(value), map(str, allowed))}"
        )
    return value


def _explain(exc: BaseException, more_keys: Iterable[str]) -> str:
    """Describe one error; cattrs adds its path."""
    if isinstance(exc, ForbiddenExtraKeysError):
        known = [*(field.name for field in attrs.fields(exc.cl)), *more_keys]
        extra = sorted(exc.extra_fields)
        shown = "; ".join(f"unknown key {_short(key)}{suggestion(key, known)}" for key in extra[:_SHOWN])
        return shown if len(extra) <= _SHOWN else f"{shown}; and {len(extra) - _SHOWN} more unknown keys"
    if isinstance(exc, KeyError):
        hint = ", the name of the implementation that these options are for" if exc.args[0] == "use" else ""
        return f"the key {exc.args[0]!r} is required{hint}"
    return str(exc)


def _word(kind: type[object]) -> str:
    return {
        bool: "true or false", int: "an integer", float: "a number", str: "a string", dict: "an object",
        list: "a list", tuple: "a list", type(None): "null",
    }.get(kind, kind.__name__)  # fmt: skip
