"""``lightx2v-core plugins new``: a distribution of one's own, with something in it that works."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from lightx2v_core.cli import COMMANDS
from lightx2v_core.cli.interruption import current_interruption
from lightx2v_core.discovery.plugins import PluginSet
from lightx2v_core.scaffold.composition import Wish, composed
from lightx2v_core.scaffold.creation import admitting, check_new, create
from lightx2v_core.scaffold.identity import check_free, identity, kinds_from
from lightx2v_core.spec.version import __version__


def write_new(
    plugins: PluginSet,
    name: str,
    words: Sequence[str],
    *,
    output: str | None,
    author: str,
    license_: str,
) -> dict[str, Any]:
    """Write a distribution; what it is, as plain data. ``RequestError`` for a name, kind or folder that cannot be."""
    wanted, kinds = identity(name), kinds_from(words)
    provided: dict[str, list[str]] = {
        kind: [item.spec.name for item in plugins.provided(kind)] for kind in kinds
    }
    if "command" in provided:
        provided["command"] += COMMANDS
    installed = {plugin.name: plugin.dist_name for plugin in plugins.plugins}
    check_free(wanted, kinds, plugins=installed, provided=provided)
    folder = Path(output if output is not None else wanted.distribution)
    check_new(folder)
    wish = Wish(
        identity=wanted,
        kinds=kinds,
        license=license_,
        author=author,
        year=date.today().year,
        admits=admitting(__version__),
    )
    contents = composed(wish)
    create(folder, contents, current_interruption().finish)
    return {
        "plugin": wanted.name,
        "distribution": wanted.distribution,
        "kinds": list(kinds),
        "folder": str(folder),
        "files": sorted(contents),
    }


def summary(made: dict[str, Any]) -> str:
    """What was written, and what to do next."""
    return "\n".join(
        [
            f"{made['folder']}: {made['distribution']} with {', '.join(made['kinds'])}, {len(made['files'])} files",
            "next:",
            f"  cd {made['folder']}",
            '  python -m pip install -e ".[dev]"',
            "  python -m pytest",
            f"  lightx2v-core plugins check {made['plugin']} --strict",
            f"src/{made['distribution'].replace('-', '_')}/plugin.py is where to begin",
        ]
    )
