"""The contents of the distribution: the contract of checkpoints, the card, and the layout."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from lightx2v_core.discovery.plugins import load_plugins
from lightx2v_core.testing.contracts import CheckpointContract
from lightx2v_mini.plugin import CHECKPOINTS


class TestTextToVideo(CheckpointContract):
    use = "mini"


class TestImageToVideo(CheckpointContract):
    use = "mini-i2v"


class TestExperts(CheckpointContract):
    use = "mini-experts"


class TestFourSteps(CheckpointContract):
    use = "mini-4step"


def card() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CHECKPOINTS / "card.json").read_text(encoding="utf-8"))
    return found


def test_the_card_is_of_these_files() -> None:
    """The card lists every file with its checksum, and no other: figures and weights belong together."""
    told = {name: digest for entry in card().values() for name, digest in entry["files"].items()}
    there = {
        path.relative_to(CHECKPOINTS).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in CHECKPOINTS.rglob("*")
        if path.is_file() and path.name != "card.json"
    }
    assert there == told


def test_the_card_names_no_place_of_the_machine_that_made_it() -> None:
    told = [value for entry in card().values() for value in entry["evaluated_with"].values()]
    assert told
    assert [value for value in told if Path(value).is_absolute()] == []


def test_every_folder_can_be_named() -> None:
    folders = {item.spec.folder() for item in load_plugins().provided("checkpoint") if item.plugin == "mini"}
    assert folders == {path for path in CHECKPOINTS.iterdir() if path.is_dir()}
