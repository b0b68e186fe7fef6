"""All settings of a run, as declared by the fields of the configuration."""

from __future__ import annotations

import types
from collections.abc import Iterator
from functools import cache
from typing import Union, get_args, get_origin, get_type_hints

import attrs
from attrs import frozen

from lightx2v_core.config.knob import Knob, knob_of
from lightx2v_core.config.model import ComponentConfig, RunConfig, Section


@frozen(kw_only=True)
class Setting:
    """A key of the configuration: its path, its type and the declaration of its field."""

    path: tuple[str, ...]
    #: type of its value, without the None of an unset value
    kind: object
    #: default value; None if there is no single default
    default: object
    knob: Knob

    @property
    def name(self) -> str:
        """Return the name of its keyword argument."""
        return self.path[-1]


@cache
def settings() -> tuple[Setting, ...]:
    """List every key of the configuration that has a value, in the order of the fields."""
    return tuple(_settings(RunConfig, ()))


def _settings(cls: type[attrs.AttrsInstance], above: tuple[str, ...]) -> Iterator[Setting]:
    hints = get_type_hints(cls)
    for field in attrs.fields(cls):
        kind, path = _plain(hints[field.name]), (*above, field.name)
        if isinstance(kind, type) and attrs.has(kind) and kind is not Section:
            yield from _settings(kind, path)
            continue
        default = None if isinstance(field.default, attrs.Factory) else field.default  # type: ignore[arg-type]
        yield Setting(path=path, kind=kind, default=default, knob=knob_of(field))


def _plain(hint: object) -> object:
    """Return a type without None."""
    if get_origin(hint) not in (Union, types.UnionType):
        return hint
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    return kinds[0] if len(kinds) == 1 else hint


def _sections(cls: type[attrs.AttrsInstance]) -> tuple[str, ...]:
    hints = get_type_hints(cls)
    return tuple(field.name for field in attrs.fields(cls) if _plain(hints[field.name]) is Section)


#: keys that choose an implementation and may be written in short form
SECTIONS = _sections(RunConfig)
#: such keys of a component
COMPONENT_SECTIONS = _sections(ComponentConfig)
