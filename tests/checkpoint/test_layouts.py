"""Other layouts: renames, joined parts, marks that are dropped, and files told apart by their content."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from lightx2v_core.builtin.safetensors_file import SafetensorsSource, read_header  # noqa: E402
from lightx2v_core.checkpoint.components import locate_component, read_component  # noqa: E402
from lightx2v_core.checkpoint.layouts import MappedSource, apply_key_map, recognize_layout  # noqa: E402
from lightx2v_core.errors import CheckpointError  # noqa: E402
from lightx2v_core.spec.components import ComponentSpec, KeyMap  # noqa: E402

COMFY = KeyMap(name="comfyui", renames=((r"^(model\.)?diffusion_model\.", ""),), drops=(r"^scaled_fp8$",))
SPLIT = KeyMap(
    name="split",
    renames=((r"^layers\.(\d+)\.self_attn\.([qkv])_proj\.(\w+)$", r"blocks.\1.to_qkv.\3#\2"),),
    joins=("q", "k", "v"),
)
SPEC = ComponentSpec(
    name="net",
    summary="network",
    files=("net.safetensors", "deep/*.safetensors", "*.safetensors"),
    signature=("blocks.0.to_qkv.weight",),
    layouts=(COMFY, SPLIT),
)
QKV = {f"blocks.{i}.to_qkv.weight": torch.arange(24.0).reshape(6, 4) + i for i in range(2)}


def split() -> dict[str, torch.Tensor]:
    parts = {}
    for name, tensor in QKV.items():
        layer = name.split(".")[1]
        for key, part in zip("qkv", tensor.chunk(3), strict=True):
            parts[f"layers.{layer}.self_attn.{key}_proj.weight"] = part.clone()
    return parts


@pytest.mark.parametrize(
    ("stored", "layout"),
    [
        (QKV, "official"),
        ({f"model.diffusion_model.{name}": value for name, value in QKV.items()}, "comfyui"),
        (
            {f"diffusion_model.{name}": v for name, v in QKV.items()} | {"scaled_fp8": torch.zeros(2)},
            "comfyui",
        ),
        (split(), "split"),
    ],
)
def test_each_layout_reads_as_the_official_one(
    stored: dict[str, torch.Tensor], layout: str, tmp_path: Path
) -> None:
    save_file(stored, tmp_path / "x.safetensors")
    header = read_header(tmp_path / "x.safetensors")
    mapped = recognize_layout(SPEC, header)
    assert mapped is not None
    assert mapped.layout == layout
    assert mapped.header.shapes == dict.fromkeys(QKV, (6, 4))
    source = MappedSource(SafetensorsSource(header), mapped)
    assert sorted(source.names()) == sorted(QKV)
    for name, tensor in QKV.items():
        assert torch.equal(source.read(name), tensor)
        assert source.info(name).nbytes == tensor.nbytes


def test_a_missing_part_is_no_match(tmp_path: Path) -> None:
    stored = split()
    del stored["layers.1.self_attn.k_proj.weight"]
    save_file(stored, tmp_path / "x.safetensors")
    assert apply_key_map(SPLIT, read_header(tmp_path / "x.safetensors")) is None


def test_parts_that_do_not_fit_are_named(tmp_path: Path) -> None:
    stored = split()
    stored["layers.1.self_attn.k_proj.weight"] = torch.zeros(2, 5)
    save_file(stored, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="are parts of one tensor, but their shapes or dtypes differ"):
        apply_key_map(SPLIT, read_header(tmp_path / "x.safetensors"))


def test_a_file_is_found_by_what_it_holds(tmp_path: Path) -> None:
    save_file({"lora_up": torch.zeros(1)}, tmp_path / "a.safetensors")
    save_file(QKV, tmp_path / "b.safetensors")
    found = locate_component(SPEC, tmp_path, None, read_header)
    assert found is not None
    assert [path.name for path in found.files] == ["b.safetensors"]
    assert found.rule == "file *.safetensors"


def test_two_of_a_kind_are_listed_with_their_precision(tmp_path: Path) -> None:
    save_file(QKV, tmp_path / "b.safetensors")
    save_file({name: value.bfloat16() for name, value in QKV.items()}, tmp_path / "c.safetensors")
    with pytest.raises(CheckpointError) as caught:
        locate_component(SPEC, tmp_path, None, read_header)
    assert "b.safetensors (float32)" in str(caught.value)
    assert "c.safetensors (bfloat16)" in str(caught.value)
    assert "components.net.path" in str(caught.value)


def test_patterns_name_folders_and_come_in_order(tmp_path: Path) -> None:
    save_file(QKV, tmp_path / "b.safetensors")
    (tmp_path / "deep").mkdir()
    save_file({"blocks.0.to_qkv.weight": torch.zeros(6, 4)}, tmp_path / "deep" / "block_0.safetensors")
    save_file({"blocks.1.to_qkv.weight": torch.zeros(6, 4)}, tmp_path / "deep" / "block_1.safetensors")
    save_file({"head": torch.zeros(1)}, tmp_path / "deep" / "non_block.safetensors")
    found = locate_component(SPEC, tmp_path, None, read_header)
    assert found is not None
    assert found.rule == "block files deep/*.safetensors"
    component = read_component(SPEC, tmp_path, found, read_header)
    assert sorted(component.header) == ["blocks.0.to_qkv.weight", "blocks.1.to_qkv.weight", "head"]


def test_an_explicit_file_must_be_what_it_is_given_for(tmp_path: Path) -> None:
    save_file({"lora_up": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"is not a network: no tensor 'blocks\.0\.to_qkv\.weight'"):
        locate_component(SPEC, tmp_path, str(tmp_path / "a.safetensors"), read_header)
