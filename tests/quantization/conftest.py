"""The reference set of quantized networks, and a tiny model that they fit into."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model; its text encoder and VAE fit the networks of the reference set."""
    writer = pytest.importorskip("lightx2v_wan21.tiny", reason="needs the Wan2.1 plugin")
    folder = tmp_path_factory.mktemp("tiny") / "model"
    writer.write_tiny(folder, 0)
    return Path(folder)


@pytest.fixture(scope="session")
def case(golden: Callable[[str], Path]) -> Path:
    """The folder of the reference set."""
    return golden("quant_wan21_t2v")


#: folders of the reference set -> the file to name, where it is not the folder itself
LAYOUTS = {
    "int8_single": "wan2.1_t2v_int8.safetensors",
    "int8_blocks": "",
    "fp8_single": "wan2.1_t2v_fp8.safetensors",
    "fp8_blocks": "",
    "comfy_fp8_scaled": "wan2.1_t2v_fp8_scaled.safetensors",
    "ckpt": "",
}


@pytest.fixture(scope="session")
def path_of(case: Path) -> Callable[[str], Path]:
    """The file or folder of a layout; the test is skipped where it is not available."""

    def find(layout: str) -> Path:
        path = case / layout / LAYOUTS[layout]
        if not path.exists():
            pytest.skip(f"{layout} is in the full set of fixtures only")
        return path

    return find


@pytest.fixture(scope="session")
def network(tiny: Path, path_of: Callable[[str], Path]) -> Callable[..., Any]:
    """``network(layout, **config)``: the transformer of a loaded pipeline, and the pipeline."""
    from lightx2v_core import load

    def load_network(layout: str, **config: Any) -> tuple[Any, Any]:
        components = {
            "dit": {"path": str(path_of(layout)), **config.pop("dit", {})},
            **config.pop("components", {}),
        }
        values = {"model": "wan2.1", "dtype": "float32", "components": components, **config}
        pipeline = load(tiny, config=values)
        return pipeline.module("dit"), pipeline

    return load_network


@pytest.fixture(scope="session")
def forward() -> Callable[[Any, dict[str, Any]], Any]:
    """The output of a network for the inputs of the reference set."""
    import torch

    def run(network: Any, inputs: dict[str, Any]) -> Any:
        latents, timesteps = inputs["x"], inputs["t"]
        padded = torch.zeros(1, network.arch.text_len, inputs["context.0"].shape[1])
        padded[0, : len(inputs["context.0"])] = inputs["context.0"]
        with torch.no_grad():
            return network(latents, timesteps, padded, network.rope(latents.shape[1:], "cpu"))

    return run
