"""``lightx2v_core.weights`` as a program of somebody else uses it: with the core alone, on files of no known model."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402

from lightx2v_core import weights  # noqa: E402
from lightx2v_core.api import (  # noqa: E402
    CheckpointError,
    ComponentSpec,
    KeyMap,
    PluginError,
    RequestError,
    load_plugins,
    quantize_weight,
)
from lightx2v_core.weights import (  # noqa: E402
    Checkpoints,
    DequantizedSource,
    LoraConfig,
    MappedSource,
    QuantizedSource,
    layer_formats,
    quantizable_layers,
    quantized_layer,
    recognize_layout,
    serialize_safetensors,
    write_atomically,
)

#: a network of which some files put "net." in front of every name, and two matrices where others have one
SPEC = ComponentSpec(
    name="network",
    summary="network",
    files=("*.safetensors",),
    signature=("blocks.0.fc.weight",),
    layouts=(
        KeyMap(
            name="split",
            renames=((r"^net\.", ""), (r"\.fc_([ab])\.weight$", r".fc.weight#\1")),
            joins=("a", "b"),
        ),
    ),
)


@pytest.fixture
def checkpoints() -> Checkpoints:
    return Checkpoints(load_plugins(only=["core"]))


def test_every_name_is_there() -> None:
    for name in weights.__all__:
        assert getattr(weights, name) is not None
        assert name in dir(weights)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        weights.nothing  # noqa: B018


def test_a_file_is_quantized_and_read_back(checkpoints: Checkpoints, tmp_path: Path) -> None:
    torch.manual_seed(0)
    tensors = {"blocks.0.fc.weight": torch.randn(16, 8), "blocks.0.norm.weight": torch.randn(8)}
    save_file(tensors, tmp_path / "plain.safetensors")
    header = checkpoints.read_header(tmp_path / "plain.safetensors")
    mapped = recognize_layout(SPEC, header)
    assert mapped is not None
    assert not mapped.renamed
    source = checkpoints.open(header)
    layers = {
        name: quantized_layer(name, "int8-channel", source.info(f"{name}.weight"), quantize_weight)
        for name in quantizable_layers(SPEC, mapped.header)
    }
    assert list(layers) == ["blocks.0.fc"]
    quantized = QuantizedSource(source, layers, quantize_weight)
    made = {name: quantized.read(name) for name in quantized.names()}
    write_atomically(tmp_path / "int8.safetensors", serialize_safetensors(made, {"by": "somebody"}))
    source.close()

    header = checkpoints.read_header(tmp_path / "int8.safetensors")
    assert header.metadata == {"by": "somebody"}
    formats = layer_formats(header)
    assert {name: layer.format for name, layer in formats.items()} == {"blocks.0.fc": "int8-channel"}
    assert weights.precision_of(header) == "int8"
    dequantize = checkpoints.dequantizer("int8-channel")
    assert dequantize is not None
    assert checkpoints.dequantizer("nvfp4") is None
    stored = checkpoints.open(header)
    plain = DequantizedSource(stored, formats, dequantize)
    assert list(plain.names()) == list(tensors)
    torch.testing.assert_close(
        plain.read("blocks.0.fc.weight"), tensors["blocks.0.fc.weight"], atol=0.02, rtol=0
    )
    stored.close()


def test_other_layouts_read_by_official_names(checkpoints: Checkpoints, tmp_path: Path) -> None:
    halves = {f"net.blocks.0.fc_{part}.weight": torch.full((2, 3), float(ord(part))) for part in "ab"}
    save_file(halves, tmp_path / "split.safetensors")
    (files,) = checkpoints.weight_files(tmp_path)
    assert files.files == (tmp_path / "split.safetensors",)
    mapped = recognize_layout(SPEC, files.header)
    assert mapped is not None
    assert mapped.layout == "split"
    source = MappedSource(checkpoints.open(files.header), mapped)
    assert torch.equal(source.read("blocks.0.fc.weight"), torch.cat([*halves.values()]))
    source.close()


def test_what_is_wrong_is_said(checkpoints: Checkpoints, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="^weights '.*absent' does not exist"):
        checkpoints.locate_existing(tmp_path / "absent", "weights")
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="00002"):
        checkpoints.weight_files(tmp_path)
    with pytest.raises(CheckpointError, match="no weight loader is installed"):
        checkpoints.read_header(tmp_path / "x.gguf")
    with pytest.raises(PluginError, match="no model plugin is installed"):
        checkpoints.recognize(tmp_path)


@pytest.mark.parametrize("alpha", [None, 4.0])
def test_a_lora_file_is_fitted_and_merged(
    alpha: float | None, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    base = {"blocks.0.fc.weight": torch.zeros(4, 6), "blocks.0.norm.weight": torch.ones(6)}
    save_file(base, tmp_path / "base.safetensors")
    up, down = torch.randn(4, 2), torch.randn(2, 6)
    pair = {"blocks.0.fc.lora_B.weight": up, "blocks.0.fc.lora_A.weight": down}
    save_file(pair, tmp_path / "lora.safetensors")
    header = checkpoints.read_header(tmp_path / "base.safetensors")
    config = LoraConfig(path="lora.safetensors", strength=0.5, alpha=alpha)
    lora = checkpoints.read_lora(config.path, tmp_path)
    assert not lora.for_two_networks
    fit = checkpoints.fit_lora(
        config, lora, component="network", shapes=header.shapes, title="base", reason="the only network"
    )
    assert weights.lora_notes([fit]) == ([], [])
    adapter, source = checkpoints.open_adapter(fit), checkpoints.open(header)
    merged = checkpoints.merged(source, [adapter])
    scale = 1.0 if alpha is None else alpha / 2
    torch.testing.assert_close(merged.read("blocks.0.fc.weight"), 0.5 * scale * up @ down)
    assert torch.equal(merged.read("blocks.0.norm.weight"), base["blocks.0.norm.weight"])
    source.close()
    adapter.source.close()
    with pytest.raises(RequestError, match="changes nothing in network of other"):
        checkpoints.fit_lora(
            config, lora, component="network", shapes={"x.weight": (4, 6)}, title="other", reason=""
        )


def test_an_index_and_its_shards_are_one_network(checkpoints: Checkpoints, tmp_path: Path) -> None:
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    tensors = {f"blocks.{number}.fc.weight": torch.full((2, 2), float(number)) for number in range(2)}
    for name, (key, tensor) in zip(names, tensors.items(), strict=True):
        save_file({key: tensor}, tmp_path / name)
    index = {"metadata": {}, "weight_map": dict(zip(tensors, names, strict=True))}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    (files,) = checkpoints.weight_files(tmp_path)
    assert [path.name for path in files.files] == names
    source = checkpoints.open(files.header)
    assert all(torch.equal(source.read(name), tensor) for name, tensor in tensors.items())
    assert load_file(files.files[0]).keys() == {"blocks.0.fc.weight"}
    source.close()


PAGE = Path(__file__).resolve().parents[2] / "docs" / "weights.md"


def test_the_page_names_everything() -> None:
    _, _, table = PAGE.read_text(encoding="utf-8").partition("| for | names |")
    named = set(re.findall(r"`(\w+)`", table))
    assert set(weights.__all__) <= named


def test_the_example_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lightx2v_wan21.tiny", reason="needs the Wan2.1 plugin").write_tiny(
        tmp_path / "whole"
    )
    (tmp_path / "model").mkdir()
    for file in (tmp_path / "whole").glob("diffusion_pytorch_model*"):
        file.rename(tmp_path / "model" / file.name)
    monkeypatch.chdir(tmp_path)
    example = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    exec(example[1], {})
    assert re.fullmatch(r"[1-9]\d* quantized layers\n", capsys.readouterr().out)
