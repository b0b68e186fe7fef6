"""What is called of ``vllm._custom_ops``, in PyTorch: the signatures of vLLM 0.32.0 and what they compute."""

from __future__ import annotations

import torch


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
    assert input.is_contiguous()
    assert scale is None
    assert use_per_token_if_dynamic
    largest = input.float().abs().amax(dim=1, keepdim=True)
    scale = (largest / 448).clamp(min=1 / (448 * 512))
    return (input.float() / scale).clamp(-448, 448).to(torch.float8_e4m3fn), scale


def scaled_int8_quant(
    input: torch.Tensor,
    scale: torch.Tensor | None = None,
    azp: torch.Tensor | None = None,
    symmetric: bool = True,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    assert input.is_contiguous()
    assert scale is None
    assert symmetric
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
    assert out_dtype in (torch.bfloat16, torch.float16)
    assert bias is None or (bias.numel() == b.shape[1] and bias.dtype == out_dtype)
    assert b.stride(0) == 1, "the second matrix is column-major"
    assert b.shape[0] % 16 == 0
    assert b.shape[1] % 16 == 0
    assert scale_a.dtype == scale_b.dtype == torch.float32
    assert scale_a.shape == (a.shape[0], 1)
    assert scale_b.shape == (1, b.shape[1])
    out = (a.float() @ b.float()) * scale_a * scale_b
    if bias is not None:
        out = out + bias.float()
    return out.to(out_dtype)
