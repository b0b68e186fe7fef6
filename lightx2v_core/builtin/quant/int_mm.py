"""int8 by ``torch._int_mm``: activations get a scale for each token in every call, the product is exact in int32.

Shape legend: L rows, I input features, O output features.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lightx2v_core.api import StoredLinear, token_codes

#: fewest rows that the kernels of CUDA take
_ROWS = 32


class Int8Linear(StoredLinear):
    """``(codes of x) (codes of W)^T * scales + b`` on the int8 units of the device."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] to [..., O], in the dtype of the plain layer."""
        codes_LI, scale_L1 = token_codes(x.reshape(-1, self.in_features), torch.int8)
        rows = codes_LI.shape[0]
        if x.is_cuda and rows < _ROWS:
            codes_LI = F.pad(codes_LI, (0, 0, 0, _ROWS - rows))
        product_LO = torch._int_mm(codes_LI, self.weight.t())[:rows]
        out = product_LO.float() * scale_L1 * self.scales()
        if self.bias is not None:
            out = out + self.bias.float()
        return out.to(self.dtype).view(*x.shape[:-1], self.out_features)
