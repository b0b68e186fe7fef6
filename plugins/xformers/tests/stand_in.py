"""A stand-in for the functions of xformers that the plugin calls: the signature of 0.0.35, computed by torch on any
device. It rejects the inputs that xformers rejects."""

from __future__ import annotations

import sys
from types import ModuleType

import torch


def memory_efficient_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_bias=None,
    p: float = 0.0,
    scale: float | None = None,
    *,
    op=None,
    output_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Compute attention on [B, M, H, K]."""
    assert attn_bias is None
    assert p == 0.0
    if not (query.dtype == key.dtype == value.dtype):
        raise ValueError("Query/Key/Value should either all have the same dtype")
    fits = query.ndim == 4 and key.shape == value.shape and query.shape[0] == key.shape[0]
    if not fits or query.shape[2:] != key.shape[2:]:
        raise ValueError("Incompatible shapes for attention inputs")
    if not (query.device == key.device == value.device):
        raise ValueError("Query/Key/Value should all be on the same device")
    for x in (query, key, value):
        # operators read 16 bytes at once
        step = 16 // x.element_size()
        if x.stride(-1) != 1:
            raise NotImplementedError("query.stride(-1) != 1")
        if x.shape[-1] % step or any(x.stride(axis) % step for axis in range(3) if x.shape[axis] > 1):
            raise NotImplementedError("query is not aligned")
    if op is not None:
        forward, backward = op
        assert backward is None
        CALLS.append(forward.NAME)
        if query.dtype not in forward.SUPPORTED_DTYPES:
            raise ValueError(f"Operator `{forward.NAME}` does not support inputs")
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=scale)
    return out.transpose(1, 2).to(output_dtype or query.dtype)


#: names of the requested operators
CALLS: list[str] = []


def _operator(
    name: str, dtypes, least=(5, 0), most=None, *, available: bool = True, device: str = "cpu"
) -> type:
    body = {
        "NAME": name,
        "SUPPORTED_DEVICES": {"cuda", device},
        "SUPPORTED_DTYPES": set(dtypes),
        "CUDA_MINIMUM_COMPUTE_CAPABILITY": least,
        "CUDA_MAXIMUM_COMPUTE_CAPABILITY": most,
        "is_available": classmethod(lambda cls: available),
    }
    return type("FwOp", (), body)


def install(monkeypatch, *, cutlass: bool = True) -> None:
    """Install the stand-in as the module ``xformers``."""
    half = (torch.float16, torch.bfloat16)
    operators = {
        "cutlass": _operator("cutlassF-pt", (torch.float32, *half), available=cutlass),
        "flash": _operator("fa2F@0.0.0", half, (8, 0), available=False),
        "flash3": _operator("fa3F@0.0.0", half, (8, 0), (9, 0), available=False),
        "triton_splitk": _operator("triton_splitKF", half, (8, 0)),
    }
    names = ("xformers", "xformers.ops", "xformers.ops.fmha")
    modules = {name: ModuleType(name) for name in names}
    modules["xformers.ops"].memory_efficient_attention = memory_efficient_attention
    for name, op in operators.items():
        module = modules[f"xformers.ops.fmha.{name}"] = ModuleType(name)
        module.FwOp = op
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    CALLS.clear()
