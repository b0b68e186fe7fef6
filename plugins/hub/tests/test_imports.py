"""Imports of ``download``: help and catalog need neither torch nor huggingface_hub."""

from __future__ import annotations

import pytest

from lightx2v_core.testing import HEAVY, assert_light_import, environment, heavy_imports

MAIN = "from lightx2v_core.cli import main; main()"


@pytest.mark.parametrize("module", ["plugin", "command", "fetch"])
def test_modules_that_import_nothing_heavy(module: str) -> None:
    assert_light_import(f"lightx2v_hub.{module}", forbidden=[*HEAVY, "huggingface_hub"])


@pytest.mark.parametrize("option", ["--help", "--list"])
def test_commands_that_import_nothing_heavy(option: str) -> None:
    forbidden = [*HEAVY, "huggingface_hub"]
    assert heavy_imports(MAIN, forbidden=forbidden, arguments=["download", option], env=environment()) == []
