"""Events of a download, in addition to the events of every command."""

from __future__ import annotations

from typing import Any, ClassVar

from attrs import frozen

from lightx2v_core.api import Event


@frozen(kw_only=True)
class DownloadReady(Event):
    """The files that a download fetches into ``folder``.

    Each file has its repository, commit, path there, path in the folder, component, precision, bytes, the bytes
    ``missing`` and its state. ``total``, ``missing`` and ``free`` are in bytes; ``left_out`` lists the other files of
    the repository.
    """

    kind: ClassVar[str] = "download"
    folder: str
    files: list[dict[str, Any]]
    total: int
    missing: int
    free: int
    left_out: list[dict[str, Any]]
    notes: list[str]


@frozen(kw_only=True)
class Downloaded(Event):
    """The end of a download: every file is in ``folder``.

    ``fetched`` is the number of bytes transferred; ``commands`` are command lines that plan and run the model.
    """

    kind: ClassVar[str] = "downloaded"
    folder: str
    files: int
    fetched: int
    seconds: float
    commands: list[str]
