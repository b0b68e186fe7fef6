"""The contract of attention backends, against float64 arithmetic.

Shape legend: B batch, L tokens (query), S tokens (key), H heads, D head dim.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from lightx2v_core.spec.context import BuildContext
from lightx2v_core.spec.protocols import Attention
from lightx2v_core.spec.specs import AttentionSpec
from lightx2v_core.testing.contracts.common import Contract

#: [B, L, S, H]
SHAPES = ((1, 7, 7, 2), (2, 33, 64, 3), (2, 1, 130, 1))
HEAD_DIMS = (8, 64, 128)


class AttentionContract(Contract):
    """``softmax(q k^T * scale) v``, for the head dims and dtypes of the spec."""

    kind = "attention"
    #: dtype -> largest absolute error for inputs of unit variance
    tolerance: ClassVar[Mapping[str, float]] = {"float32": 1e-5, "float16": 4e-3, "bfloat16": 3e-2}

    @pytest.fixture
    def attention(
        self, spec: AttentionSpec[Any], config: Any, context: BuildContext, usable: None
    ) -> Attention:
        return spec.build(config, context)

    @pytest.fixture
    def head_dims(self, spec: AttentionSpec[Any]) -> tuple[int, ...]:
        return HEAD_DIMS if spec.head_dims is None else tuple(sorted(spec.head_dims))[:4]

    @pytest.fixture
    def dtypes(self, spec: AttentionSpec[Any]) -> tuple[str, ...]:
        return tuple(sorted(spec.dtypes))

    @pytest.fixture
    def inputs(self, head_dims: tuple[int, ...], dtypes: tuple[str, ...], context: BuildContext) -> Any:
        """Return q, k and v of one ordinary call."""
        return _inputs((2, 9, 12, 3), head_dims[0], dtypes[0], context)

    def test_it_names_dtypes_and_head_dims(self, spec: AttentionSpec[Any]) -> None:
        assert spec.dtypes, "AttentionSpec.dtypes is empty"
        assert spec.dtypes <= {"float32", "float16", "bfloat16"}, f"unknown dtypes: {sorted(spec.dtypes)}"
        assert spec.head_dims is None or (spec.head_dims and min(spec.head_dims) > 0)

    def test_it_computes_attention(
        self,
        attention: Attention,
        head_dims: tuple[int, ...],
        dtypes: tuple[str, ...],
        context: BuildContext,
    ) -> None:
        for dtype in dtypes:
            for shape in SHAPES:
                for head_dim in head_dims:
                    q, k, v = _inputs(shape, head_dim, dtype, context)
                    self._check(attention(q, k, v), q, k, v, head_dim**-0.5, dtype)

    def test_the_result_has_the_form_of_the_query(self, attention: Attention, inputs: Any) -> None:
        q, k, v = inputs
        out = attention(q, k, v)
        assert out.shape == q.shape
        assert out.dtype == q.dtype
        assert out.device == q.device

    def test_it_heeds_the_scale(self, attention: Attention, inputs: Any, dtypes: tuple[str, ...]) -> None:
        q, k, v = inputs
        for scale in (0.05, 1.0):
            self._check(attention(q, k, v, scale=scale), q, k, v, scale, dtypes[0])

    def test_large_scores_do_not_overflow(
        self, attention: Attention, inputs: Any, dtypes: tuple[str, ...]
    ) -> None:
        q, k, v = inputs
        out = attention(q * 30, k * 30, v)
        assert out.isfinite().all(), "softmax overflows; subtract the maximum from the scores first"

    def test_it_takes_views(self, attention: Attention, inputs: Any, dtypes: tuple[str, ...]) -> None:
        """Accept heads before tokens in memory, and q, k and v as views of one tensor."""
        import torch

        q, k, v = inputs
        turned = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
        assert not turned[0].is_contiguous()
        scale = q.shape[-1] ** -0.5
        self._check(attention(*turned), q, k, v, scale, dtypes[0])
        packed = torch.stack((k, k, v), dim=3)
        parts = packed.unbind(dim=3)
        self._check(attention(*parts), k, k, v, scale, dtypes[0])

    def test_it_leaves_its_inputs_alone(self, attention: Attention, inputs: Any) -> None:
        import torch

        before = [x.clone() for x in inputs]
        attention(*inputs)
        assert all(torch.equal(x, y) for x, y in zip(inputs, before, strict=True)), "an input was modified"

    def test_the_same_call_gives_the_same_bits(self, attention: Attention, inputs: Any) -> None:
        import torch

        assert torch.equal(attention(*inputs), attention(*inputs))

    def test_batch_elements_do_not_mix(
        self, attention: Attention, inputs: Any, dtypes: tuple[str, ...]
    ) -> None:
        q, k, v = inputs
        alone = attention(q[:1], k[:1], v[:1])
        difference = (attention(q, k, v)[:1].double() - alone.double()).abs().max().item()
        assert difference <= 2 * self.tolerance[dtypes[0]]

    def _check(self, out: Any, q: Any, k: Any, v: Any, scale: float, dtype: str) -> None:
        wanted = exact(q, k, v, scale)
        difference = (out.double().cpu() - wanted).abs().max().item()
        assert difference <= self.tolerance[dtype], (
            f"{dtype}, q {list(q.shape)}, k {list(k.shape)}, scale {scale:g}: error {difference:.2g} exceeds "
            f"{self.tolerance[dtype]:g}"
        )


def exact(q: Any, k: Any, v: Any, scale: float) -> Any:
    """Compute attention in float64 on the CPU, [B, L, H, D]."""
    import torch

    q, k, v = (x.detach().cpu().double() for x in (q, k, v))
    scores = torch.einsum("blhd,bshd->bhls", q, k) * scale
    return torch.einsum("bhls,bshd->blhd", scores.softmax(dim=-1), v)


def _inputs(shape: tuple[int, ...], head_dim: int, dtype: str, context: BuildContext) -> list[Any]:
    import torch

    batch, queries, keys, heads = shape
    generator = torch.Generator().manual_seed(head_dim + queries)
    return [
        torch.randn(batch, length, heads, head_dim, generator=generator)
        .to(getattr(torch, dtype))
        .to(context.device.torch_name)
        for length in (queries, keys, keys)
    ]
