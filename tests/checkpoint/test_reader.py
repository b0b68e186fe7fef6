"""One message for a file or folder that cannot be accessed; headers and listings are cached until they change."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lightx2v_core.checkpoint.folders import model_folder
from lightx2v_core.checkpoint.header_cache import Reader
from lightx2v_core.checkpoint.listing import filesystem_errors, list_folder, why_not
from lightx2v_core.checkpoint.objects import read_object
from lightx2v_core.checkpoint.renames import Renames, is_anchored
from lightx2v_core.errors import CheckpointError
from lightx2v_core.spec.tensors import Header

INDEX = "m.safetensors.index.json"


def aged(folder: Path) -> None:
    """A folder that changed a while ago, so that its time tells a later change."""
    os.utime(folder, (1, 1))


@pytest.mark.parametrize(
    ("entry", "said"),
    [("x" * 300 + ".safetensors", "not a valid file name"), 
     ("\ud800.safetensors", "not a valid file name"),
     ("a\0b.safetensors", "not a valid file name"), ("sub/" + "y" * 256, "not a valid file name"),
     ("../x.safetensors", "points outside"), ("/x.safetensors", "points outside"), (".", "points outside"),
     ("c:\\x.safetensors", "points outside"), ("gone.safetensors", "missing"), ("gone/x.safetensors", "missing")],
)  # fmt: skip
def test_an_index_that_names_what_cannot_be(tmp_path: Path, entry: str, said: str) -> None:
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": entry}}))
    sets, broken = Reader(_no_header).sets(tmp_path, "*.safetensors", "model")
    assert sets == []
    ((_, problem),) = broken
    assert said in problem
    assert INDEX in problem
    assert len(problem) < 600


def test_an_index_that_names_very_many_files(tmp_path: Path) -> None:
    said = {f"t{i}": f"f{i}.safetensors" for i in range(200_000)}
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": said}))
    ((_, problem),) = Reader(_no_header).sets(tmp_path, "*.safetensors", "model")[1]
    assert "names 200000 files; 200000 of them are missing" in problem
    assert "and 199992 more" in problem
    assert len(problem) < 600


def test_links_that_cannot_be_followed(tmp_path: Path) -> None:
    (tmp_path / "long.safetensors").symlink_to("a" * 300)
    (tmp_path / "circle.safetensors").symlink_to("circle.safetensors")
    (tmp_path / "nowhere.safetensors").symlink_to("gone")
    (tmp_path / "good.safetensors").touch()
    found = list_folder(tmp_path)
    assert found.files == ("good.safetensors",)
    assert found.dangling == {"nowhere.safetensors": "gone"}
    assert "long.safetensors" in found.unreadable
    problems = [problem for _, problem in Reader(_no_header).sets(tmp_path, "*.safetensors", "model")[1]]
    assert any("long.safetensors cannot be accessed" in problem for problem in problems)


def test_a_folder_that_may_not_be_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may enter everything, so the system's answer is given in its place."""

    def refused(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refused)
    for look in (list_folder, model_folder):
        with pytest.raises(CheckpointError, match="cannot be accessed: Permission denied") as caught:
            look(tmp_path)
        assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"), [("x" * 300, "name is too long"), ("a\0b", "invalid file name"), ("gone", "")]
)
def test_why_there_is_nothing(tmp_path: Path, name: str, said: str) -> None:
    reason = why_not(tmp_path / name)
    assert reason.startswith("does not exist")
    assert said in reason
    assert why_not(tmp_path) == ""


def test_an_error_of_the_system_without_a_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be accessed: Stale"), filesystem_errors(tmp_path):
        raise OSError(116, "Stale file handle")


@pytest.mark.parametrize(
    "text", ["[]", "7", "{", "\ud800", "[" * 100_000, '{"a": ' * 100_000, "[" + "[]," * 11_000_000 + "1]"]
)
def test_an_object_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(CheckpointError, match="config.json is damaged"):
        read_object(tmp_path / "config.json", "is damaged")


def test_what_was_wrong_is_remembered_until_the_file_changes(tmp_path: Path) -> None:
    calls = []

    def read(path: Path) -> Header:
        calls.append(path)
        if path.read_text() == "bad":
            raise CheckpointError("it is bad")
        return Header(tensors={})

    file = tmp_path / "a.safetensors"
    file.write_text("bad")
    aged(file)
    reader = Reader(read)
    for _ in range(3):
        with pytest.raises(CheckpointError, match="it is bad"):
            reader(file)
    assert len(calls) == 1
    file.write_text("good")
    aged(file)
    assert reader(file) is reader(file)
    assert len(calls) == 2


def test_a_new_file_is_seen(tmp_path: Path) -> None:
    reader = Reader(_no_header)
    assert reader.listing(tmp_path).files == ()
    (tmp_path / "a.safetensors").touch()
    assert reader.listing(tmp_path).files == ("a.safetensors",)
    assert len(reader.sets(tmp_path, "*.safetensors", "model")[0]) == 1


RENAMES = (
    (r"^encoder\.(\d+)\.", r"blocks.\1."),
    (r"\.norm1\.", ".first."),
    (r"^a|b$", "c"),
    (r"(x)\1", "y"),
    (r"(?i)UPPER", "lower"),
)


@pytest.mark.parametrize(
    ("name", "new"),
    [("encoder.7.norm1.weight", "blocks.7.first.weight"), ("zb", "zc"), ("a.weight", "c.weight"), ("zxxz", "zyz"),
     ("zUpper", "zlower"), ("the.encoder.7.weight", "the.encoder.7.weight"), ("plain", "plain"), ("gone.7", None)],
)  # fmt: skip
def test_renames_are_what_each_pattern_says(name: str, new: str | None) -> None:
    assert Renames(RENAMES, (r"^gone\.",)).renamed(name) == new


@pytest.mark.parametrize(
    ("pattern", "anchored"),
    [
        ("^a", True),
        ("^(a|b)", True),
        (r"^\|a", True),
        ("^[|]a", True),
        ("^a|b", False),
        ("a", False),
        ("^*a", False),
    ],
)
def test_which_patterns_match_at_the_start_alone(pattern: str, anchored: bool) -> None:
    assert is_anchored(pattern) is anchored


def _no_header(path: Path) -> Header:
    raise AssertionError(path)
