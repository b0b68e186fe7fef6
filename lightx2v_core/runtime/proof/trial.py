"""Proofs in a separate process: for commands that only inspect and should not import kernels, and since a kernel may
crash its process.

The process writes a line when it starts an implementation and one when it is done. If it exits in between, its exit is
the verdict on that implementation, and another process continues with the rest.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from queue import Empty, Queue
from typing import IO

from attrs import asdict

from lightx2v_core.discovery.plugins import CORE, PluginSet, Provided
from lightx2v_core.runtime.proof.claim import KERNELS, Verdict
from lightx2v_core.spec.context import BuildContext

#: time limit for one kernel in seconds, including the import of its package
TIME = 300.0
_PROGRAM = (
    "import json, sys\n"
    "job = json.load(sys.stdin)\n"
    "sys.path[:] = job['path']\n"
    "from lightx2v_core.runtime.proof.process import answer\n"
    "answer(job)\n"
)


def trials(
    plugins: PluginSet, items: Sequence[Provided], ctx: BuildContext, *, seconds: float = TIME
) -> Mapping[Provided, Verdict]:
    """Return the verdicts on kernels with their default options; other kinds have none. ``items`` are implementations
    from ``plugins`` that are usable on this machine."""
    left = [provided for provided in items if provided.kind in KERNELS]
    verdicts: dict[Provided, Verdict] = {}
    while left:
        began, answers, end = _process(plugins, left, ctx, seconds)
        verdicts |= {left[index]: answer for index, answer in answers.items()}
        if len(answers) < len(left):
            unanswered = set(range(len(left))) - set(answers)
            failed = began if began in unanswered else min(unanswered)
            verdicts[left[failed]] = Verdict(state="wrong", text=f"its proof {end}")
        left = [provided for provided in left if provided not in verdicts]
    return verdicts


def _process(
    plugins: PluginSet, items: Sequence[Provided], ctx: BuildContext, seconds: float
) -> tuple[int | None, dict[int, Verdict], str]:
    """Run the proofs of ``items`` in one process. Returns the index of the last item that it started, the verdicts by
    index, and a description of its exit."""
    loaded = [plugin.name for plugin in plugins.plugins if plugin.state == "loaded" and plugin.name != CORE]
    kept = {key: value for key, value in os.environ.items() if key != "LIGHTX2V_DISABLE_PLUGINS"}
    job = {
        "path": sys.path,
        "device": asdict(ctx.device),
        "dtype": ctx.dtype,
        "kernels": [(provided.kind, provided.qualified) for provided in items],
    }
    answers: dict[int, Verdict] = {}
    began: int | None = None
    with (
        tempfile.TemporaryFile() as errors,
        _proof_process({**kept, "LIGHTX2V_PLUGINS": ",".join(loaded)}, errors) as child,
    ):
        assert child.stdin is not None
        with suppress(OSError):  # the process may have exited already
            child.stdin.write(json.dumps(job).encode())
            child.stdin.close()
        lines = _lines(child)
        try:
            while line := lines.get(timeout=seconds):
                data = json.loads(line)
                index = data.pop("index")
                if data:
                    answers[index] = Verdict(**data)
                else:
                    began = index
        except Empty:
            return began, answers, f"gave no answer in {seconds:.0f} s"
        status = child.wait()
        errors.seek(0)
        return began, answers, _describe_exit(status, errors.read())


@contextmanager
def _proof_process(env: Mapping[str, str], errors: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Start the process that tests kernels, and kill it on exit from the block."""
    child = subprocess.Popen(
        [sys.executable, "-I", "-c", _PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env=env,
    )
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout):
            with suppress(OSError):
                assert stream is not None
                stream.close()


def _lines(child: subprocess.Popen[bytes]) -> Queue[bytes]:
    """Read the lines of a process as it writes them into a queue, with an empty one at the end."""
    lines: Queue[bytes] = Queue()

    def read() -> None:
        assert child.stdout is not None
        with suppress(ValueError, OSError):  # the stream is closed when the process is killed
            for line in child.stdout:
                lines.put(line)
        lines.put(b"")

    threading.Thread(target=read, name="lightx2v-proofs", daemon=True).start()
    return lines


def _describe_exit(status: int, errors: bytes) -> str:
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        return f"ended its process with {name}"
    last = errors.decode(errors="replace").strip().splitlines()[-1:]
    return f"ended its process with status {status}{': ' + last[0][:200] if last else ''}"
