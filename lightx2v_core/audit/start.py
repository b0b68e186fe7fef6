"""What importing a plugin costs: it is imported whenever plugins are listed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from lightx2v_core.audit.findings import Finding, error, warning
from lightx2v_core.plugins import Plugin
from lightx2v_core.testing.dists import environment
from lightx2v_core.testing.imports import HEAVY

#: processor seconds, beside those of the core: several times what a module of specs takes
SLOW = 0.25
_PROGRAM = """
import json, sys, time
from importlib import import_module
import lightx2v_core.api
before, heavy = set(sys.modules), sys.argv[2:]
start = time.process_time()
import_module(sys.argv[1])
seconds = time.process_time() - start
print("\\n" + json.dumps([seconds, [name for name in heavy if name in sys.modules and name not in before]]))
"""


def start_findings(plugin: Plugin) -> Iterator[Finding]:
    """Whether its entry module imports something heavy, or takes long; in a fresh interpreter."""
    module = plugin.module.partition(":")[0]
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, module, *HEAVY],
        env=environment(*(Path(folder) for folder in sys.path if folder)),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        yield error(plugin.name, f"{module} cannot be imported in a fresh interpreter: {last[0]}")
        return
    seconds, heavy = json.loads(done.stdout.splitlines()[-1])
    if heavy:
        yield error(
            plugin.name,
            f"importing {module} imports {', '.join(heavy)}, and so does every command that lists plugins: move that "
            "into the bodies of build and unusable",
        )
    elif seconds > SLOW:
        yield warning(
            plugin.name,
            f"importing {module} takes {seconds:.2f} s of the processor in every command that lists plugins; "
            f"python -X importtime -c 'import {module}' shows what takes it",
        )
