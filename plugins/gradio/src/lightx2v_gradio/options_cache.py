"""A cache of the options of model folders. Finding them takes seconds of a processor, and many people may ask at once:
one or two folders are inspected at a time, requests for the same one share the answer, and each has a time limit."""

from __future__ import annotations

import asyncio
import threading
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor

from lightx2v_core.api import LightX2VError, PluginSet, RequestError
from lightx2v_gradio.options import FolderOptions, ModelSource, find_options

#: folders and tasks that are remembered
_MAX_CACHED = 64
#: folders that are inspected at the same time, and that may wait for it
_MAX_RUNNING, _MAX_WAITING = 2, 8
#: seconds after which somebody who waits is told to come again
_TIMEOUT_SECONDS = 20.0
_Key = tuple[str, str | None]


class OptionsCache:
    """Options of model folders, found once for all listeners, in threads of their own so that nothing else waits."""

    def __init__(self, first: FolderOptions, plugins: PluginSet) -> None:
        self._plugins = plugins
        self._cached: dict[_Key, FolderOptions] = {}
        self._pending: dict[_Key, Future[FolderOptions]] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(_MAX_RUNNING, "lightx2v-options")
        self._store(first.source, first)

    async def get(self, source: ModelSource) -> FolderOptions:
        """Find the options of a source now. ``RequestError`` (and its kinds) when there are none, or too many ask."""
        pending = asyncio.wrap_future(self._submit(source))
        try:
            return await asyncio.wait_for(asyncio.shield(pending), _TIMEOUT_SECONDS)
        except asyncio.TimeoutError:
            raise _timeout_error(source) from None

    def get_cached(self, source: ModelSource) -> FolderOptions:
        """The options of a source as they were found last; found now when they are not cached."""
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
                raise RequestError(
                    f"{len(self._pending)} other folders are being looked at, and {source.folder!r} is none of them; "
                    "try again in half a minute"
                )
            pending = self._pending[key] = self._pool.submit(self._compute, source)
            return pending

    def _compute(self, source: ModelSource) -> FolderOptions:
        try:
            options = find_options(source, self._plugins)
            self._store(source, options)
            return options
        except LightX2VError:
            raise
        except Exception as exc:  # whatever a folder on this machine does, it is said to who named it
            reason = (
                exc.strerror if isinstance(exc, OSError) and exc.strerror else f"{type(exc).__name__}: {exc}"
            )
            raise RequestError(f"{source.folder!r} cannot be looked at: {reason}") from exc
        finally:
            with self._lock:
                del self._pending[(source.folder, source.task)]

    def _store(self, source: ModelSource, options: FolderOptions) -> None:
        with self._lock:
            for key in ((source.folder, source.task), (options.source.folder, options.source.task)):
                self._cached[key] = options
            while len(self._cached) > _MAX_CACHED:
                del self._cached[next(iter(self._cached))]


def _timeout_error(source: ModelSource) -> RequestError:
    return RequestError(
        f"{source.folder!r} was not looked at within {_TIMEOUT_SECONDS:.0f} s; try again in a minute"
    )
