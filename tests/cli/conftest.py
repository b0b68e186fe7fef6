"""The command line in this process and in one of its own, on a tiny checkpoint."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attrs import frozen

from lightx2v_core.cli import main

SMALL = ("--prompt", "a red fox", "--size", "32x32", "--frames", "5", "--steps", "2")


@frozen
class Result:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def unfolded(self) -> str:
        """What was printed, on one line: a plan is folded to the width of a terminal."""
        return " ".join(self.out.split())

    def failed(self, status: int, *parts: str) -> None:
        """It ended with ``status`` and one clear message that has all of ``parts``."""
        assert self.status == status, (self.status, self.err)
        assert "Traceback" not in self.err
        assert "unexpected" not in self.err
        assert self.err.count("error: ") == 1, self.err
        for part in parts:
            assert part in self.err, (part, self.err)

    def succeeded(self) -> None:
        assert self.status == 0, (self.status, self.err)
        assert "error" not in self.err


Cli = Callable[..., Result]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint, made once. Tests that change it take ``model``."""
    writer = pytest.importorskip("lightx2v_wan21.tiny")
    folder = tmp_path_factory.mktemp("tiny") / "model"
    writer.write_tiny(folder, 0)
    return folder


@pytest.fixture
def model(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint."""
    return Path(shutil.copytree(tiny, tmp_path / "model"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An empty folder for outputs."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], out: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    """``cli("run", ...)`` in this process, inside ``out``."""
    monkeypatch.chdir(out)
    before = signal.getsignal(signal.SIGTERM)

    def call(*arguments: object) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Result(int(caught.value.code or 0), captured.out, captured.err)

    yield call
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def refused(cli: Cli, out: Path) -> Callable[..., None]:
    """``refused(model, words, *options)``: such a run is refused with these words, and nothing is written."""

    def check(model: Path | str, words: str | tuple[str, ...], *options: object) -> None:
        words = (words,) if isinstance(words, str) else words
        output = () if "--output" in options else ("--output", out / "o.mp4")
        cli("run", "--model-path", model, *SMALL, *output, *options).failed(2, *words)
        assert list(out.iterdir()) == []

    return check


@pytest.fixture
def process(tiny: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts ``run`` on the tiny checkpoint in a process of its own."""

    def start(*options: object, before: str = "") -> subprocess.Popen[str]:
        code = f"import sys; {before}\nfrom lightx2v_core.cli import main; main(sys.argv[1:])"
        return subprocess.Popen(
            [sys.executable, "-c", code, "run", "--model-path", str(tiny), *SMALL, *map(str, options)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    return start
