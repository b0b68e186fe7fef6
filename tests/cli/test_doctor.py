"""``doctor`` reports what it finds, quickly, and names the known problems."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lightx2v_core.cli import checkup as doctor
from lightx2v_core.discovery.plugins import load_plugins
from lightx2v_core.spec.context import Device
from lightx2v_core.testing import environment, heavy_imports
from lightx2v_core.testing.fixtures import FakeDist


def test_the_report(cli: Any) -> None:
    result = cli("doctor")
    assert result.status == 0
    for words in ("lightx2v-core 0.1", "processors", "device    CPU", "torch ", "core: loaded"):
        assert words in result.out
    assert "core/sdpa: usable" in result.out
    assert "no known problems" in result.out
    found = json.loads(cli("doctor", "--json").out)
    assert found["problems"] == []
    assert found["implementations"]["attention"]["core/sdpa"] == []


def test_it_imports_no_torch() -> None:
    code = "import sys; from lightx2v_core.cli import main; main(['doctor'])"
    assert heavy_imports(code, forbidden=("torch", "numpy", "av"), env=environment()) == []


def test_a_broken_plugin_is_a_problem(fake_dist: FakeDist) -> None:
    fake_dist("acme", modules={"acme_plugin.py": "import nowhere"}, plugins={"acme": "acme_plugin"})
    found = doctor.checkup(load_plugins())
    assert any("acme" in problem for problem in found.problems)
    assert found.plugins["acme"].startswith("broken")


@pytest.mark.parametrize(
    ("version", "kind", "bad"),
    [
        ("2.9.1+cu128", "cuda", True),
        ("2.9.1+cu128", "cpu", False),
        ("2.10.0", "cuda", False),
        ("2.8.0", "cuda", True),
    ],
)
def test_known_bad_versions(monkeypatch: pytest.MonkeyPatch, version: str, kind: str, bad: bool) -> None:
    card = Device(kind=kind, name="card", capability=(8, 9), memory=2**34)
    monkeypatch.setattr(doctor.device, "probe", lambda: (card, "auto"))
    monkeypatch.setattr(doctor, "_version", lambda name: version if name == "torch" else "")
    found = doctor.checkup(load_plugins())
    assert bool(found.problems) == bad
