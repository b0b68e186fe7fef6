"""What one process has at a time: a lock that ends with its process, however that ends, and says who has it.

It is a file that is locked (``flock``) and holds a note of its owner. Where the file system knows no locks, a second
file that is made exclusively stands for it, and is taken over when the process in its note is dead.
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

#: how flock answers where there are no locks
UNKNOWN = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL, errno.EBADF)
#: flags for a file that may have been put there by somebody else: no link is followed, no pipe is waited for
PLAIN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LARGEST_NOTE = 1000
#: seconds after which who has a lock has said so
_SETTLED = 1.0


@frozen(kw_only=True)
class Holder:
    """Who has a lock. ``since`` is a time in UTC; ``started`` tells a process from a later one of the same number."""

    pid: int
    host: str
    since: str
    started: int | None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"

    @property
    def dead(self) -> bool:
        """Whether it has ended for sure. Of another machine nobody knows."""
        if self.host != _host():
            return False
        return not alive(self.pid) or (self.started is not None and _started(self.pid) != self.started)


class LockBusy(Exception):
    """Another process has a lock: the one of its text, and ``holder`` where that is known."""

    def __init__(self, holder: Holder | None) -> None:
        super().__init__(str(holder) if holder is not None else "another process")
        self.holder = holder


class Lock:
    """A lock named ``name`` in the folder of the descriptor ``folder``, which is duplicated. It is not waited for."""

    def __init__(self, folder: int, name: str) -> None:
        self._folder, self._name, self._owner = os.dup(folder), name, f"{name}.owner"
        self._file: int | None = None

    def acquire(self) -> None:
        """Take the lock. ``LockBusy`` when somebody else has it, ``OSError`` when it cannot be made; nothing is changed
        then."""
        end = time.monotonic() + _SETTLED
        while self._file is None:
            try:
                self._try()
            except LockBusy as exc:
                # its owner is writing the note, or somebody removes what a dead one left
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
            # in this order: who gets the lock of a file that is gone by then sees that, and makes a new one
            for name in (self._owner, self._name):
                with suppress(OSError):
                    os.unlink(name, dir_fd=self._folder)
            os.close(self._file)
            self._file = None
        os.close(self._folder)

    def _taken(self, file: int) -> bool:
        """Tell whether it is had now; not when the file was removed meanwhile by who had it before."""
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise FileExistsError(errno.EEXIST, f"{self._name} is there and is no file")
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
        """Have it without locks."""
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
        """Remove the file of a dead owner. By renaming, so that of several who find it one does it."""
        holder = self._noted(self._owner)
        if holder is None or not holder.dead:
            raise LockBusy(holder)
        stale = f"{self._owner}.{os.getpid()}"
        with suppress(FileNotFoundError):
            os.rename(self._owner, stale, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            if (now := self._noted(stale)) != holder:  # somebody else was quicker, and has it now
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
    """Tell whether no process has locked this open file; ``unknown`` where there are no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as exc:
        return unknown and exc.errno in UNKNOWN
    return True


def mark(file: int) -> None:
    """Lock an open file for as long as it is open, so that others see that its process lives; where there are no locks,
    they go by the number of the process."""
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def alive(pid: int) -> bool:
    """Tell whether this machine has a process of that number."""
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
    """When a process began, in clock ticks since the machine did; ``None`` where that is not known."""
    try:  # the 22nd field; the second one, a name in parentheses, may hold spaces
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
