"""What the commands cost before they begin: help and refused options import no tensors."""

from __future__ import annotations

import pytest

from lightx2v_core.testing import HEAVY, assert_light_import, environment, heavy_imports

MAIN = "from lightx2v_core.cli import main; main()"


@pytest.mark.parametrize("module", ["plugin", "command", "extract_command"])
def test_modules_that_import_nothing_heavy(module: str) -> None:
    assert_light_import(f"lightx2v_convert.{module}", forbidden=[name for name in HEAVY if name != "cattrs"])


@pytest.mark.parametrize("arguments", [("convert", "--help"), ("extract-lora", "--help")])
def test_commands_that_import_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert (
        heavy_imports(MAIN, forbidden=("torch", "numpy", "av"), arguments=arguments, env=environment()) == []
    )
