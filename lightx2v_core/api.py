"""The public API for plugin authors. Importing it imports no torch.

Everything that a plugin may depend on is here, in ``lightx2v_core.weights`` or in ``lightx2v_core.testing``; other
modules may change at any time. The names are listed in ``api.pyi``.
"""

from __future__ import annotations

from lightx2v_core.spec.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
