"""Concurrent transfers of files: each is resumed, checked against its hash, and renamed when whole."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from attrs import evolve

from lightx2v_core.api import (
    Emit,
    LightX2VError,
    OutputError,
    PhaseDone,
    PhaseStarted,
    Progress,
    RunError,
    Warned,
)
from lightx2v_hub.local import (
    FileState,
    alone,
    check_space,
    drop_stale,
    feed,
    file_states,
    format_size,
    new_hash,
    publish,
    write_record,
)
from lightx2v_hub.remote import KEPT, failures
from lightx2v_hub.selection import DownloadFile
from lightx2v_hub.transfer import Partial, request_rest

#: number of concurrent transfers
WORKERS = 4
#: seconds to wait after each attempt without progress; after the last one the failure is raised
_PAUSES = (0.5, 1.0, 2.0)
#: seconds between two progress events
_TICK = 0.1
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def fetch(folder: Path, files: Sequence[DownloadFile], *, force: bool, emit: Emit) -> tuple[FileState, ...]:
    """Fetch every file into ``folder`` and return the states before. Whole files are kept.

    Raises:
        OutputError: the disk is too full or not writable, or, without ``force``, a different file has one of the names.
            Nothing has been fetched then, unless the disk filled up during the transfer.
        RequestError: a file is not readable or no longer exists.
        RunError: the connection to the hub failed, or the content differs from its listing. Whole and partial files are
            kept.
    """
    with alone(folder):
        states = _verified(folder, file_states(folder, files), emit)
        others = [state for state in states if state.status == "other"]
        if others and not force:
            names = "\n".join(
                f"  {state.file.target} ({format_size(state.path.stat().st_size)}; in the repository "
                f"{format_size(state.file.remote.size)})"
                for state in others
            )
            raise OutputError(
                f"{folder} has different files with these names; --force replaces them, --exclude keeps them:\n{names}"
            )
        missing = [state for state in states if state.status != "whole"]
        check_space(folder, sum(state.missing for state in missing))
        drop_stale(missing)
        if missing:
            _Transfers(folder, missing, emit).run()
    return states


def _verified(folder: Path, states: Sequence[FileState], emit: Emit) -> tuple[FileState, ...]:
    """Hash the files without a record, and return the states with these as ``whole`` or ``other``."""
    unrecorded = [state for state in states if state.status == "unrecorded"]
    if not unrecorded:
        return tuple(states)
    total, done, start = sum(state.file.remote.size for state in unrecorded), 0, time.monotonic()
    emit(PhaseStarted(phase="check", total=total, unit="bytes"))
    for state in unrecorded:
        name, hashing = state.file.target, new_hash(state.file.remote)

        def report(count: int, name: str = name) -> None:
            nonlocal done
            done += count
            emit(Progress(phase="check", done=done, total=total, detail=name))

        if feed(hashing, state.path, report).hexdigest() == state.file.remote.etag:
            write_record(folder, state.file)
    emit(PhaseDone(phase="check", seconds=time.monotonic() - start))
    after = file_states(folder, [state.file for state in states])
    # files still without a record have the expected size and a different hash
    return tuple(
        evolve(state, status="other", present=0) if state.status == "unrecorded" else state for state in after
    )


class _Stopped(Exception):
    """Another transfer failed, or the user interrupted."""


class _Transfers:
    """Transfers of several files by worker threads, which only count; the calling thread emits the events."""

    def __init__(self, folder: Path, states: Sequence[FileState], emit: Emit) -> None:
        self._folder = folder
        self._emit = emit
        self._total = sum(state.file.remote.size for state in states)
        self._waiting = sorted(states, key=lambda state: state.missing, reverse=True)
        self._lock = threading.Lock()
        self._done = sum(state.present for state in states)
        self._latest = ""
        self._messages: list[str] = []
        self._stop = threading.Event()
        self._failure: BaseException | None = None

    def run(self) -> None:
        """Fetch all files, or raise the first failure. An interrupt does not wait for the network."""
        start = time.monotonic()
        self._emit(PhaseStarted(phase="download", total=self._total, unit="bytes"))
        count = min(WORKERS, len(self._waiting))
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        shown = -1
        try:
            while self._failure is None and any(thread.is_alive() for thread in threads):
                shown = self._report(shown)
                next((thread for thread in threads if thread.is_alive()), threads[0]).join(_TICK)
        finally:
            self._stop.set()
            end = time.monotonic() + 1.0
            for thread in threads:
                thread.join(max(end - time.monotonic(), 0))
        self._report(shown)
        if self._failure is not None:
            raise self._failure
        self._emit(PhaseDone(phase="download", seconds=time.monotonic() - start))

    def _report(self, shown: int) -> int:
        with self._lock:
            done, name, messages, self._messages = self._done, self._latest, self._messages, []
        for message in messages:
            self._emit(Warned(message=message))
        if done != shown:
            self._emit(Progress(phase="download", done=done, total=self._total, detail=name))
        return done

    def _count(self, change: int, name: str) -> None:
        if self._stop.is_set():
            raise _Stopped
        with self._lock:
            self._done, self._latest = self._done + change, name

    def _say(self, message: str) -> None:
        with self._lock:
            self._messages.append(message)

    def _work(self) -> None:
        try:
            while not self._stop.is_set():
                with self._lock:
                    if not self._waiting:
                        return
                    state = self._waiting.pop(0)
                self._fetch_file(state)
        except _Stopped:
            return
        except BaseException as exc:
            with self._lock:
                self._failure = self._failure or exc

    def _fetch_file(self, state: FileState) -> None:
        """Fetch one file and publish it; restart once if a partial file does not match."""
        remote, name = state.file.remote, state.file.target
        resumed, matches = self._append_missing(state)
        if resumed and not matches:
            self._say(f"{name}: partial download does not match; restarting")
            state.partial.unlink()
            self._count(-remote.size, name)
            _, matches = self._append_missing(state)
        if not matches:
            state.partial.unlink()
            raise RunError(
                f"{remote.repo}/{remote.path} does not match the hash listed by the hub and was deleted; run the same "
                "command again, without a mirror (HF_ENDPOINT) if one is set"
            )
        publish(state, self._folder)

    def _append_missing(self, state: FileState) -> tuple[bool, bool]:
        """Fetch the rest of a file. Returns whether part of it was present, and whether it is now whole and correct."""
        name = state.file.target
        try:
            with state.partial.open("ab", buffering=0) as file:
                partial = Partial(file, state, lambda change: self._count(change, name))
                resumed = partial.size > 0
                self._transfer(partial, state)
                os.fsync(file.fileno())
        except OSError as exc:
            if exc.errno in _FULL:
                raise OutputError(
                    f"no space left in {self._folder} for {name} of {format_size(state.file.remote.size)} "
                    f"({exc.strerror}); free some space; {KEPT}"
                ) from exc
            raise OutputError(f"cannot write {state.partial}: {exc.strerror or exc}") from exc
        return resumed, partial.matches

    def _transfer(self, partial: Partial, state: FileState) -> None:
        """Request the rest until the file is complete, or several attempts in a row make no progress."""
        remote, fruitless = state.file.remote, 0
        while partial.size < remote.size:
            before = partial.size
            problem: LightX2VError = RunError(
                f"{remote.repo}/{remote.path} ended before all {format_size(remote.size)} were received; {KEPT}"
            )
            try:
                with failures(remote.repo, remote.commit, remote.path):
                    request_rest(partial, remote)
            except RunError as exc:
                problem = exc
            if partial.size > before:
                fruitless = 0
            elif fruitless == len(_PAUSES):
                raise problem
            elif self._stop.wait(_PAUSES[fruitless]):
                raise _Stopped
            else:
                fruitless += 1
