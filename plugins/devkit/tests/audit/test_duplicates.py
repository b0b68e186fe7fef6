"""Distributions that lie on the path more than once are reported, and one folder under two names is none."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from lightx2v_core.api import load_plugins
from lightx2v_core.testing.fixtures import FakeDist
from lightx2v_devkit.audit.duplicates import place_findings

SOURCE = """
from lightx2v_core.api import AttentionSpec, hookimpl


@hookimpl
def lightx2v_attention_backends():
    return [AttentionSpec(name="a", summary="x", build=print)]
"""


def test_one_folder_under_two_names_is_no_second_copy(
    fake_dist: FakeDist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fake_dist("acme", modules={"acme_plugin.py": SOURCE}, plugins={"acme": "acme_plugin"})
    link = tmp_path / "lib64"
    link.symlink_to(folder)
    monkeypatch.setattr(sys, "path", [*sys.path, str(link)])
    assert not any("acme" in finding.text for finding in place_findings(load_plugins(environ={})))


def test_a_second_copy_is_reported(fake_dist: FakeDist) -> None:
    parts: dict[str, Any] = {
        "modules": {"acme_plugin.py": SOURCE},
        "plugins": {"acme": "acme_plugin"},
    }
    old = fake_dist("acme", version="1.0", **parts)
    new = fake_dist("acme", version="2.0", **parts)
    plugins = load_plugins(environ={})
    assert [plugin.version for plugin in plugins.plugins if plugin.name == "acme"] == ["2.0"]
    (found,) = (finding.text for finding in place_findings(plugins) if "acme" in finding.text)
    assert found == f"acme is found 2 times on the path, {new} wins: {new}, {old}"


def test_a_stale_egg_info_that_hides_a_plugin_is_reported(fake_dist: FakeDist) -> None:
    fake_dist("acme", modules={"acme_plugin.py": SOURCE}, plugins={"acme": "acme_plugin"})
    stale = fake_dist("other", modules={}, plugins={})
    (stale / "acme.egg-info").mkdir()
    (stale / "acme.egg-info" / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 0.1\n")
    plugins = load_plugins(environ={})
    assert "acme" not in [plugin.name for plugin in plugins.plugins]
    start = f"acme is found 2 times on the path, {stale} wins"
    assert any(finding.text.startswith(start) for finding in place_findings(plugins))
