"""The Python interface; ``__init__.py`` imports each name on first use."""

from lightx2v_core.runtime.pipeline import Pipeline as Pipeline
from lightx2v_core.runtime.pipeline import Video as Video
from lightx2v_core.runtime.pipeline import load as load
from lightx2v_core.spec.version import __version__ as __version__
