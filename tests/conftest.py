"""Fixtures shared by all tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest_plugins = ["lightx2v_core.testing.fixtures"]

_REPOSITORY = Path(__file__).resolve().parent.parent
_GOLDEN_ROOTS = (_REPOSITORY.parent / "shared" / "golden", _REPOSITORY / "tests" / "golden")


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Path]:
    """Folder of a golden case by name; the test is skipped where the data is not available."""

    def find(case: str) -> Path:
        for root in _GOLDEN_ROOTS:
            if (root / case).is_dir():
                return root / case
        pytest.skip(f"golden case {case!r} is not available")

    return find
