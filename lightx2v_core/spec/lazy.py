"""Modules whose names are imported on first access, as listed in a stub.

The stub ``api.pyi`` next to ``api.py`` is the single list of names and their origins, for type checkers and for this
module::

    from package.module import Name as Name

Importing ``api`` therefore imports nothing else. Only imports in this form are read: one name per line. Deprecated
names (``renamed.ALIASES``) are not in the stub: they resolve too, with a warning.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from importlib import import_module

from lightx2v_core.spec.renamed import ALIASES, warn_renamed

_LINE = re.compile(r"^from ([\w.]+) import (\w+) as (\w+)$", re.MULTILINE)


def lazy_names(module: str, file: str) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """Return ``__getattr__``, ``__dir__`` and ``__all__`` for a module whose names are listed in its stub.

    ``module`` and ``file`` are its ``__name__`` and ``__file__``. ``__getattr__`` raises ``AttributeError`` for names
    that are neither in the stub nor deprecated.
    """
    with open(f"{file.removesuffix('.py')}.pyi", encoding="utf-8") as stub:
        places = {name: (home, original) for home, original, name in _LINE.findall(stub.read())}

    def get(name: str) -> object:
        if (new := ALIASES.get(f"{module}.{name}")) is not None:
            warn_renamed(f"{module}.{name}")
            return get(new)
        if name not in places:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, original = places[name]
        value: object = getattr(import_module(home), original)
        setattr(sys.modules[module], name, value)
        return value

    names = sorted(places)
    return get, lambda: [*vars(sys.modules[module]), *names], names
