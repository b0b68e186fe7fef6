"""What messages say is in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightx2v_core.checkpoint.folders import model_folder
from lightx2v_core.errors import CheckpointError
from lightx2v_core.plan.recognize import listing


def test_hidden_entries_are_not_listed(tmp_path: Path) -> None:
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".DS_Store").write_text("")
    assert listing(tmp_path) == "it is empty"
    (tmp_path / "vae").mkdir()
    (tmp_path / "config.json").write_text("{}")
    assert listing(tmp_path) == "it contains config.json, vae/"
    with pytest.raises(CheckpointError) as caught:
        model_folder(tmp_path / "Wan2.1-T2V-1.3B")
    assert str(caught.value).endswith("contains: vae")
