"""The functions of ``vllm._custom_ops`` that the plugin calls, in PyTorch, with the signatures of vLLM 0.32.0.

They reject the inputs that vLLM's functions and kernels reject, in the same order: dtypes, shapes, strides,
tensors that are not views, multiples of 16, and architectures. The checks are those of ``_custom_ops.py``,
``scaled_mm_entry.cu`` and ``c3x/scaled_mm_helper.hpp`` of vLLM.
"""

from __future__ import annotations

import torch

#: compute capability of the simulated device
CAPABILITY = (9, 0)
_HALVES = (torch.bfloat16, torch.float16)


def _check(right: bool, text: str) -> None:
    """Fail like a check of a kernel."""
    if not right:
        raise RuntimeError(text)


def scaled_fp8_quant(
    input: torch.Tensor,
    scale: torch.Tensor | None = None,
    num_token_padding: int | None = None,
    scale_ub: torch.Tensor | None = None,
    use_per_token_if_dynamic: bool = False,
    output: torch.Tensor | None = None,
    group_shape: tuple[int, int] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    assert input.ndim == 2
    assert scale is None, "the stand-in computes scales itself"
    assert use_per_token_if_dynamic
    assert num_token_padding is None
    assert output is None
    assert group_shape is None
    _check(CAPABILITY >= (8, 9), "fp8 is not supported on this device")
    _check(input.dtype in (torch.float32, *_HALVES), f"not implemented for {input.dtype}")
    _check(input.is_contiguous(), "input must be contiguous")
    _check(input.shape[1] % 16 == 0, "rows are read 16 values at a time")
    largest = input.float().abs().amax(dim=1, keepdim=True)
    scale = (largest / 448).clamp(min=1 / (448 * 512))
    return (input.float() / scale).clamp(-448, 448).to(torch.float8_e4m3fn), scale


def scaled_int8_quant(
    input: torch.Tensor,
    scale: torch.Tensor | None = None,
    azp: torch.Tensor | None = None,
    symmetric: bool = True,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    assert scale is None, "the stand-in computes scales itself"
    assert azp is None
    assert symmetric
    _check(input.dtype in (torch.float32, *_HALVES), f"not implemented for {input.dtype}")
    _check(input.is_contiguous(), "input must be contiguous")
    scale = input.float().abs().amax(dim=1, keepdim=True) / 127
    codes = torch.where(scale == 0, 0.0, input.float() / scale)
    return codes.round().clamp(-128, 127).to(torch.int8), scale, None


def cutlass_scaled_mm(
    a: torch.Tensor,
    b: torch.Tensor,
    scale_a: torch.Tensor,
    scale_b: torch.Tensor,
    out_dtype: torch.dtype,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    assert out_dtype in _HALVES
    assert bias is None or (bias.numel() == b.shape[1] and bias.dtype == out_dtype)
    # other dimensions call another kernel, which is not simulated: the spec rejects them
    assert b.shape[0] % 16 == 0
    assert b.shape[1] % 16 == 0
    _check(a.dim() == 2 and b.dim() == 2, "two matrices")
    _check(a.shape[1] == b.shape[0], "of sides that fit")
    _check(a.dtype == b.dtype, "one dtype for both")
    _check(a.dtype in (torch.int8, torch.float8_e4m3fn), f"not implemented for {a.dtype}")
    _check(a.stride(1) == 1, "the first matrix is row-major")
    _check(b.stride(0) == 1, "the second matrix is column-major")
    _check(b.stride(1) % 16 == 0, "columns of the second matrix are aligned to 16 bytes")
    _check(b.data_ptr() % 16 == 0 and a.data_ptr() % 16 == 0, "both are aligned to 16 bytes")
    if bias is not None:
        _check(bias.is_contiguous() and bias.dim() == 1, "the bias is one contiguous row")
    _check(scale_a.dtype == torch.float32 and scale_b.dtype == torch.float32, "scales are float32")
    _check(scale_a.numel() in (1, a.shape[0]), "a scale for each row, or one")
    _check(scale_b.numel() in (1, b.shape[1]), "a scale for each column, or one")
    _check(scale_a.is_contiguous() and scale_b.is_contiguous(), "scales are contiguous")
    if a.dtype == torch.int8:
        _check(CAPABILITY < (10, 0), f"Int8 not supported on SM{CAPABILITY[0] * 10 + CAPABILITY[1]}")
        _check(CAPABILITY >= (7, 5), "no kernel for this device")
    else:
        _check(CAPABILITY >= (8, 9), "no kernel for this device")
    out = (a.float() @ b.float()) * scale_a.reshape(-1, 1) * scale_b.reshape(1, -1)
    if bias is not None:
        out = out + bias.float()
    return out.to(out_dtype)
