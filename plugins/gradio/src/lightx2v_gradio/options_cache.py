"""A cache of the options of model folders. Finding them takes seconds of CPU time, and many users may do so at once: at
most two folders are inspected at a time, requests for the same one share the result, and each has a time limit."""

from __future__ import annotations

import asyncio
import threading
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor

from lightx2v_core.api import LightX2VError, PluginSet
from lightx2v_gradio.options import FolderOptions, ModelSource, find_options
from lightx2v_gradio.texts import PageError

#: most remembered pairs of folder and task
_MAX_CACHED = 64
#: most folders under inspection at the same time, and most that wait for it
_MAX_RUNNING, _MAX_WAITING = 2, 8
#: longest wait for an inspection
_TIMEOUT_SECONDS = 20.0
_Key = tuple[str, str | None]


class OptionsCache:
    """Options of model folders, found once for all listeners, in a thread pool so that the event loop never waits."""

    def __init__(self, first: FolderOptions, plugins: PluginSet) -> None:
        self._plugins = plugins
        self._cached: dict[_Key, FolderOptions] = {}
        self._pending: dict[_Key, Future[FolderOptions]] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(_MAX_RUNNING, "lightx2v-options")
        self._store(first.source, first)

    async def get(self, source: ModelSource) -> FolderOptions:
        """Find the options of a source again. ``RequestError`` (or a subclass) when it has none, or when too many
        inspections wait."""
        pending = asyncio.wrap_future(self._submit(source))
        try:
            return await asyncio.wait_for(asyncio.shield(pending), _TIMEOUT_SECONDS)
        except asyncio.TimeoutError:
            raise _timeout_error(source) from None

    def get_cached(self, source: ModelSource) -> FolderOptions:
        """Return the options of a source as found last; find them if they are not cached."""
        with self._lock:
            options = self._cached.get((source.folder, source.task))
        if options is not None:
            return options
        try:
            return self._submit(source).result(_TIMEOUT_SECONDS)
        except futures.TimeoutError:
            raise _timeout_error(source) from None

    def _submit(self, source: ModelSource) -> Future[FolderOptions]:
        key = (source.folder, source.task)
        with self._lock:
            pending = self._pending.get(key)
            if pending is not None:
                return pending
            if len(self._pending) >= _MAX_RUNNING + _MAX_WAITING:
                raise PageError("error.busy", count=len(self._pending), folder=repr(source.folder))
            pending = self._pending[key] = self._pool.submit(self._compute, source)
            return pending

    def _compute(self, source: ModelSource) -> FolderOptions:
        try:
            options = find_options(source, self._plugins)
            self._store(source, options)
            return options
        except LightX2VError:
            raise
        except Exception as exc:  # any trouble with a folder is reported to the user who named it
            reason = (
                exc.strerror if isinstance(exc, OSError) and exc.strerror else f"{type(exc).__name__}: {exc}"
            )
            raise PageError("error.inspect", folder=repr(source.folder), reason=reason) from exc
        finally:
            with self._lock:
                del self._pending[(source.folder, source.task)]

    def _store(self, source: ModelSource, options: FolderOptions) -> None:
        with self._lock:
            for key in ((source.folder, source.task), (options.source.folder, options.source.task)):
                self._cached[key] = options
            while len(self._cached) > _MAX_CACHED:
                del self._cached[next(iter(self._cached))]


def _timeout_error(source: ModelSource) -> PageError:
    return PageError("error.timeout", folder=repr(source.folder), seconds=round(_TIMEOUT_SECONDS))
