"""The public API for reading, changing and writing checkpoints. Importing it imports no torch.

Headers, sources, specs and errors are in ``lightx2v_core.api``. The names are listed in ``weights.pyi``; they are as
stable as those of ``api``.
"""

from __future__ import annotations

from lightx2v_core.spec.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
