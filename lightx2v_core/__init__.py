"""lightx2v-core: composes Wan video generation runs from separately installed plugins.

``load`` and ``generate`` are the Python interface; they are resolved on first use, so importing this package
imports neither torch nor any plugin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightx2v_core.run import Pipeline as Pipeline
    from lightx2v_core.run import Video as Video
    from lightx2v_core.run import load as load

__version__ = "0.1.0"
__all__ = ["Pipeline", "Video", "__version__", "load"]


def __getattr__(name: str) -> object:
    if name in __all__:
        from lightx2v_core import run

        return getattr(run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
