"""Text files named by users: regular files of a bounded size."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from lightx2v_core.errors import ConfigError

_MB = 1 << 20


def read_text(path: Path, what: str, most: int) -> str:
    """Read a UTF-8 text file of at most ``most`` bytes.

    Raises ``ConfigError``, which calls the file ``what`` and states why it cannot be read.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            kind = "Is a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise ConfigError(f"{what} {str(path)!r} cannot be read: {kind}")
        with open(path, "rb") as file:
            data = file.read(most + 1)  # the reported size may be 0, as in /proc
        if max(len(data), status.st_size) > most:
            raise ConfigError(
                f"{what} {str(path)!r} is too large: {max(len(data), status.st_size)} bytes; "
                f"the limit is {most} ({most // _MB} MiB)"
            )
        return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError:
        raise ConfigError(f"{what} {str(path)!r} does not exist") from None
    except OSError as exc:
        raise ConfigError(f"{what} {str(path)!r} cannot be read: {exc.strerror or exc}") from None
    except ValueError as exc:  # not UTF-8, or an impossible file name
        raise ConfigError(f"{what} {str(path)!r} cannot be read: {exc}") from None
