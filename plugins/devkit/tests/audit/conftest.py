"""The plugin ``zeta`` with the mistakes of a test, installed and checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lightx2v_core.api import Plugin, load_plugins
from lightx2v_core.testing.fixtures import FakeDist
from lightx2v_devkit.audit.findings import Finding
from lightx2v_devkit.audit.report import audit

from .zeta import ABOUT, HEAD, RIGHT, Look


@pytest.fixture
def look(fake_dist: FakeDist, monkeypatch: pytest.MonkeyPatch) -> Look:
    """Install a plugin ``zeta`` with this body, and check it; or run only one part of the checks."""
    monkeypatch.delenv("LIGHTX2V_PLUGINS", raising=False)
    monkeypatch.delenv("LIGHTX2V_DISABLE_PLUGINS", raising=False)

    def run(
        body: str = RIGHT,
        *,
        name: str = "zeta",
        contracts: bool = False,
        part: Callable[[Plugin], Iterator[Finding]] | None = None,
        **parts: Any,
    ) -> list[Finding]:
        given: dict[str, Any] = {
            "modules": {"lightx2v_zeta/__init__.py": "", "lightx2v_zeta/plugin.py": HEAD + body},
            "plugins": {"zeta": "lightx2v_zeta.plugin"},
            "requires": ["lightx2v-core>=0.1,<9"],
            "about": ABOUT,
        }
        fake_dist("lightx2v-zeta", **(given | parts))
        plugins = load_plugins()
        if part is not None:
            return list(part(plugins[name]))
        return audit(plugins, name=name, commands=["run"], contracts=contracts)

    return run
