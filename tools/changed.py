"""Runs a command on the changed files: those that differ from the main branch, committed or not, and new ones.

python tools/changed.py PATTERN ... -- COMMAND ...

Patterns are those of ``git ls-files``. Without a changed file the command does not run.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def git(*arguments: str) -> list[str]:
    """Return the lines that git prints, none where it fails."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.split("\n")[:-1] if done.returncode == 0 else []


def changed(patterns: list[str]) -> list[str]:
    """List the existing files that match ``patterns`` and differ from ``origin/main``, or else from ``main``."""
    base = git("merge-base", "HEAD", "origin/main") or git("merge-base", "HEAD", "main") or ["HEAD"]
    names = git("diff", "--name-only", "--diff-filter=d", base[0], "--", *patterns)
    names += git("ls-files", "--others", "--exclude-standard", "--", *patterns)
    return sorted(set(names))


def main(arguments: list[str]) -> int:
    """Run the command and return its exit status."""
    split = arguments.index("--")
    files, command = changed(arguments[:split]), arguments[split + 1 :]
    if not files:
        print(f"no file of {' '.join(arguments[:split])} has changed")
        return 0
    return subprocess.run([*command, *files], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
