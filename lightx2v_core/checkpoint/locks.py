"""Lock files: a lock that is released when its process ends, in any way, and that names its holder.

The file is locked with ``flock`` and contains a JSON note about its holder. On file systems without locks, a second
file created exclusively takes its place; another process takes it over if the process in its note is dead.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import time
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from attrs import asdict, frozen

#: error numbers of flock on file systems without locks
UNKNOWN = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL, errno.EBADF)
#: flags for opening a file that another user may have created: follow no link, wait for no pipe
PLAIN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LARGEST_NOTE = 1000
#: seconds within which the holder of a lock has written its note
_SETTLED = 1.0


@frozen(kw_only=True)
class Holder:
    """The holder of a lock. ``since`` is a time in UTC; ``started`` tells a process from a later one with its PID."""

    pid: int
    host: str
    since: str
    started: int | None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"

    @property
    def dead(self) -> bool:
        """Return whether the process has certainly ended; False for a process on another machine."""
        if self.host != _host():
            return False
        return not alive(self.pid) or (self.started is not None and _started(self.pid) != self.started)


class LockBusy(Exception):
    """Another process holds the lock: ``holder``, if known, which is also the text."""

    def __init__(self, holder: Holder | None) -> None:
        super().__init__(str(holder) if holder is not None else "another process")
        self.holder = holder


class Lock:
    """A non-blocking lock named ``name`` in the folder of the descriptor ``folder``, which is duplicated."""

    def __init__(self, folder: int, name: str) -> None:
        self._folder, self._name, self._owner = os.dup(folder), name, f"{name}.owner"
        self._file: int | None = None

    def acquire(self) -> None:
        """Acquire the lock. Raises ``LockBusy`` if another process holds it, and ``OSError`` if its file cannot be
        created; neither changes anything."""
        end = time.monotonic() + _SETTLED
        while self._file is None:
            try:
                self._try()
            except LockBusy as exc:
                # the holder is writing its note, or another process is removing the file of a dead one
                if time.monotonic() > end or (exc.holder is not None and not exc.holder.dead):
                    raise
                time.sleep(0.02)

    def _try(self) -> None:
        try:
            file = os.open(self._name, os.O_RDWR | os.O_CREAT | PLAIN, 0o644, dir_fd=self._folder)
        except PermissionError:
            raise LockBusy(self._noted(self._name)) from None
        try:
            self._file = file if self._taken(file) else None
        finally:
            if self._file is None:
                os.close(file)

    def release(self) -> None:
        """Release the lock and remove its files. A lock is used once."""
        if self._file is not None:
            # unlink before unlocking: a process that locks the deleted file notices, and creates a new one
            for name in (self._owner, self._name):
                with suppress(OSError):
                    os.unlink(name, dir_fd=self._folder)
            os.close(self._file)
            self._file = None
        os.close(self._folder)

    def _taken(self, file: int) -> bool:
        """Try to lock the open file. Returns False if its previous holder has just removed it. Raises ``LockBusy`` if
        another process holds the lock."""
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise FileExistsError(errno.EEXIST, f"{self._name} exists and is not a regular file")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockBusy(self._noted(self._name)) from None
        except OSError as exc:
            if exc.errno not in UNKNOWN:
                raise
            self._own()
            return True
        try:
            there = os.stat(self._name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if not os.path.samestat(there, os.fstat(file)):
            return False
        os.ftruncate(file, 0)
        os.pwrite(file, _note(), 0)
        return True

    def _own(self) -> None:
        """Acquire the lock on a file system without locks, by creating the owner file exclusively."""
        while True:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | PLAIN
            try:
                file = os.open(self._owner, flags, 0o644, dir_fd=self._folder)
            except FileExistsError:
                self._take_over()
                continue
            try:
                os.write(file, _note())
            finally:
                os.close(file)
            return

    def _take_over(self) -> None:
        """Remove the file of a dead owner, by renaming it first, so that only one of several processes does it."""
        holder = self._noted(self._owner)
        if holder is None or not holder.dead:
            raise LockBusy(holder)
        stale = f"{self._owner}.{os.getpid()}"
        with suppress(FileNotFoundError):
            os.rename(self._owner, stale, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            if (now := self._noted(stale)) != holder:  # another process has acquired it meanwhile
                os.rename(stale, self._owner, src_dir_fd=self._folder, dst_dir_fd=self._folder)
                raise LockBusy(now)
            os.unlink(stale, dir_fd=self._folder)

    def _noted(self, name: str) -> Holder | None:
        try:
            file = os.open(name, os.O_RDONLY | PLAIN, dir_fd=self._folder)
        except OSError:
            return None
        try:
            note = json.loads(os.read(file, _LARGEST_NOTE))
            return Holder(
                pid=int(note["pid"]),
                host=str(note["host"]),
                since=str(note["since"]),
                started=None if note["started"] is None else int(note["started"]),
            )
        except (OSError, ValueError, TypeError, KeyError):
            return None
        finally:
            os.close(file)


def free(file: int, *, unknown: bool) -> bool:
    """Return whether no process has locked this open file; ``unknown`` on file systems without locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as exc:
        return unknown and exc.errno in UNKNOWN
    return True


def mark(file: int) -> None:
    """Lock an open file until it is closed, so that other processes see that this one is alive; on file systems
    without locks they use the PID."""
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def alive(pid: int) -> bool:
    """Return whether this machine has a process with that PID."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _note() -> bytes:
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    holder = Holder(pid=os.getpid(), host=_host(), since=now, started=_started(os.getpid()))
    return json.dumps(asdict(holder)).encode()


def _host() -> str:
    return os.uname().nodename


def _started(pid: int) -> int | None:
    """Return the start time of a process in clock ticks since boot; ``None`` where it is not known."""
    try:  # the 22nd field; the second one, a name in parentheses, may contain spaces
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
