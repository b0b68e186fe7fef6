"""lightx2v-core: video generation with Wan models, composed of separately installed plugins.

The Python interface is ``load`` and ``Pipeline``. Names are resolved on first use: importing this package imports
neither torch nor any plugin.
"""

from __future__ import annotations

from lightx2v_core.spec.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
