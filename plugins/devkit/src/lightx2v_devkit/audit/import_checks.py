"""Checks of the cost and effects of importing a plugin, which happens whenever plugins are listed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from lightx2v_core.api import Plugin, one_line
from lightx2v_core.testing import HEAVY, environment
from lightx2v_devkit.audit.findings import Finding, error, warning

#: limit in CPU seconds, without those of the core: several times the time of a module of specs
SLOW = 0.25
#: timeout of an import, in seconds
TIME = 60.0
#: module of the program that imports a plugin
PROBE = "lightx2v_devkit.audit.import_probe"


def start_findings(plugin: Plugin) -> Iterator[Finding]:
    """Import the entry module in a fresh interpreter and report heavy imports, slow imports, changes of shared state,
    and anything that keeps the process from exiting."""
    module = plugin.module.partition(":")[0]
    done = _run(PROBE, module, *HEAVY, seconds=TIME)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        last = done.stderr.strip().splitlines()[-1:] or [_ended(done.returncode)]
        yield error(plugin.name, f"{module} cannot be imported in a fresh interpreter: {one_line(last[0])}")
        return
    effects, *holders = map(json.loads, lines)
    yield from _cost(plugin, module, effects)
    if effects["printed"]:
        yield warning(
            plugin.name, f"importing {module} prints {effects['printed']!r}; plugins must not print"
        )
    if effects["changed"] and not effects["heavy"]:  # a heavy package may have changed it
        yield warning(
            plugin.name,
            f"importing {module} changes {_few(effects['changed'])}, which all plugins share; do not change it, or "
            "change and restore it while building",
        )
    for holder in holders:
        yield error(plugin.name, f"importing {module} {_holding(holder)}")


def stuck(entries: Iterable[metadata.EntryPoint], *, seconds: float = TIME) -> dict[str, str]:
    """Find plugins whose import does not return or ends the process: name -> reason.

    All are tried together first, so that only one process is started if there is no problem.
    """
    everything = _run("lightx2v_core", "plugins", "list", "--json", seconds=seconds)
    if everything.returncode == 0 and "{" in everything.stdout:
        return {}
    reasons = {}
    for entry in entries:
        done = _run(PROBE, entry.module, seconds=seconds)
        if done.returncode not in (0, 1) or (done.returncode == 0 and "{" not in done.stdout):
            reasons[entry.name] = f"importing {entry.module} {_ended(done.returncode)}"
    return reasons


def _cost(plugin: Plugin, module: str, effects: dict[str, Any]) -> Iterator[Finding]:
    if effects["heavy"]:
        yield error(
            plugin.name,
            f"importing {module} imports {', '.join(effects['heavy'])}, in every command that lists plugins; import it "
            "inside build and unusable instead",
        )
    elif effects["seconds"] > SLOW:
        yield warning(
            plugin.name,
            f"importing {module} takes {effects['seconds']:.2f} s of CPU time in every command that lists plugins; "
            f"python -X importtime -c 'import {module}' shows the details",
        )


def _holding(holder: dict[str, list[str]]) -> str:
    if holder["threads"]:
        return (
            f"starts {_few(holder['threads'])}, a thread that keeps every command from exiting; start threads while "
            "building, as daemons or so that close ends them"
        )
    what = f"({_few(holder['at_exit'])})" if holder["at_exit"] else "or a destructor"
    return f"keeps every command from exiting: a function registered with atexit {what} does not return"


def _run(module: str, *arguments: str, seconds: float) -> subprocess.CompletedProcess[str]:
    """Run a module in a fresh interpreter; the status is 124 on timeout."""
    try:
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            env=environment(*(Path(folder) for folder in sys.path if folder)), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False, timeout=seconds, errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess([], _TIMED_OUT, "", "")


_TIMED_OUT = 124


def _ended(status: int) -> str:
    if status == _TIMED_OUT:
        return "does not return"
    return f"ends the process by signal {-status}" if status < 0 else f"ends the process with status {status}"


def _few(names: Sequence[str]) -> str:
    more = len(names) - 5
    return ", ".join(map(one_line, names[:5])) + (f" and {more} more" if more > 0 else "")
