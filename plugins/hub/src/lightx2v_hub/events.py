"""What a download tells its listener, beside the events of every command."""

from __future__ import annotations

from typing import Any, ClassVar

from attrs import frozen

from lightx2v_core.api import Event


@frozen(kw_only=True)
class DownloadReady(Event):
    """What a download fetches into ``folder``: of each file its repository, path there, path in the folder, component,
    precision, bytes, the bytes ``missing`` and its state; then the same in sum, bytes free, and files left out."""

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
    """Every file is in ``folder``; ``fetched`` bytes came over the network. ``commands`` plan and run what is there."""

    kind: ClassVar[str] = "downloaded"
    folder: str
    files: int
    fetched: int
    seconds: float
    commands: list[str]
