"""pytest fixtures: ``pytest_plugins = ["lightx2v_core.testing.fixtures"]``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from lightx2v_core.testing.dists import write_dist


class FakeDist(Protocol):
    """``write_dist`` into a new folder, which is prepended to ``sys.path`` for the test."""

    def __call__(self, name: str, **parts: Any) -> Path: ...


@pytest.fixture
def fake_dist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDist]:
    """Install distributions for the duration of a test, with the arguments of ``write_dist`` except the folder.

    The returned function returns the folder, for use in a subprocess: ``env=environment(folder)``.
    """
    before = set(sys.modules)
    folders: list[Path] = []

    def install(name: str, **parts: Any) -> Path:
        folder = write_dist(tmp_path / f"dist{len(folders)}", name, **parts)
        folders.append(folder)
        monkeypatch.syspath_prepend(str(folder))
        return folder

    yield install
    for name in set(sys.modules) - before:
        origin = getattr(sys.modules[name], "__file__", None)
        if origin is not None and any(Path(origin).is_relative_to(folder) for folder in folders):
            del sys.modules[name]
