"""How a field of the configuration can be set, declared once, at the field.

These declarations define the options of ``run`` and ``plan``, the keyword arguments of ``load``, ``generate`` and
``plan_run``, the values that a request may change, the keys of LightX2V's flat vocabulary that correspond to a single
field, the JSON Schema and docs/config.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from attrs import Attribute, field, frozen

from lightx2v_core.config.texts import parse_bytes, parse_size

#: scope of a keyword argument: ``load`` only; ``load`` and each request; an input of each request, by path or in memory
Keyword = Literal["", "load", "request", "input"]


@frozen(kw_only=True)
class ShortForm:
    """An abbreviated value of a field in a configuration file."""

    #: JSON type
    kind: Literal["string", "number"]
    read: Callable[[Any], object]
    #: JSON Schema pattern of strings
    pattern: str = ""

    def fits(self, value: object) -> bool:
        """Return whether a value is written in short form."""
        return isinstance(value, str) if self.kind == "string" else type(value) in (int, float)


SIZE = ShortForm(kind="string", read=parse_size, pattern=r"^\s*\d+\s*[xX*×]\s*\d+\s*$")
BYTES = ShortForm(kind="string", read=parse_bytes, pattern=r"\d")
ONE_NUMBER = ShortForm(kind="number", read=lambda number: [number])


@frozen(kw_only=True)
class Option:
    """An option of ``run`` and ``plan`` that sets a field."""

    names: tuple[str, ...]
    #: help of the option; empty: the help of the field
    help: str = ""
    #: name of the value in the help; empty: derived from the type of the field
    metavar: str = ""
    #: parser of its text; None: derived from the type of the field
    read: Callable[[str], object] | None = None
    #: repeatable: one entry of the field each time
    multiple: bool = False


@frozen(kw_only=True)
class Knob:
    """How a field can be set."""

    help: str
    option: Option | None = None
    keyword: Keyword = ""
    #: the key of LightX2V's flat vocabulary that corresponds to this field alone
    flat: str = ""
    short: ShortForm | None = None


def declared(
    help: str,
    *options: str,
    option_help: str = "",
    metavar: str = "",
    read: Callable[[str], object] | None = None,
    multiple: bool = False,
    keyword: Keyword = "",
    flat: str = "",
    short: ShortForm | None = None,
) -> dict[str, object]:
    """Build the metadata of a field: its help, and how it can be set. ``options`` are the spellings of its option."""
    option = Option(names=options, help=option_help, metavar=metavar, read=read, multiple=multiple)
    knob = Knob(help=help, option=option if options else None, keyword=keyword, flat=flat, short=short)
    return {"help": help, "knob": knob}


def given(default: object, *words: str, validator: Any = None, **knob: Any) -> Any:
    """Define a field with a default; the other arguments are those of ``declared``."""
    return field(default=default, validator=validator, metadata=declared(*words, **knob))


def knob_of(field: Attribute[Any]) -> Knob:
    """Return the declaration of a field of the configuration."""
    metadata: Mapping[str, Knob] = field.metadata
    return metadata["knob"]
