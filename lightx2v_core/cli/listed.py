"""The subcommands of first-party plugins that can be used here, for ``--help``, which loads no plugin and is quick."""

from __future__ import annotations

from importlib.util import find_spec

from lightx2v_core.discovery import catalog


def listed_commands(parent: str | None = None) -> dict[str, str]:
    """Name -> summary of the subcommands of ``parent``, or of the program.

    What there is stands in the catalog; whether it is installed is told by modules that can be found, which imports
    none of them. Using a command checks the versions, too.
    """
    return {
        full_name.rpartition(" ")[2]: entry["summary"]
        for full_name, entry in catalog.commands().items()
        if full_name.rpartition(" ")[0] == (parent or "")
        and all(find_spec(module) for module in (entry["module"], *entry["needs"]))
    }
