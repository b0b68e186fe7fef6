"""lightx2v-core: composes Wan video generation runs from separately installed plugins.

``load`` and ``generate`` are the Python interface; they are resolved on first use, so importing this package
imports neither torch nor any plugin.
"""

from __future__ import annotations

from lightx2v_core.spec.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
