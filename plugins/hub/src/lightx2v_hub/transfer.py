"""One file on its way: the bytes that are missing are asked for, appended, counted and hashed.

huggingface_hub gives the session, the addresses, the headers and the errors. Its own ``hf_hub_download`` is not used:
since version 1.0 it throws away what it has of a file when it is interrupted, which with 30 GB is hours of work; and it
writes pieces of 10 MB, which on a slow line are lost at every hiccup.
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
    """What there is of a file: it grows at its end, or is begun anew. ``count`` hears of every change in bytes."""

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
        """Whether it is the whole file and has its hash."""
        return self.size == self._remote.size and bool(self.hashing.hexdigest() == self._remote.etag)

    def append(self, piece: bytes) -> None:
        view = memoryview(piece)
        while view:  # an unbuffered write may take less than it is given
            taken = self._file.write(view)
            self.hashing.update(view[:taken])
            self.size += taken
            self._count(taken)
            view = view[taken:]

    def restart(self) -> None:
        """Forget what is there."""
        self._file.truncate(0)
        self._count(-self.size)
        self.size, self.hashing = 0, new_hash(self._remote)


def ask_for_rest(partial: Partial, remote: RemoteFile) -> None:
    """Send one request for all that is missing. The answer may end early, which is no error here.

    Raises what the HTTP library and huggingface_hub raise.
    """
    from huggingface_hub import constants, hf_hub_url

    utils = _utils()
    url = hf_hub_url(remote.repo, remote.path, revision=remote.commit, endpoint=constants.ENDPOINT)
    # without compression: positions in the file are positions in the answer
    headers = {**utils.build_hf_headers(library_name="lightx2v-core"), "Accept-Encoding": "identity"}
    if partial.size:
        headers["Range"] = f"bytes={partial.size}-"
    with _answer(url, headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT) as (response, pieces):
        utils.hf_raise_for_status(response)
        if partial.size and response.status_code != 206:  # everything is sent again
            partial.restart()
        for piece in pieces():
            partial.append(piece[: remote.size - partial.size + 1])
            if partial.size > remote.size:
                return


Pieces = Callable[[], Iterator[bytes]]


@contextmanager
def _answer(url: str, headers: dict[str, str], *, timeout: float) -> Iterator[tuple[Any, Pieces]]:
    """The answer to a GET and what reads its body: from httpx, or from requests before huggingface_hub 1.0.

    The body is read as it arrives: of pieces of a set size, the beginnings would be lost when a connection ends.
    """
    session = _utils().get_session()
    if callable(session.stream):  # of requests it is a setting
        with session.stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True) as response:
            yield response, lambda: response.iter_bytes()
    else:
        with session.get(url, headers=headers, timeout=timeout, stream=True) as response:
            yield response, lambda: response.iter_content(chunk_size=1 << 16)


def _utils() -> Any:
    """Parts of huggingface_hub that it documents without a type checker seeing them exported."""
    return import_module("huggingface_hub.utils")
