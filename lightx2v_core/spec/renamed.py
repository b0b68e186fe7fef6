"""Deprecated names: they work until a stated version, with a warning.

While a plugin is loaded, the deprecated names that it uses are collected into one warning of the program. Anywhere
else they issue Python's own ``DeprecationWarning``.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

#: old name in the public API (qualified by class for fields, by module for others) -> current name
ALIASES: Mapping[str, str] = {
    "ModelSpec.recognise": "recognize",
    "Pipeline.weigh_lora": "set_lora_strength",
    "lightx2v_core.api.decode_weight": "dequantize_weight",
    "lightx2v_core.api.encode_weight": "quantize_weight",
    "lightx2v_core.api.token_codes": "quantize_tokens",
}
#: the version that removes the old names
UNTIL = "0.3"
_noted: ContextVar[list[str] | None] = ContextVar("old names that a plugin uses", default=None)


def renamed_fields(owner: str, given: Mapping[str, object]) -> dict[str, object]:
    """Return arguments of the class ``owner`` under the current names of its fields.

    Raises ``TypeError`` for a field that is given under both names.
    """
    renamed = dict(given)
    for old in given:
        if (new := ALIASES.get(f"{owner}.{old}")) is None:
            continue
        if new in given:
            raise TypeError(f"{owner}: {old} is the old name of {new}; give one of them")
        warn_renamed(f"{owner}.{old}", stacklevel=4)
        renamed[new] = renamed.pop(old)
    return renamed


def warn_renamed(old: str, *, stacklevel: int = 3) -> None:
    """Warn about ``old``, one of ``ALIASES``, with its current name and the version that removes it."""
    new = ALIASES[old]
    text = f"{old}, which is called {new} now (the old name goes in lightx2v-core {UNTIL})"
    noted = _noted.get()
    if noted is None:
        warnings.warn(f"this uses {text}", DeprecationWarning, stacklevel=stacklevel)
    elif text not in noted:
        noted.append(text)


@contextmanager
def old_names_noted() -> Iterator[list[str]]:
    """Collect the messages about old names in this context, in place of Python warnings."""
    noted: list[str] = []
    token = _noted.set(noted)
    try:
        yield noted
    finally:
        _noted.reset(token)
