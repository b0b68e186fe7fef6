"""Transfer of one file: missing bytes are requested, appended, counted and hashed.

huggingface_hub supplies the session, addresses, headers and errors. Its own ``hf_hub_download`` is not used: since
version 1.0 it discards a partial file when interrupted, which for 30 GB can be hours of work, and it writes chunks of
10 MB, which are lost whenever a slow connection drops.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, BinaryIO

from lightx2v_hub.local import FileState, feed, new_hash
from lightx2v_hub.remote import RemoteFile


class Partial:
    """A partial file, which grows at its end or restarts. ``count`` gets every change of its size, in bytes."""

    def __init__(self, file: Any, state: FileState, count: Callable[[int], None]) -> None:
        self._file: BinaryIO = file
        self._remote = state.file.remote
        self._count = count
        self.size = 0
        self.hashing = new_hash(self._remote)
        begun = os.fstat(file.fileno()).st_size
        if begun > self._remote.size:
            self._file.truncate(0)
        elif begun:
            feed(self.hashing, state.partial, lambda _bytes: count(0))
            self.size = begun

    @property
    def matches(self) -> bool:
        """Return whether the file is complete and has the expected hash."""
        return self.size == self._remote.size and bool(self.hashing.hexdigest() == self._remote.etag)

    def append(self, piece: bytes) -> None:
        """Write a chunk at the end and add it to the hash."""
        view = memoryview(piece)
        while view:  # an unbuffered write may be partial
            taken = self._file.write(view)
            self.hashing.update(view[:taken])
            self.size += taken
            self._count(taken)
            view = view[taken:]

    def restart(self) -> None:
        """Discard the content."""
        self._file.truncate(0)
        self._count(-self.size)
        self.size, self.hashing = 0, new_hash(self._remote)


def request_rest(partial: Partial, remote: RemoteFile) -> None:
    """Request all missing bytes once. A response that ends early is not an error.

    Raises the exceptions of the HTTP library and of huggingface_hub.
    """
    from huggingface_hub import constants, hf_hub_url

    utils = _utils()
    url = hf_hub_url(remote.repo, remote.path, revision=remote.commit, endpoint=constants.ENDPOINT)
    # without compression, offsets in the response are offsets in the file
    headers = {**utils.build_hf_headers(library_name="lightx2v-core"), "Accept-Encoding": "identity"}
    if partial.size:
        headers["Range"] = f"bytes={partial.size}-"
    with _answer(url, headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT) as (response, pieces):
        utils.hf_raise_for_status(response)
        if partial.size and response.status_code != 206:  # the server sends the whole file again
            partial.restart()
        for piece in pieces():
            partial.append(piece[: remote.size - partial.size + 1])
            if partial.size > remote.size:
                return


Pieces = Callable[[], Iterator[bytes]]


@contextmanager
def _answer(url: str, headers: dict[str, str], *, timeout: float) -> Iterator[tuple[Any, Pieces]]:
    """Send a GET with httpx, or with requests before huggingface_hub 1.0; yield the response and its body reader.

    The body is read as it arrives: with a fixed chunk size, a started chunk would be lost when the connection drops.
    """
    session = _utils().get_session()
    if callable(session.stream):  # in requests, ``stream`` is a setting
        with session.stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True) as response:
            yield response, lambda: response.iter_bytes()
    else:
        with session.get(url, headers=headers, timeout=timeout, stream=True) as response:
            yield response, lambda: response.iter_content(chunk_size=1 << 16)


def _utils() -> Any:
    """Import ``huggingface_hub.utils``, whose documented functions type checkers do not see as exported."""
    return import_module("huggingface_hub.utils")
