"""Locating the files of components: shards, indexes, overrides, and refusals."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lightx2v_core.api import CheckpointError, ComponentSpec
from lightx2v_core.builtin.safetensors_file import read_header
from lightx2v_core.checkpoint.components import locate_component, read_component
from lightx2v_core.checkpoint.folders import model_folder, read_network_config

SPEC = ComponentSpec(
    name="dit",
    summary="diffusion transformer",
    files=("diffusion_pytorch_model*.safetensors", "dit.safetensors"),
    assets={"tokenizer": "google/tokenizer.json"},
)
INDEX = "diffusion_pytorch_model.safetensors.index.json"


def shard(number: int, total: int) -> str:
    return f"diffusion_pytorch_model-{number:05d}-of-{total:05d}.safetensors"


def put(folder: Path, name: str, *tensors: str) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({tensor: torch.zeros(2) for tensor in tensors}, path)
    return name


def put_index(folder: Path, weight_map: object, name: str = INDEX) -> None:
    (folder / name).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def names(folder: Path, override: str | None = None) -> list[str]:
    found = locate_component(SPEC, folder, override)
    assert found is not None
    component = read_component(SPEC, folder, found, read_header)
    return [path.name for path in component.files]


def refusal(folder: Path, override: str | None = None) -> str:
    with pytest.raises(CheckpointError) as caught:
        names(folder, override)
    return str(caught.value)


def test_nothing_there(tmp_path: Path) -> None:
    put(tmp_path, "other.safetensors", "a")
    assert locate_component(SPEC, tmp_path, None) is None


def test_a_single_file_and_the_order_of_patterns(tmp_path: Path) -> None:
    put(tmp_path, "dit.safetensors", "a")
    assert names(tmp_path) == ["dit.safetensors"]
    put(tmp_path, "diffusion_pytorch_model.safetensors", "a")
    assert names(tmp_path) == ["diffusion_pytorch_model.safetensors"]


def test_assets_lie_in_the_model_folder(tmp_path: Path) -> None:
    put(tmp_path, "dit.safetensors", "a")
    found = locate_component(SPEC, tmp_path, None)
    assert found is not None
    component = read_component(SPEC, tmp_path, found, read_header)
    assert component.assets["tokenizer"] == tmp_path / "google" / "tokenizer.json"


def test_shards_with_their_index(tmp_path: Path) -> None:
    put_index(tmp_path, {"a": put(tmp_path, shard(1, 2), "a"), "b": put(tmp_path, shard(2, 2), "b")})
    assert names(tmp_path) == [shard(1, 2), shard(2, 2)]


def test_shards_without_an_index_are_complete_by_their_numbers(tmp_path: Path) -> None:
    put(tmp_path, shard(1, 2), "a")
    put(tmp_path, shard(2, 2), "b")
    assert names(tmp_path) == [shard(1, 2), shard(2, 2)]


@pytest.mark.parametrize("there", [(1, 3), (3,), (1,)])
def test_shards_without_an_index_that_are_incomplete(tmp_path: Path, there: Sequence[int]) -> None:
    for number in there:
        put(tmp_path, shard(number, 3), f"t{number}")
    message = refusal(tmp_path)
    assert "missing" in message
    for number in {1, 2, 3} - set(there):
        assert f"{number:05d}" in message


def test_shard_numbers_outside_of_their_total(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        put(tmp_path, shard(number, 2), f"t{number}")
    assert "00003" in refusal(tmp_path)


def test_many_missing_shards_make_no_long_message(tmp_path: Path) -> None:
    put(tmp_path, shard(1, 99999), "a")
    assert len(refusal(tmp_path)) < 1000


def test_a_shard_of_the_index_is_missing(tmp_path: Path) -> None:
    put(tmp_path, shard(1, 2), "a")
    put_index(tmp_path, {"a": shard(1, 2), "b": shard(2, 2)})
    message = refusal(tmp_path)
    assert shard(2, 2) in message
    assert "missing" in message
    assert "download" in message


@pytest.mark.parametrize(
    "entry",
    ["../x.safetensors", "sub/../../x.safetensors", "/etc/passwd", "C:\\x.safetensors", "C:x.safetensors",
     "..\\x.safetensors", "\\\\host\\share\\x.safetensors", "", ".", "a/..", "a\0b.safetensors"],
)  # fmt: skip
def test_an_index_that_points_outside_the_folder(tmp_path: Path, entry: str) -> None:
    folder = tmp_path / "model"
    put(folder, shard(1, 2), "a")
    put(tmp_path, "x.safetensors", "b")
    put_index(folder, {"a": shard(1, 2), "b": entry})
    message = refusal(folder)
    assert repr(entry) in message
    assert "refused" in message


def test_an_index_may_name_a_folder_below(tmp_path: Path) -> None:
    put_index(tmp_path, {"a": put(tmp_path, "parts/one.safetensors", "a")})
    assert names(tmp_path) == ["one.safetensors"]


def test_symbolic_links_are_followed(tmp_path: Path) -> None:
    store, folder = tmp_path / "store", tmp_path / "model"
    folder.mkdir()
    for number, tensor in ((1, "a"), (2, "b")):
        put(store, f"blob{number}", tensor)
        os.symlink(store / f"blob{number}", folder / shard(number, 2))
    put_index(folder, {"a": shard(1, 2), "b": shard(2, 2)})
    assert names(folder) == [shard(1, 2), shard(2, 2)]


def test_a_dangling_link_is_a_missing_shard(tmp_path: Path) -> None:
    put(tmp_path, shard(1, 2), "a")
    os.symlink(tmp_path / "gone", tmp_path / shard(2, 2))
    put_index(tmp_path, {"a": shard(1, 2), "b": shard(2, 2)})
    assert "missing" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("weight_map", "words"),
    [
        ({"a": shard(1, 2), "b": shard(1, 2)}, "b (index: "),
        ({"a": shard(1, 2), "b": shard(2, 2), "c": shard(2, 2)}, "c (index: "),
        ({"a": shard(2, 2), "b": shard(1, 2)}, "2 tensors are not in the file it names"),
    ],
)
def test_an_index_that_does_not_agree_with_its_shards(
    tmp_path: Path, weight_map: dict[str, str], words: str
) -> None:
    put(tmp_path, shard(1, 2), "a")
    put(tmp_path, shard(2, 2), "b")
    put_index(tmp_path, weight_map)
    message = refusal(tmp_path)
    assert "does not match its shards" in message
    assert words in message


def test_shards_that_hold_more_than_their_index(tmp_path: Path) -> None:
    put_index(tmp_path, {"a": put(tmp_path, shard(1, 1), "a", "secret")})
    assert "secret (only in " in refusal(tmp_path)


def test_an_index_is_checked_whatever_its_shards_are_called(tmp_path: Path) -> None:
    put(tmp_path, "one.safetensors", "a")
    put_index(tmp_path, {"a": "one.safetensors", "b": "one.safetensors"})
    assert "does not match its shards" in refusal(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "5", "null", "{}", '{"weight_map": {}}', '{"weight_map": []}', '{"weight_map": {"a": 5}}',
     '{"weight_map": {"a": null}}', '{"weight_map": "x"}', "[" * 100_000],
)  # fmt: skip
def test_a_damaged_index(tmp_path: Path, text: str) -> None:
    put(tmp_path, shard(1, 1), "a")
    (tmp_path / INDEX).write_text(text)
    message = refusal(tmp_path)
    assert INDEX in message
    assert "is not a shard index" in message
    assert len(message) < 1000


def test_an_index_that_is_no_text(tmp_path: Path) -> None:
    put(tmp_path, shard(1, 1), "a")
    (tmp_path / INDEX).write_bytes(b'{"weight_map": "\xff\xfe"}')
    assert "not a shard index" in refusal(tmp_path)


def test_two_unrelated_files_are_ambiguous(tmp_path: Path) -> None:
    put(tmp_path, "diffusion_pytorch_model.safetensors", "a")
    put(tmp_path, "diffusion_pytorch_model_fp8.safetensors", "a")
    message = refusal(tmp_path)
    assert "more than one diffusion transformer" in message
    assert "components.dit.path" in message
    assert "\n  diffusion_pytorch_model.safetensors\n  diffusion_pytorch_model_fp8.safetensors" in message
    assert names(tmp_path, str(tmp_path / "diffusion_pytorch_model_fp8.safetensors")) == [
        "diffusion_pytorch_model_fp8.safetensors"
    ]


def test_two_sets_of_shards_are_ambiguous(tmp_path: Path) -> None:
    for total in (1, 2):
        for number in range(1, total + 1):
            put(tmp_path, shard(number, total), f"t{number}")
    assert "more than one" in refusal(tmp_path)


def test_two_indexes_are_ambiguous(tmp_path: Path) -> None:
    put(tmp_path, shard(1, 1), "a")
    put_index(tmp_path, {"a": shard(1, 1)})
    put_index(tmp_path, {"a": shard(1, 1)}, "diffusion_pytorch_model_2.safetensors.index.json")
    assert "more than one" in refusal(tmp_path)


def test_a_tensor_in_two_shards(tmp_path: Path) -> None:
    put(tmp_path, shard(1, 2), "a", "twice")
    put(tmp_path, shard(2, 2), "b", "twice")
    message = refusal(tmp_path)
    assert "'twice'" in message
    assert shard(1, 2) in message
    assert shard(2, 2) in message


def test_an_override(tmp_path: Path) -> None:
    other = tmp_path / "other"
    put(other, "some_name.safetensors", "a")
    folder = tmp_path / "model"
    put(folder, "dit.safetensors", "a")
    assert names(folder, str(other)) == ["some_name.safetensors"]
    assert names(folder, str(other / "some_name.safetensors")) == ["some_name.safetensors"]
    assert "does not exist" in refusal(folder, str(tmp_path / "nowhere"))
    (tmp_path / "void").mkdir()
    assert "contains no diffusion transformer" in refusal(folder, str(tmp_path / "void"))


@pytest.mark.parametrize("path", ["~no_such_user_here/model", "x" * 5000, "a\0b"])
def test_paths_that_no_system_takes(tmp_path: Path, path: str) -> None:
    put(tmp_path, "dit.safetensors", "a")
    with pytest.raises(CheckpointError, match="does not exist"):
        model_folder(path)
    assert "does not exist" in refusal(tmp_path, path)


def test_a_missing_folder_names_the_near_ones(tmp_path: Path) -> None:
    for name in ("Wan2.1-T2V-1.3B", "Wan2.1-T2V-14B", "zoo", *(f"aaa{i}" for i in range(20))):
        (tmp_path / name).mkdir()
    with pytest.raises(CheckpointError) as caught:
        model_folder(tmp_path / "Wan2.1-T2V-1.3b")
    assert "does not exist; did you mean " in str(caught.value)
    assert "Wan2.1-T2V-1.3B" in str(caught.value)
    with pytest.raises(CheckpointError) as caught:
        model_folder(tmp_path / "quite different")
    assert f"{str(tmp_path)!r} contains: " in str(caught.value)


def test_a_file_and_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "void").mkdir()
    with pytest.raises(CheckpointError, match="is a file; use the folder that contains the model's files"):
        model_folder(tmp_path / "file")
    with pytest.raises(CheckpointError, match="does not exist"):
        model_folder(tmp_path / "file" / "below")
    with pytest.raises(CheckpointError, match="is empty"):
        model_folder(tmp_path / "void")


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"5", b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_config_json(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_network_config(tmp_path)
    assert "config.json" in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_no_config_json(tmp_path: Path) -> None:
    assert read_network_config(tmp_path) == {}
