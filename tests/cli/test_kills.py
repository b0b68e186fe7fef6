"""Signals and kills at every place where results get their names, and at random moments: afterwards there is the old
set of files or the new one, the message is true, and the next run removes what a kill left.

``LIGHTX2V_TEST_KILLS`` is how many kills of each kind are tried (``tox -e proof``: all places, and 200 moments)."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from attrs import frozen

pytestmark = [
    pytest.mark.load,
    pytest.mark.skipif(
        not Path("/proc/self/status").exists(), reason="what handles a signal is read in /proc"
    ),
]

KILLS = int(os.environ.get("LIGHTX2V_TEST_KILLS", "7"))
SMALL = (
    "--prompt",
    "a red fox",
    "--size",
    "32x32",
    "--frames",
    "5",
    "--steps",
    "1",
    "--device",
    "cpu",
    "--quiet",
)
Files = Mapping[str, bytes]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@frozen
class Ended:
    """How a command ended. ``calls`` are those that changed names."""

    status: int
    said: str
    calls: list[str]


class Driver:
    """Command lines in forks of one process, see ``kill_driver.py``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("kill_driver.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def __call__(self, argv: Sequence[object], **kill: object) -> Ended:
        log, said = self._folder / "log", self._folder / "said"
        trial = {"argv": [str(item) for item in argv], "log": str(log), "err": str(said), **kill}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(trial) + "\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        return Ended(status, said.read_text(errors="replace"), log.read_text().splitlines())

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    found = Driver(tmp_path_factory.mktemp("driver"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def weights(tiny: Path) -> Path:
    return next(tiny.glob("diffusion_pytorch_model*.safetensors"))


@frozen
class Case:
    """A command that writes into ``work``; ``old`` writes the files from before, ``kept`` is its message when it
    is interrupted, ``working`` the part of its files that may stay then."""

    argv: Callable[[Path], Sequence[object]]
    old: Callable[[Path], None]
    kept: str = "nothing was left behind"
    working: str = ""


def nothing(work: Path) -> None:
    """There is nothing before."""


def a_set(work: Path) -> None:
    (work / "o.mp4").write_bytes(b"the old video")
    (work / "o.json").write_text('{"lightx2v_record": 1, "of": "the old video"}')
    (work / "d.safetensors").write_bytes(b"the old tensors")


def a_video(work: Path) -> None:
    a_set(work)
    (work / "d.safetensors").unlink()


def a_file(work: Path) -> None:
    (work / "out.safetensors").write_bytes(b"the old weights")


def cases(tiny: Path, weights: Path) -> dict[str, Case]:
    run, tuned = ("run", "--model-path", tiny, *SMALL), weights.with_name("tuned.safetensors")
    if not tuned.exists():
        from safetensors.torch import load_file, save_file

        tensors = load_file(weights)
        name = min(name for name, tensor in tensors.items() if tensor.ndim == 2)
        save_file({**tensors, name: tensors[name] + 1}, tuned)
    goes_on = "repeat the command to resume"
    return {
        "video": Case(
            lambda work: (*run, "--output", work / "o.mp4", "--dump-tensors", work / "d.safetensors"), a_set
        ),
        "no record": Case(lambda work: (*run, "--no-record", "--output", work / "o.mp4"), a_video),
        "new video": Case(lambda work: (*run, "--output", work / "new" / "o.mp4"), nothing),
        "frames": Case(lambda work: (*run, "--output", f"{work}/frames/"), nothing),
        "convert": Case(
            lambda work: ("convert", weights, "-o", work / "out.safetensors", "--overwrite", "--quiet"),
            a_file,
            goes_on,
            ".out.safetensors.converting",
        ),
        "convert blocks": Case(
            lambda work: ("convert", weights, "-o", work / "out", "--split", "blocks", "--quiet"),
            nothing,
            goes_on,
            ".out.converting",
        ),
        "extract-lora": Case(
            lambda work: ("extract-lora", weights, tuned, "--output", work / "out.safetensors"), a_file
        ),
        "plugins new": Case(
            lambda work: ("plugins", "new", "acme", "--kind", "attention", "--output", work / "acme"), nothing
        ),
    }  # fmt: skip


NAMES = (
    "video",
    "no record",
    "new video",
    "frames",
    "convert",
    "convert blocks",
    "extract-lora",
    "plugins new",
)


@pytest.fixture(scope="module", params=NAMES)
def case(request: pytest.FixtureRequest, tiny: Path, weights: Path) -> Case:
    if request.param.startswith(("convert", "extract")):
        pytest.importorskip("lightx2v_convert", reason="needs lightx2v-convert")
    if request.param == "plugins new":
        pytest.importorskip("lightx2v_devkit", reason="lightx2v-devkit is not installed")
    return cases(tiny, weights)[request.param]


def prepared(case: Case, work: Path) -> dict[str, bytes]:
    """The folder as it is before."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    case.old(work)
    return files(work)


def check(case: Case, work: Path, old: Files, new: Sequence[str], ended: Ended, number: str, of: str) -> None:
    """The folder is all old or all new, and the message about it is true."""
    there = files(work)
    assert "Traceback" not in ended.said, (of, ended.said)
    results = {name: data for name, data in there.items() if not part(name, case)}
    changed = {name for name, data in results.items() if old.get(name) != data}
    if number == "SIGKILL":
        assert ended.status in (-9, 0), (of, ended)
        if changed:  # some of the new ones, and none of the old ones
            assert changed == set(results), (of, sorted(results), sorted(changed))
            assert changed <= set(new), of
        return
    left = [
        name for name in there if part(name, case) and not (case.working and name.startswith(case.working))
    ]
    assert left == [], (of, ended)
    assert ended.status in (0, 130), (of, ended)
    if ended.status == 0:
        assert "interrupted" not in ended.said, (of, ended.said)
        assert sorted(there) == list(new), (of, "0 and", sorted(there))
        assert changed == set(new), of
        return
    assert results == old, (of, "130 and", sorted(results))
    behind = [path.name for path in work.iterdir() if path.name not in old]
    said = {"nothing was left behind"} if not behind else {case.kept}
    assert any(ended.said.endswith(f"interrupted; {words}\n") for words in said | {case.kept}), (
        of,
        ended.said,
    )
    if not case.working:
        assert behind == [], of


def part(name: str, case: Case) -> bool:
    """Whether a file is one in the making."""
    return any(
        ".part-" in step or step.startswith(".acme.new-") or (case.working and step == case.working)
        for step in name.split("/")
    )


def goes_on(driver: Driver, case: Case, work: Path, new: Sequence[str], of: str) -> None:
    """The next run makes the whole result, and leaves nothing else, not even what a kill left."""
    for name in ("frames", "out", "acme"):  # these have to be new
        shutil.rmtree(work / name, ignore_errors=True)
    ended = driver(case.argv(work))
    assert ended.status == 0, (of, ended)
    assert sorted(files(work)) == list(new), of


def test_a_signal_at_any_place(driver: Driver, case: Case, tmp_path: Path) -> None:
    work = tmp_path / "work"
    old = prepared(case, work)
    whole = driver(case.argv(work))
    assert whole.status == 0, whole
    new = sorted(files(work))
    places = [
        (number, when, place)
        for number in ("SIGINT", "SIGTERM", "SIGHUP", "SIGKILL")
        for when in ("before", "after")
        for place in range(1, len(whole.calls) + 1)
    ]
    seed = random.randrange(10**6)
    sys.stdout.write(f"seed {seed}, {len(places)} places\n")
    if len(places) > KILLS:
        places = random.Random(seed).sample(places, KILLS)
    for number, when, place in places:
        old = prepared(case, work)
        of = f"{number} {when} {place} of {len(whole.calls)}: {whole.calls[place - 1]}"
        ended = driver(case.argv(work), signal=number, **{when: place})
        check(case, work, old, new, ended, number, of)
        if number == "SIGKILL":
            goes_on(driver, case, work, new, of)


@pytest.mark.parametrize("seed", [16, None])
def test_a_signal_at_any_moment(driver: Driver, case: Case, tmp_path: Path, seed: int | None) -> None:
    work = tmp_path / "work"
    prepared(case, work)
    began = time.monotonic()
    whole = driver(case.argv(work))
    seconds = time.monotonic() - began
    assert whole.status == 0, whole
    new = sorted(files(work))
    seed = random.randrange(10**6) if seed is None else seed
    sys.stdout.write(f"seed {seed}\n")
    choose = random.Random(seed)
    for _ in range(max(KILLS // 16, 1)):
        old = prepared(case, work)
        number = choose.choice(["SIGINT", "SIGTERM", "SIGKILL"])
        delay = choose.random() * seconds
        ended = driver(case.argv(work), signal=number, delay=delay)
        of = f"{number} after {delay:.3f} of {seconds:.3f} s"
        check(case, work, old, new, ended, number, of)
        if number == "SIGKILL":
            goes_on(driver, case, work, new, of)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda item: item.name)
def test_a_signal_while_everything_is_imported(tiny: Path, tmp_path: Path, number: signal.Signals) -> None:
    """From the first line of ``main`` on there is one line and 130, at any point of the imports."""
    choose = random.Random(16)
    for _ in range(max(KILLS // 3, 1)):
        process = subprocess.Popen(
            [sys.executable, "-c", DEFAULT + "main()", "run", "--model-path", str(tiny), *SMALL,
             "--steps", "900", "--output", str(tmp_path / "o.mp4")],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        while not handled(process.pid):
            time.sleep(0.002)
        time.sleep(choose.random() * 2)
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
        assert (process.returncode, errors.strip()) == (130, "interrupted; nothing was left behind")
        assert list(tmp_path.iterdir()) == []


DEFAULT = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "[signal.signal(n, signal.SIG_DFL) for n in (signal.SIGTERM, signal.SIGHUP)]\n"
    "from lightx2v_core.cli import main\n"
)


def handled(process: int) -> bool:
    """Whether the program's handlers are there; that of SIGHUP is set last."""
    text = Path(f"/proc/{process}/status").read_text()
    caught = int(text.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught >> (signal.SIGHUP - 1) & 1)
