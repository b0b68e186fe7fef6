"""Available commands of first-party plugins, for ``--help``, which is fast and loads no plugin."""

from __future__ import annotations

from importlib.util import find_spec

from lightx2v_core.discovery import catalog


def listed_commands(parent: str | None = None) -> dict[str, str]:
    """Return the name and summary of the available plugin commands below ``parent``, or at the top level.

    The commands are listed in the catalog; one is available if its modules can be found, without importing them.
    Running a command also checks versions.
    """
    return {
        full_name.rpartition(" ")[2]: entry["summary"]
        for full_name, entry in catalog.commands().items()
        if full_name.rpartition(" ")[0] == (parent or "")
        and all(find_spec(module) for module in (entry["module"], *entry["needs"]))
    }
