"""What other plugins may build on: the Wan networks, their sizes, and the prompt encoder.

A name is imported when it is first used: discovery needs a few of them, and plan-time code may not import torch. The
names stand in ``api.pyi``.
"""

from __future__ import annotations

from lightx2v_core.api import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
