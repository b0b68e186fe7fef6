"""What a field of the configuration is to those who set it, declared once, beside the field.

From this come the options of ``run`` and ``plan``, the keyword arguments of ``load``, ``generate`` and ``plan_run``,
what a request may change, the keys of LightX2V's flat vocabulary that mean one field each, the JSON Schema and
docs/config.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from attrs import Attribute, field, frozen

from lightx2v_core.config.texts import parse_bytes, parse_size

#: what takes a field as a keyword argument: ``load`` alone; ``load`` and each request; each request alone, by a path or
#: in memory
Keyword = Literal["", "load", "request", "input"]


@frozen(kw_only=True)
class ShortForm:
    """A shorter value that a file may have in a field's place."""

    #: its JSON type
    kind: Literal["string", "number"]
    read: Callable[[Any], object]
    #: the JSON Schema of its texts
    pattern: str = ""

    def fits(self, value: object) -> bool:
        """Whether a value is written in short."""
        return isinstance(value, str) if self.kind == "string" else type(value) in (int, float)


SIZE = ShortForm(kind="string", read=parse_size, pattern=r"^\s*\d+\s*[xX*×]\s*\d+\s*$")
BYTES = ShortForm(kind="string", read=parse_bytes, pattern=r"\d")
ONE_NUMBER = ShortForm(kind="number", read=lambda number: [number])


@frozen(kw_only=True)
class Option:
    """An option of ``run`` and ``plan`` that sets a field."""

    names: tuple[str, ...]
    #: help of the option; empty: that of the field
    help: str = ""
    #: what its value is called; empty: what the type of the field says
    metavar: str = ""
    #: how its text is read; None: as the type of the field says
    read: Callable[[str], object] | None = None
    #: it is given again for each entry of the field
    multiple: bool = False


@frozen(kw_only=True)
class Knob:
    """How a field can be set."""

    help: str
    option: Option | None = None
    keyword: Keyword = ""
    #: the key of LightX2V's flat vocabulary that means just this field
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
    """The metadata of a field: its help, and how it can be set; ``options`` are the spellings of its option."""
    option = Option(names=options, help=option_help, metavar=metavar, read=read, multiple=multiple)
    knob = Knob(help=help, option=option if options else None, keyword=keyword, flat=flat, short=short)
    return {"help": help, "knob": knob}


def given(default: object, *words: str, validator: Any = None, **knob: Any) -> Any:
    """A field with a default; its other arguments are those of ``declared``."""
    return field(default=default, validator=validator, metadata=declared(*words, **knob))


def knob_of(field: Attribute[Any]) -> Knob:
    """The declaration of a field of the configuration."""
    metadata: Mapping[str, Knob] = field.metadata
    return metadata["knob"]
