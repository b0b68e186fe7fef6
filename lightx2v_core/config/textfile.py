"""Text files that a person names: regular files of a stated size, and nothing that has no end."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from lightx2v_core.errors import ConfigError

_MB = 1 << 20


def read_text(path: Path, what: str, most: int) -> str:
    """The text of a file of at most ``most`` bytes of UTF-8. ``ConfigError`` calls it ``what`` and says why it cannot
    be read."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            kind = "Is a directory" if stat.S_ISDIR(status.st_mode) else "it is no regular file"
            raise ConfigError(f"{what} {str(path)!r} cannot be read: {kind}")
        with open(path, "rb") as file:
            data = file.read(most + 1)  # it may say that it is empty, as those of /proc do
        if max(len(data), status.st_size) > most:
            raise ConfigError(
                f"{what} {str(path)!r} is too large: {max(len(data), status.st_size)} bytes, "
                f"and at most {most} ({most // _MB} MiB) are read"
            )
        return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError:
        raise ConfigError(f"{what} {str(path)!r} does not exist") from None
    except OSError as exc:
        raise ConfigError(f"{what} {str(path)!r} cannot be read: {exc.strerror or exc}") from None
    except ValueError as exc:  # no UTF-8, or a name that no file can have
        raise ConfigError(f"{what} {str(path)!r} cannot be read: {exc}") from None
