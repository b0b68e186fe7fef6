"""The API of this plugin for other plugins: the Wan networks, their sizes, and the prompt encoder.

Names are imported on first use: discovery needs a few of them, and plan-time code must not import torch. The names are
listed in ``api.pyi``.
"""

from __future__ import annotations

from lightx2v_core.api import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
