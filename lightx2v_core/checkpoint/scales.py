"""Granularity and packed formats, determined from the shapes of scales. A ``weight`` is [out, in], or that of a
convolution."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from lightx2v_core.spec.tensors import TensorInfo

_FLOATS = frozenset({"float64", "float32", "float16", "bfloat16"})
#: dtypes of power-of-two exponents; some files store them as uint8
MX_DTYPES = frozenset({"float8_e8m0fnu"})
_BLOCK = 128
_MX_GROUP, _NV_GROUP = 32, 16
#: mx format -> (stored columns, inputs in them)
_MX_PACKING: Mapping[str, tuple[int, int]] = {"mxfp4": (1, 2), "mxfp6": (3, 4), "mxfp8": (1, 1)}


def granularity(weight: TensorInfo, scale: TensorInfo) -> tuple[str, str]:
    """Return ``tensor``, ``channel`` or ``block128`` and no problem; or an empty string and the problem."""
    where = f"{scale.file.name}: {scale.name}"
    if scale.dtype not in _FLOATS:
        return "", f"{where} is {scale.dtype}; the scale of a {weight.dtype} weight has a float dtype"
    if not weight.shape or prod(weight.shape) == 0:
        return "", f"{where} is for {weight.name}, which is empty"
    if prod(scale.shape) == 1:
        return "tensor", ""
    out = weight.shape[0]
    if scale.shape[0] == out and prod(scale.shape) == out and len(scale.shape) in (1, len(weight.shape)):
        return "channel", ""
    blocks = tuple(-(-side // _BLOCK) for side in weight.shape)
    if len(weight.shape) == 2 and scale.shape == blocks:
        return "block128", ""
    expected = f"[{out}, 1], [{out}], []" + (f" or {list(blocks)}" if len(weight.shape) == 2 else "")
    return "", f"{where} is {list(scale.shape)}; a weight {list(weight.shape)} needs {expected}"


def packed(weight: TensorInfo, group: Mapping[str, TensorInfo]) -> tuple[str, tuple[int, ...], str]:
    """Determine the format of packed values and the shape of the weight; or an empty format and the problem."""
    scale = group.get("weight_scale")
    where = f"{weight.file.name}: {weight.name}"
    if len(weight.shape) != 2:
        return (
            "",
            weight.shape,
            f"{where} is {weight.dtype} {list(weight.shape)}, which is not a packed weight",
        )
    if scale is None:
        return "", weight.shape, f"{where} is {weight.dtype} but has no weight_scale"
    rows, columns = weight.shape
    if scale.dtype == "float8_e4m3fn":
        shape = (rows, 2 * columns)
        if not {"weight_scale_2", "weight_global_scale", "alpha"} & set(group):
            return "", shape, f"{where} looks like nvfp4 but has no weight_global_scale or weight_scale_2"
        return ("nvfp4", shape, "") if _fits(scale, shape, _NV_GROUP) else ("", shape, _misfit(scale, weight))
    if scale.dtype in MX_DTYPES or scale.dtype == "uint8":
        fitting = []
        for name, (stored, inputs) in _MX_PACKING.items():
            shape = (rows, columns * inputs // stored)
            if (
                columns % stored == 0
                and (name == "mxfp8" or weight.dtype == "uint8")
                and _fits(scale, shape, _MX_GROUP)
            ):
                fitting.append((name, shape))
        if len(fitting) == 1:
            return (*fitting[0], "")
        if fitting:
            return (
                "",
                weight.shape,
                f"{where} may be {' or '.join(name for name, _ in fitting)}: it is too small to tell",
            )
    return "", weight.shape, _misfit(scale, weight)


def _fits(scale: TensorInfo, shape: tuple[int, int], group: int) -> bool:
    """Return whether a scale fits a weight: stored in tiles of 128 x 4, rounded up, or unpadded in rows. The two are
    equal where no rounding is needed."""
    rows, groups = shape[0], -(-shape[1] // group)
    return scale.shape in {(-(-rows // 128) * 128, -(-groups // 4) * 4), (rows, groups)}


def _misfit(scale: TensorInfo, weight: TensorInfo) -> str:
    return (
        f"{scale.file.name}: {scale.name} is {scale.dtype} {list(scale.shape)}, which fits no known format of "
        f"{weight.name}, {weight.dtype} {list(weight.shape)}"
    )
