"""What the distribution brings: the contract of checkpoints, the card, and the layout."""

from __future__ import annotations

import hashlib
import json

from lightx2v_core.plugins import load_plugins
from lightx2v_core.testing.contracts import CheckpointContract
from lightx2v_mini.plugin import CHECKPOINTS


class TestMini(CheckpointContract):
    use = "mini"


def card() -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = json.loads((CHECKPOINTS / "card.json").read_text(encoding="utf-8"))
    return found


def test_the_card_is_of_these_files() -> None:
    """Every file is on the card with its checksum, and no other: figures and weights belong together."""
    for name, entry in card().items():
        there = {
            str(path.relative_to(CHECKPOINTS / name)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in (CHECKPOINTS / name).rglob("*")
            if path.is_file()
        }
        assert there == entry["files"]
    assert {path.name for path in CHECKPOINTS.iterdir() if path.is_dir()} == set(card())


def test_every_checkpoint_can_be_named() -> None:
    folders = {item.spec.folder() for item in load_plugins().provided("checkpoint") if item.plugin == "mini"}
    assert folders == {CHECKPOINTS / name for name in card()}
