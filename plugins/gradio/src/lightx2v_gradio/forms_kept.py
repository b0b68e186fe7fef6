"""The form of a session while its page is loaded again in another language."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from lightx2v_gradio.options import ModelSource
from lightx2v_gradio.settings import Settings

#: seconds within which the page has to load, and most sessions that are remembered
_SECONDS, _MAX_SESSIONS = 60.0, 200


class KeptForms:
    """Models and settings by session, each for one reload."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[str, tuple[float, ModelSource, Settings]] = {}
        self._lock = threading.Lock()

    def keep(self, session: str, source: ModelSource, settings: Settings) -> None:
        """Remember the form of a session."""
        with self._lock:
            self._kept.pop(session, None)
            self._kept[session] = (self._clock(), source, settings)
            while len(self._kept) > _MAX_SESSIONS:
                del self._kept[next(iter(self._kept))]

    def take(self, session: str) -> tuple[ModelSource, Settings] | None:
        """Remove and return the form of a session; None without a recent one."""
        with self._lock:
            kept = self._kept.pop(session, None)
        if kept is None or self._clock() - kept[0] > _SECONDS:
            return None
        return kept[1:]
