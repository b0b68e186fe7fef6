"""The proof of quantizers: a layer of each format multiplies the largest codes of either sign, and random ones.

Shape legend: L rows, I input features, O output features. Reference products are computed in float64, for the common
formats from the codes themselves. Activations are multiples of a power of two and reach the largest code in every row,
so rounding them to codes has almost no effect and tolerances can be tight. A kernel that accumulates products in 16
bits, as on processors without VNNI, has an error of nearly 100 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightx2v_core.plan.plan import KernelUse
from lightx2v_core.quant.arithmetic import LARGEST, WEIGHT_FORMATS
from lightx2v_core.runtime.proof.claim import Claim, Inconclusive
from lightx2v_core.spec.context import BuildContext
from lightx2v_core.spec.protocols import Quantizer
from lightx2v_core.spec.specs import QuantizerSpec
from lightx2v_core.spec.tensors import LayerFormat, TensorInfo

#: shapes [out, in] of weights; the first that a quantizer accepts is used: more than one block of 128, whole blocks of
#: 256, and multiples that kernels require
_SHAPES = ((160, 256), (256, 512), (512, 512), (1024, 1024), (256, 128), (64, 64))
#: rows of activations; a single row often runs another kernel
_ROWS = (40, 1)
#: approximate size of results, which every dtype can represent
_RESULT = 1024.0
#: largest error, relative to the sum of the absolute products: for exact quantizers by compute dtype, and for those
#: that round activations to any codes
_EXACT: Mapping[str, float] = {"float32": 1e-3, "float16": 0.02, "bfloat16": 0.02}
_ROUNDED = 0.05
#: largest error of decoded weights, relative to the largest weight: for known codes, and for weights that the quantizer
#: stores itself
_DECODED, _STORED = 1e-4, 0.3


def quantizer_proof(claim: Claim) -> str | None:
    """Test the products and the decoding of a quantizer in one format. Returns the fault, or ``None``."""
    spec: QuantizerSpec[Any] = claim.spec  # type: ignore[assignment]
    quantizer: Quantizer = spec.build(claim.config, claim.ctx)
    shape = next((shape for shape in _SHAPES if spec.refuses(shape, claim.ctx) is None), None)
    if shape is None:
        raise Inconclusive("it refuses weights of every tested size")
    with torch.no_grad():
        stored, weight = _stored_weight(quantizer, claim.use, shape)
        layer = layer_of(claim.use.format, stored, None, shape=shape, block=claim.use.block)
        decoded = quantizer.dequantize(stored, layer).double()
        if weight is None:  # a format that only the quantizer can decode: its own decoding is the reference
            weight = decoded
        return (
            _decoded_wrong(decoded, weight, _DECODED, f"decodes {claim.use.format}")
            or _stored_wrong(quantizer, claim.use.format, weight)
            or _product_wrong(claim, quantizer, stored, weight)
        )


def _product_wrong(
    claim: Claim, quantizer: Quantizer, stored: dict[str, Tensor], weight_OI: Tensor
) -> str | None:
    dtype = getattr(torch, claim.dtype)
    bias_O = (torch.linspace(-1, 1, weight_OI.shape[0]) * _RESULT / 16).to(dtype)
    x_LI, step = _activations(weight_OI, claim.use.format)
    x_LI = x_LI.to(dtype)
    if "input_scale" in stored:
        stored["input_scale"] = torch.tensor(step)
    layer = layer_of(claim.use.format, stored, bias_O, shape=tuple(weight_OI.shape), block=claim.use.block)
    with torch.device("meta"):
        plain = nn.Linear(weight_OI.shape[1], weight_OI.shape[0], dtype=dtype)
    module = fill_layer(quantizer.linear(plain, layer), stored, bias_O, claim.ctx)
    expected = x_LI.double() @ weight_OI.t() + bias_O.double()
    size = x_LI.double().abs() @ weight_OI.abs().t() + bias_O.double().abs()
    allowed = _EXACT[claim.dtype] if getattr(claim.spec, "exact", False) else _ROUNDED
    for rows in _ROWS:
        given = x_LI[:rows].to(claim.device)
        with torch.inference_mode():
            got = module(given).double().cpu()
        if got.shape != expected[:rows].shape:
            return f"its {claim.use.format} product has shape {list(got.shape)}, not {list(expected[:rows].shape)}"
        error = ((got - expected[:rows]).abs() / size[:rows]).nan_to_num(nan=math.inf)
        if float(error.max()) > allowed:
            row, column = divmod(int(error.argmax()), error.shape[1])
            return (
                f"its {claim.use.format} product in {claim.dtype} of {rows} x {weight_OI.shape[1]} by "
                f"{weight_OI.shape[1]} x {weight_OI.shape[0]} is {got[row, column]:.6g} instead of "
                f"{expected[row, column]:.6g}: error {float(error.max()):.1%}, tolerance {allowed:.1%}"
            )
    return None


def _decoded_wrong(got: Tensor, expected: Tensor, allowed: float, what: str) -> str | None:
    if got.shape != expected.shape:
        return f"it {what} to shape {list(got.shape)}, not {list(expected.shape)}"
    error = float(((got - expected).abs().max() / expected.abs().max()).nan_to_num(nan=math.inf))
    if error > allowed or not bool(got.isfinite().all()):
        return f"it {what} to weights with an error of {error:.1%} of the largest, tolerance {allowed:.2%}"
    return None


def _stored_wrong(quantizer: Quantizer, format: str, weight: Tensor) -> str | None:
    """Test the weights that a quantizer stores itself, if it supports that. Returns the fault, or ``None``."""
    try:
        stored = quantizer.quantize(weight.float(), format)
    except ValueError:
        return None
    decoded = quantizer.dequantize(stored, layer_of(format, stored, None, shape=tuple(weight.shape))).double()
    return _decoded_wrong(decoded, weight, _STORED, f"stores {format}, and decodes it,")


def _stored_weight(
    quantizer: Quantizer, use: KernelUse, shape: tuple[int, int]
) -> tuple[dict[str, Tensor], Tensor | None]:
    """Build the stored tensors of a weight in a format and, for a common format, the float64 weight they encode."""
    generator = torch.Generator().manual_seed(1)
    if use.format in WEIGHT_FORMATS:
        return _codes_of_format(use.format, shape, generator)
    if use.block is not None:
        values, size = use.block
        if shape[1] % values:
            raise Inconclusive(f"rows of {shape[1]} are not whole blocks of {values}")
        # interpreted as float16, these bytes are numbers from 0.01 to 1
        blocks = (math.prod(shape) // values, size)
        return {"weight": torch.randint(0x20, 0x3C, blocks, generator=generator).to(torch.uint8)}, None
    try:
        return dict(quantizer.quantize(_codes(torch.int8, shape, generator).float() / 127, use.format)), None
    except ValueError as exc:
        raise Inconclusive(f"no quantizer here stores a weight in {use.format}: {exc}") from None


def _codes_of_format(
    format: str, shape: tuple[int, int], generator: torch.Generator
) -> tuple[dict[str, Tensor], Tensor]:
    kind, _, grain = format.replace("fp8-e5m2", "e5m2", 1).partition("-")
    dtype = {"int8": torch.int8, "fp8": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}[kind]
    codes = _codes(dtype, shape, generator)
    weight = codes.double()
    stored = {"weight": codes}
    rows, columns = shape
    if grain == "channel":
        scale = torch.linspace(0.5, 2, rows)[:, None] / LARGEST[dtype]
        weight = weight * scale.double()
    elif grain == "block128":
        scale = torch.linspace(0.5, 2, -(-rows // 128) * -(-columns // 128)) / LARGEST[dtype]
        scale = scale.reshape(-(-rows // 128), -1)
        blocks = torch.arange(rows)[:, None] // 128, torch.arange(columns)[None] // 128
        weight = weight * scale.double()[blocks]
    elif grain == "plain":
        return stored, weight
    else:
        scale = torch.tensor([1.5]) / LARGEST[dtype]
        weight = weight * scale.double()
    stored["weight_scale"] = scale
    if grain == "tensor-static":
        stored["input_scale"] = torch.tensor(1.0)  # replaced when the activations are known
    return stored, weight


def _codes(dtype: torch.dtype, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Generate codes [rows, I] that reach the largest in every row: all of one sign in the first two rows, pairs of one
    sign in the third, random ones in the others."""
    largest = LARGEST[dtype]
    if dtype == torch.int8:
        codes = torch.randint(-127, 128, shape, generator=generator).float()
    else:
        codes = (torch.rand(shape, generator=generator) * 2 - 1) * largest
    codes[0], codes[1:2] = largest, -largest
    codes[2:3] = torch.tensor([largest, largest, -largest, -largest]).repeat(shape[1] // 4)
    codes[3:, 0] = largest
    return codes.to(dtype)


def _activations(weight_OI: Tensor, format: str) -> tuple[Tensor, float]:
    """Generate activations [L, I] of a product, float32, and the scale of their codes; the last row is zero."""
    dtype = torch.float8_e4m3fn if format.startswith("fp8") else torch.int8
    codes = _codes(dtype, (_ROWS[0], weight_OI.shape[1]), torch.Generator().manual_seed(2)).float()
    codes[-1] = 0
    largest = weight_OI.shape[1] * float(weight_OI.abs().max()) * LARGEST[dtype]
    step = 2.0 ** math.floor(math.log2(_RESULT / largest))
    return codes * step, step


def layer_of(
    format: str,
    stored: Mapping[str, Tensor],
    bias: Tensor | None,
    *,
    shape: tuple[int, ...] | None = None,
    block: tuple[int, int] | None = None,
) -> LayerFormat:
    """Describe a layer with these stored tensors, as ``layer_formats`` does for a file."""
    given = {**stored, **({} if bias is None else {"bias": bias})}
    shape = tuple(stored["weight"].shape) if shape is None else shape
    infos = {
        suffix: TensorInfo(
            name=f"proof.{suffix}",
            shape=shape if suffix == "weight" and block is not None else tuple(tensor.shape),
            dtype=format
            if suffix == "weight" and block is not None
            else str(tensor.dtype).removeprefix("torch."),
            file=Path("proof.safetensors"),
            block=block if suffix == "weight" else None,
        )
        for suffix, tensor in given.items()
    }
    return LayerFormat(name="proof", format=format, tensors=infos, shape=shape)


def fill_layer(
    module: nn.Module, stored: Mapping[str, Tensor], bias: Tensor | None, ctx: BuildContext
) -> nn.Module:
    """Fill a quantizer's layer with its tensors on the device, as a run does."""
    given = {**stored, **({} if bias is None else {"bias": bias})}
    state = {
        key: given[key].to(slot.dtype).to(ctx.device.torch_name) for key, slot in module.state_dict().items()
    }
    module.load_state_dict(state, assign=True)
    return module.eval()
