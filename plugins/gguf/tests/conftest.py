"""GGUF files written by the reference package, with weights of every type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

gguf = pytest.importorskip("gguf", reason="the reference package is not installed")

#: offsets of the float16 numbers in a block, which random bytes must not turn into infinities
HALVES = {
    "q4_0": (0,), "q4_1": (0, 2), "q5_0": (0,), "q5_1": (0, 2), "q8_0": (0,), "q2_k": (80, 82), "q3_k": (108,),
    "q4_k": (0, 2), "q5_k": (0, 2), "q6_k": (208,),
}  # fmt: skip
#: largest step of a code, so that values are about as large as weights
SCALE = {"q8_0": 1e-3, "q6_k": 3e-5, "q3_k": 1e-3, "q4_k": 2e-4, "q5_k": 1e-4, "q2_k": 2e-3}


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def type_of(kind: str) -> Any:
    return gguf.GGMLQuantizationType[kind.upper()]


def random_blocks(kind: str, count: int, seed: int) -> Any:
    """Generate packed blocks [count, bytes]: any codes, small scales."""
    import numpy as np

    rng = np.random.default_rng(seed)
    _, size = gguf.GGML_QUANT_SIZES[type_of(kind)]
    blocks = rng.integers(0, 256, (count, size), dtype=np.uint8)
    for start in HALVES[kind]:
        scale = rng.uniform(0.2, 1, (count, 1)) * SCALE.get(kind, 1e-2)
        blocks[:, start : start + 2] = scale.astype(np.float16).view(np.uint8)
    return blocks


@pytest.fixture(scope="session")
def blocks() -> Callable[[str, int, int], Any]:
    return random_blocks


@pytest.fixture(scope="session")
def decoded() -> Callable[[Any, str], Any]:
    """Decode packed blocks [count, bytes] with the reference package, to a flat tensor."""
    return lambda packed, kind: torch.from_numpy(gguf.quants.dequantize(packed, type_of(kind)).reshape(-1))


def write_gguf(
    path: Path,
    tensors: Mapping[str, Any],
    kinds: Mapping[str, str] | None = None,
    *,
    arch: str = "wan",
    shapes: bool = True,
    metadata: Callable[[Any], None] = lambda writer: None,
) -> None:
    """Write torch tensors, those of ``kinds`` packed: ``q8_0`` quantizes; ``type:shape`` is for tensors that are packed
    already, uint8 [blocks, bytes]. Rows that do not divide into blocks are flattened as by ComfyUI's converter, with
    their shape in the metadata if ``shapes``."""
    import numpy as np

    writer = gguf.GGUFWriter(str(path), arch)
    metadata(writer)
    for name, tensor in tensors.items():
        kind, _, shape = (kinds or {}).get(name, "").partition(":")
        if shape:
            sides = [int(side) for side in shape.split("x")]
            block, size = gguf.GGML_QUANT_SIZES[type_of(kind)]
            if sides[-1] % block:
                data = tensor
                if shapes:
                    writer.add_array(f"comfy.gguf.orig_shape.{name}", sides)
            else:
                data = tensor.reshape(*sides[:-1], sides[-1] // block * size)
            writer.add_tensor(name, data, raw_dtype=type_of(kind))
        elif kind:
            data = gguf.quants.quantize(tensor.float().numpy(), type_of(kind))
            writer.add_tensor(name, data, raw_dtype=type_of(kind))
        elif tensor.dtype == torch.bfloat16:
            writer.add_tensor(
                name, tensor.contiguous().view(torch.uint8).numpy(), raw_dtype=gguf.GGMLQuantizationType.BF16
            )
        elif tensor.dim() > 4:
            writer.add_array(f"comfy.gguf.orig_shape.{name}", [int(side) for side in tensor.shape])
            writer.add_tensor(name, np.ascontiguousarray(tensor.flatten(0, 1).squeeze().numpy()))
        else:
            writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="session")
def write() -> Callable[..., None]:
    return write_gguf
