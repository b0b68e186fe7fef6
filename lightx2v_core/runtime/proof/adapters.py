"""The proof of LoRA appliers: a small network with a low-rank change and an added bias, merged or attached.

The weights, and the changes added to them, range from -127 to 127 in steps that every dtype can represent, so that an
applier that clamps, rounds to codes or adds in a narrow type is detected. The expected output is computed in float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightx2v_core.checkpoint.fill import SourceWeights
from lightx2v_core.runtime.proof.claim import Claim
from lightx2v_core.spec.protocols import Adapter, Change, LoraApplier
from lightx2v_core.spec.specs import LoraApplierSpec
from lightx2v_core.spec.tensors import TensorInfo

_IN, _OUT, _RANK = 32, 48, 4
_STRENGTH, _SCALE = 0.75, 0.5
#: largest error, relative to the sum of the absolute products
_ALLOWED: Mapping[str, float] = {"float32": 1e-4, "float16": 0.02, "bfloat16": 0.02}


def applier_proof(claim: Claim) -> str | None:
    """Test a network under an applier, with an adapter, and without it afterwards. Returns the fault, or ``None``."""
    spec: LoraApplierSpec[Any] = claim.spec  # type: ignore[assignment]
    applier: LoraApplier = spec.build(claim.config, claim.ctx)
    dtype = getattr(torch, claim.dtype)
    base = _MemorySource({"layer.weight": _steps(_OUT, _IN), "layer.bias": _steps(1, _OUT)[0]})
    adapter = _adapter()
    read = {role: adapter.source.read(role).double() for role in ("up", "down", "diff")}
    changed = {
        "layer.weight": base.tensors["layer.weight"].double()
        + _STRENGTH * _SCALE * read["up"] @ read["down"],
        "layer.bias": base.tensors["layer.bias"].double() + _STRENGTH * read["diff"],
    }
    with torch.device("meta"):
        network = nn.ModuleDict({"layer": nn.Linear(_IN, _OUT, dtype=dtype)}).eval()
    weights = SourceWeights(network, base, lambda _count, _name: None)
    x_LI = (_steps(5, _IN) / 128).to(dtype)
    wholes: tuple[tuple[str, Sequence[Adapter], Mapping[str, Tensor]], ...] = (
        ("with an adapter", [adapter], changed),
        ("after its adapter is removed", [], base.tensors),
    )
    for what, adapters, expected in wholes:
        weights.source = applier.merged(base, adapters)
        if all(tensor.is_meta for tensor in network.state_dict().values()):
            weights.fill("", claim.device)
        else:
            weights.refill(sorted(base.tensors), claim.device)
        applier.attach(network, adapters)
        with torch.inference_mode():
            got = network["layer"](x_LI.to(claim.device)).double().cpu()
        if fault := _wrong(got, x_LI.double(), expected, claim.dtype):
            return f"a linear {what} {fault}"
    return None


def _wrong(got_LO: Tensor, x_LI: Tensor, expected: Mapping[str, Tensor], dtype: str) -> str | None:
    weight_OI, bias_O = expected["layer.weight"].double(), expected["layer.bias"].double()
    exact = x_LI @ weight_OI.t() + bias_O
    if got_LO.shape != exact.shape:
        return f"returns shape {list(got_LO.shape)}, not {list(exact.shape)}"
    size = x_LI.abs() @ weight_OI.abs().t() + bias_O.abs()
    error = ((got_LO - exact).abs() / size).nan_to_num(nan=math.inf)
    if float(error.max()) <= _ALLOWED[dtype]:
        return None
    row, column = divmod(int(error.argmax()), error.shape[1])
    return (
        f"returns {got_LO[row, column]:.6g} in {dtype} instead of {exact[row, column]:.6g}: error "
        f"{float(error.max()):.2%}, tolerance {_ALLOWED[dtype]:.2%}"
    )


def _steps(rows: int, columns: int) -> Tensor:
    """Generate random integers [rows, columns] from -127 to 127; the first two rows are constant, 127 and -127."""
    generator = torch.Generator().manual_seed(rows)
    values = torch.randint(-127, 128, (rows, columns), generator=generator).float()
    if rows > 1:
        values[0], values[1] = 127, -127
    return values


def _adapter() -> Adapter:
    """Build an adapter that adds up to 4 * 0.75 * 0.5 * 8 * 10 to a weight, and up to 95 to a bias."""
    up, down = _steps(_OUT, _RANK) / 16, _steps(_RANK, _IN) / 12.5
    tensors = {"up": up.bfloat16().float(), "down": down.bfloat16().float(), "diff": _steps(1, _OUT)[0]}
    changes = (
        Change(
            target="layer.weight",
            kind="low-rank",
            tensors={"up": "up", "down": "down"},
            shape=(_OUT, _IN),
            rank=_RANK,
            scale=_SCALE,
        ),
        Change(target="layer.bias", kind="diff", tensors={"diff": "diff"}, shape=(_OUT,)),
    )
    return Adapter(source=_MemorySource(tensors), changes=changes, strength=_STRENGTH, name="proof")


class _MemorySource:
    """A ``WeightSource`` of tensors in memory."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors

    def names(self) -> Sequence[str]:
        return list(self.tensors)

    def info(self, name: str) -> TensorInfo:
        tensor = self.tensors[name]
        dtype = str(tensor.dtype).removeprefix("torch.")
        return TensorInfo(name=name, shape=tuple(tensor.shape), dtype=dtype, file=Path("proof.safetensors"))

    def read(self, name: str, device: str = "cpu") -> Tensor:
        return self.tensors[name].to(device, copy=True)

    def close(self) -> None:
        """Do nothing: no file is open."""
