"""fp8 with ``torch._scaled_mm``: activations get one scale per token on every call.

Shape legend: L rows, I input features, O output features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightx2v_core.api import StoredLinear, quantize_tokens


class Fp8Linear(StoredLinear):
    """``(quantized x) (quantized W)^T * scales + b`` on the fp8 units of the device."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute [..., O] from [..., I], in the dtype of the plain layer."""
        x_LI, scale_L1 = quantize_tokens(x.reshape(-1, self.in_features), torch.float8_e4m3fn)
        weight_IO = self.weight.t()  # column-major, as the kernels require
        if self.dtype == torch.bfloat16 or not x.is_cuda:
            out = torch._scaled_mm(
                x_LI,
                weight_IO,
                scale_a=scale_L1,
                scale_b=self.scales()[None].contiguous(),
                bias=self.bias,
                out_dtype=self.dtype,
                use_fast_accum=x.is_cuda,
            )
        else:
            # CUDA kernels support scales per row and column for bfloat16 results only
            one = torch.ones((), device=x.device)
            product = torch._scaled_mm(x_LI, weight_IO, scale_a=one, scale_b=one, out_dtype=torch.float32)
            out = (product * scale_L1 * self.scales()).to(self.dtype)
            out = out if self.bias is None else out + self.bias
        return out.view(*x.shape[:-1], self.out_features)
