"""Names that were replaced: they work until a version that is named, and say so.

While a plugin is loaded, what it uses of them is noted, and becomes one warning of the program. Anywhere else Python's
own ``DeprecationWarning`` tells of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

#: old names of the public interface, fields by their class and others by their module -> what they are called now
ALIASES: Mapping[str, str] = {
    "ModelSpec.recognise": "recognize",
    "Pipeline.weigh_lora": "set_lora_strength",
    "lightx2v_core.api.decode_weight": "dequantize_weight",
    "lightx2v_core.api.encode_weight": "quantize_weight",
    "lightx2v_core.api.token_codes": "quantize_tokens",
}
#: the version in which old names go
UNTIL = "0.3"
_noted: ContextVar[list[str] | None] = ContextVar("old names that a plugin uses", default=None)


def renamed_fields(owner: str, given: Mapping[str, object]) -> dict[str, object]:
    """Return arguments of the class ``owner`` under the names that its fields have now.

    A field that is given under both names is a ``TypeError``.
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
    """Say what ``old``, one of ``ALIASES``, is called now, and until when it works."""
    new = ALIASES[old]
    text = f"{old}, which is called {new} now (the old name goes in lightx2v-core {UNTIL})"
    noted = _noted.get()
    if noted is None:
        warnings.warn(f"this uses {text}", DeprecationWarning, stacklevel=stacklevel)
    elif text not in noted:
        noted.append(text)


@contextmanager
def old_names_noted() -> Iterator[list[str]]:
    """Collects what is said of old names in this context, in the place of warnings of Python."""
    noted: list[str] = []
    token = _noted.set(noted)
    try:
        yield noted
    finally:
        _noted.reset(token)
