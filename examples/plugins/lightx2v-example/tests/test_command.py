"""The contract of commands, and the table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from lightx2v_core.api import RequestError
from lightx2v_core.testing.contracts import CommandContract

from lightx2v_example.records import command


class TestCommand(CommandContract):
    use = "pebble"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed in (7, 3):
        record: dict[str, Any] = {
            "lightx2v_record": 1,
            "created": f"2026-01-0{seed}T00:00:00+00:00",
            "variant": "some-model",
            "request": {"width": 64, "height": 32, "frames": 5, "steps": 2, "seed": seed},
            "seconds": {"load": 1.25, "denoise": 2.5},
        }
        (tmp_path / f"{seed}.json").write_text(json.dumps(record), encoding="utf-8")
    (tmp_path / "other.json").write_text("[]", encoding="utf-8")
    return tmp_path


def test_the_table(folder: Path) -> None:
    done = CliRunner().invoke(command, [str(folder)])
    rows = [line.split() for line in done.output.splitlines()]
    assert [row[5] for row in rows] == ["seed", "3", "7"]
    assert rows[1][1:7] == ["some-model", "64x32", "5", "2", "3", "3.8"]


def test_another_order_as_json(folder: Path) -> None:
    done = CliRunner().invoke(command, [str(folder), "--sort", "file", "--json"])
    assert [row["seed"] for row in json.loads(done.output)] == [3, 7]


def test_other_files_are_rejected(folder: Path, tmp_path: Path) -> None:
    for path, words in (
        (folder / "other.json", "is not a run record"),
        (tmp_path / "none", "does not exist"),
    ):
        done = CliRunner().invoke(command, [str(path)])
        assert isinstance(done.exception, RequestError)
        assert words in str(done.exception)
