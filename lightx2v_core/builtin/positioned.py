"""Reads byte ranges straight into the memory of a tensor: every byte once, and nothing stays mapped."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lightx2v_core.api import RunError

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK = 1 << 28  # one read call takes at most 2 GiB on Linux


class OpenFiles:
    """Files that are opened when they are first needed; ``check`` sees each of them then."""

    def __init__(self, check: Callable[[Path], None]) -> None:
        self._check = check
        self._descriptors: dict[Path, int] = {}

    def read(self, path: Path, offset: int, elements: int, dtype: str, name: str) -> Tensor:
        """``elements`` of ``dtype`` from byte ``offset`` on, as a flat tensor. ``RunError`` names ``name`` when the
        file changed or vanished since it was planned."""
        import torch

        tensor = torch.empty(elements, dtype=getattr(torch, dtype))
        if tensor.nbytes:
            buffer = (ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr())
            self._read_into(path, offset, memoryview(buffer).cast("B"), name)
        return tensor

    def open(self, path: Path) -> None:
        """Open and check a file, unless that was done before."""
        if path in self._descriptors:
            return
        try:
            self._descriptors[path] = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as exc:
            raise RunError(f"{path} cannot be read: {exc.strerror or exc}") from None
        self._check(path)

    def close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def _read_into(self, path: Path, offset: int, buffer: memoryview, name: str) -> None:
        self.open(path)
        done = 0
        try:
            while done < len(buffer):
                count = os.preadv(self._descriptors[path], [buffer[done : done + _CHUNK]], offset + done)
                if count == 0:
                    raise RunError(f"{path} became shorter while it was read: {name!r} is cut off")
                done += count
        except OSError as exc:
            raise RunError(f"{path} cannot be read: {exc.strerror or exc}") from None

    def __del__(self) -> None:
        self.close()
