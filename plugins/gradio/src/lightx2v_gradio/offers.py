"""What was found out about folders. Looking at one takes seconds of a processor, and many people may ask at once: they
are looked at one or two at a time, those who ask for the same one share the answer, and everybody gets one in time."""

from __future__ import annotations

import asyncio
import threading
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor

from lightx2v_core.api import LightX2VError, PluginSet, RequestError
from lightx2v_gradio.offer import Offer, Place, offer

#: folders and tasks that are remembered
_FOLDERS = 64
#: folders that are looked at at once, and that may wait for it
_AT_ONCE, _WAITING = 2, 8
#: seconds after which somebody who waits is told to come again
_PATIENCE = 20.0
_Key = tuple[str, str | None]


class Offers:
    """What folders offer, looked up once for all listeners. Threads of its own do it, so that nothing else waits."""

    def __init__(self, first: Offer, plugins: PluginSet) -> None:
        self._plugins = plugins
        self._known: dict[_Key, Offer] = {}
        self._asked: dict[_Key, Future[Offer]] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(_AT_ONCE, "lightx2v-looking")
        self._keep(first.place, first)

    async def look(self, place: Place) -> Offer:
        """What a place offers now. ``RequestError`` (and its kinds) when it is nothing, or when too many ask."""
        asked = asyncio.wrap_future(self._ask(place))
        try:
            return await asyncio.wait_for(asyncio.shield(asked), _PATIENCE)
        except asyncio.TimeoutError:
            raise _late(place) from None

    def known(self, place: Place) -> Offer:
        """What a place offered when somebody looked last."""
        with self._lock:
            found = self._known.get((place.folder, place.task))
        if found is not None:
            return found
        try:
            return self._ask(place).result(_PATIENCE)
        except futures.TimeoutError:
            raise _late(place) from None

    def _ask(self, place: Place) -> Future[Offer]:
        key = (place.folder, place.task)
        with self._lock:
            asked = self._asked.get(key)
            if asked is not None:
                return asked
            if len(self._asked) >= _AT_ONCE + _WAITING:
                raise RequestError(
                    f"{len(self._asked)} other folders are being looked at, and {place.folder!r} is none of them; "
                    "try again in half a minute"
                )
            asked = self._asked[key] = self._pool.submit(self._found, place)
            return asked

    def _found(self, place: Place) -> Offer:
        try:
            found = offer(place, self._plugins)
            self._keep(place, found)
            return found
        except LightX2VError:
            raise
        except Exception as exc:  # whatever a folder on this machine does, it is said to who named it
            said = (
                exc.strerror if isinstance(exc, OSError) and exc.strerror else f"{type(exc).__name__}: {exc}"
            )
            raise RequestError(f"{place.folder!r} cannot be looked at: {said}") from exc
        finally:
            with self._lock:
                del self._asked[(place.folder, place.task)]

    def _keep(self, place: Place, found: Offer) -> None:
        with self._lock:
            for key in ((place.folder, place.task), (found.place.folder, found.place.task)):
                self._known[key] = found
            while len(self._known) > _FOLDERS:
                del self._known[next(iter(self._known))]


def _late(place: Place) -> RequestError:
    return RequestError(f"{place.folder!r} was not looked at within {_PATIENCE:.0f} s; try again in a minute")
