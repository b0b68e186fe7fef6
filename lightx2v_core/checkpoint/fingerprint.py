"""Fingerprints of weight files, computed without reading all of their bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

_SAMPLES = 16
_SAMPLE_BYTES = 1 << 16


def fingerprint(files: Iterable[Path]) -> str:
    """Compute ``sampled-sha256:...`` over each file's name, size and 16 evenly spaced 64 KiB samples (all of a file
    up to 1 MiB). It identifies a file; it does not protect against forgery. Returns ``unreadable: NAME`` if a file
    cannot be read any more: a missing fingerprint in the record must not discard a finished video."""
    digest = hashlib.sha256()
    for path in sorted(files):
        try:
            _add(digest, path)
        except OSError:
            return f"unreadable: {path.name}"
    return f"sampled-sha256:{digest.hexdigest()[:32]}"


def _add(digest: hashlib._Hash, path: Path) -> None:
    size = path.stat().st_size
    digest.update(f"{path.name}\0{size}\0".encode(errors="surrogateescape"))
    with path.open("rb") as file:
        if size <= _SAMPLES * _SAMPLE_BYTES:
            digest.update(file.read())
            return
        for i in range(_SAMPLES):
            file.seek((size - _SAMPLE_BYTES) * i // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))
