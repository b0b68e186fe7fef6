"""What the docs for plugin authors say is what the code does: fields, code blocks and commands."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = (REPOSITORY / "docs" / "writing-a-plugin.md").read_text(encoding="utf-8")
EXAMPLE = REPOSITORY / "examples" / "plugins" / "lightx2v-example"
BLOCKS = re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


def test_hooks_are_documented_as_they_are() -> None:
    path = REPOSITORY / "docs" / "hooks_reference.py"
    spec = importlib.util.spec_from_file_location("hooks_reference", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    written = (REPOSITORY / "docs" / "hooks.md").read_text(encoding="utf-8")
    assert module.reference() == written, "run python docs/hooks_reference.py"


@pytest.mark.parametrize(("file", "code"), BLOCKS, ids=[f"{file}-{i}" for i, (file, _) in enumerate(BLOCKS)])
def test_code_blocks_are_taken_from_the_example(file: str, code: str) -> None:
    assert code in (EXAMPLE / file).read_text(encoding="utf-8")


def test_every_python_block_names_its_file() -> None:
    assert len(BLOCKS) == len(re.findall(r"```(?:python|toml)", PAGE))


def test_the_commands_run(tmp_path: Path) -> None:
    pytest.importorskip("lightx2v_example", reason="lightx2v-example is not installed")
    scripts = Path(sys.executable).parent
    env = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    assert len(COMMANDS) > 5
    for line in COMMANDS:
        words = shlex.split(line)
        command = [sys.executable, "-m", "lightx2v_core", *words[1:]] if words[0] == "lightx2v-core" else [
            sys.executable, *words[1:]
        ]  # fmt: skip
        result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert result.returncode == 0, (line, result.stdout, result.stderr)
    assert (tmp_path / "pebble.mp4").is_file()
    assert (tmp_path / "small.mp4").is_file()
