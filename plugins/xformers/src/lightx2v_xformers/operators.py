"""The operators of xformers and their requirements. Importing an operator imports xformers and torch."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from lightx2v_core.api import BuildContext

#: option -> module of ``xformers.ops.fmha`` with the operator ``FwOp``
MODULES = {"cutlass": "cutlass", "flash": "flash", "flash3": "flash3", "triton": "triton_splitk"}


def operator(name: str) -> Any:
    """Import the forward operator of an option. Raises ``ImportError`` when xformers or its module is missing."""
    return import_module(f"xformers.ops.fmha.{MODULES[name]}").FwOp


def reasons(ctx: BuildContext) -> Sequence[str]:
    """List the reasons why no operator runs in this context; empty when one does."""
    refusals = {}
    for name in MODULES:
        try:
            refusals[name] = operator_reasons(operator(name), ctx)
        except Exception as exc:  # an extension built for another torch fails in many ways
            refusals[name] = [f"cannot be imported: {exc}"]
        if not refusals[name]:
            return []
    return [f"operator {name}: {'; '.join(why)}" for name, why in refusals.items()]


def operator_reasons(op: Any, ctx: BuildContext) -> list[str]:
    """List the reasons why an operator does not run in this context, as far as known without tensors."""
    import torch

    where, dtype = ctx.device, getattr(torch, ctx.dtype)
    refusals = []
    if where.kind not in op.SUPPORTED_DEVICES:
        refusals.append(f"supports {', '.join(sorted(op.SUPPORTED_DEVICES))}, not {where.kind}")
    if not op.is_available():
        refusals.append("is not part of the installed build of xformers and torch")
    if dtype not in op.SUPPORTED_DTYPES:
        names = sorted(str(supported).removeprefix("torch.") for supported in op.SUPPORTED_DTYPES)
        refusals.append(f"supports {', '.join(names)}, not {ctx.dtype}")
    least = op.CUDA_MINIMUM_COMPUTE_CAPABILITY
    most = getattr(op, "CUDA_MAXIMUM_COMPUTE_CAPABILITY", None)
    if where.kind == "cuda" and where.capability < tuple(least):
        refusals.append(
            f"requires compute capability {_point(least)}; the device has {_point(where.capability)}"
        )
    if where.kind == "cuda" and most is not None and where.capability > tuple(most):
        refusals.append(
            f"supports compute capability up to {_point(most)}; the device has {_point(where.capability)}"
        )
    return refusals


def _point(capability: Sequence[int]) -> str:
    return f"{capability[0]}.{capability[1]}"
