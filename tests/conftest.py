"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lightx2v_core.testing.profiles import register_profiles

register_profiles()

pytest_plugins = ["lightx2v_core.testing.fixtures"]

_REPOSITORY = Path(__file__).resolve().parent.parent
_GOLDEN_ROOTS = (_REPOSITORY.parent / "shared" / "golden", _REPOSITORY / "tests" / "golden")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of `tox -e fast`."""
    parser.addoption(
        "--fast", action="store_true", help="skip every test that starts a process or is marked slow"
    )


def pytest_configure() -> None:
    from lightx2v_core.testing.signals import hear_signals

    hear_signals()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """With ``--fast``, keep tests from starting processes; they are skipped when they try."""
    # the process that only distributes tests to others starts those
    distributes = getattr(session.config.option, "numprocesses", None) and not hasattr(
        session.config, "workerinput"
    )
    if session.config.option.fast and not distributes:
        subprocess.Popen.__init__ = _skip_process  # type: ignore[method-assign]


def _skip_process(*args: object, **kwargs: object) -> None:
    pytest.skip("starts a process")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Of the tests that race alone, files without one need not be read: each of many processes would read them all."""
    if config.option.markexpr != "load" or not collection_path.name.startswith("test_"):
        return None
    return True if "mark.load" not in collection_path.read_text(encoding="utf-8") else None


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Path]:
    """Folder of a golden case by name; the test is skipped where the data is not available."""

    def find(case: str) -> Path:
        for root in _GOLDEN_ROOTS:
            if (root / case).is_dir():
                return root / case
        pytest.skip(f"golden case {case!r} is not available")

    return find


@pytest.fixture(autouse=True)
def _alone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """With ``-n``, a test marked ``alone`` waits until no other process runs one, and the others wait for it.

    Everyone passes the turnstile first, so that who waits in it for the others to finish is not overtaken by them.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    import fcntl

    alone = request.node.get_closest_marker("alone") is not None
    shared = tmp_path_factory.getbasetemp().parent
    with (shared / "turnstile").open("w") as turnstile, (shared / "tests").open("w") as tests:
        fcntl.flock(turnstile, fcntl.LOCK_EX)
        fcntl.flock(tests, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        if not alone:
            fcntl.flock(turnstile, fcntl.LOCK_UN)
        yield
