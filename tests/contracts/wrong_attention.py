"""Attention backends with one mistake each."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from attrs import evolve, frozen
from torch.nn.functional import scaled_dot_product_attention

from lightx2v_core.api import AttentionSpec
from lightx2v_core.discovery.plugins import PluginSet
from lightx2v_core.testing import plugin_set
from lightx2v_core.testing.contracts import AttentionContract


def right(q: Any, k: Any, v: Any, *, scale: float | None = None) -> Any:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2)


class Wrong(AttentionContract):
    use = "given/wrong"
    more: ClassVar[dict[str, Any]] = {}
    caught_by: ClassVar[str]

    def plugins(self) -> PluginSet:
        spec = AttentionSpec(name="wrong", summary="an attention", build=lambda config, ctx: self.call)
        return plugin_set(evolve(spec, **self.more))

    def call(self, q: Any, k: Any, v: Any, *, scale: float | None = None) -> Any:
        return right(q, k, v, scale=scale)


class TestRight(Wrong):
    """The one that is not wrong."""


class TestForgetsTheScale(Wrong):
    caught_by = "test_it_heeds_the_scale"

    def call(self, q: Any, k: Any, v: Any, *, scale: float | None = None) -> Any:
        return right(q, k, v)


class TestForgetsTheDefaultScale(Wrong):
    caught_by = "test_it_computes_attention"

    def call(self, q: Any, k: Any, v: Any, *, scale: float | None = None) -> Any:
        return right(q, k, v, scale=1.0 if scale is None else scale)


class TestIsCausal(Wrong):
    caught_by = "test_it_computes_attention"

    def call(self, q: Any, k: Any, v: Any, *, scale: float | None = None) -> Any:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return scaled_dot_product_attention(q, k, v, scale=scale, is_causal=True).transpose(1, 2)


class TestHeadsBeforeTokens(Wrong):
    caught_by = "test_the_result_has_the_form_of_the_query"

    def call(self, q: Any, k: Any, v: Any, *, scale: float | None = None) -> Any:
        return right(q, k, v, scale=scale).transpose(1, 2)


class TestGivesFloat64(Wrong):
    caught_by = "test_the_result_has_the_form_of_the_query"

    def call(self, q: Any, k: Any, v: Any, *, scale: float | None = None) -> Any:
        return right(q, k, v, scale=scale).double()


class TestComputesInHalf(Wrong):
    caught_by = "test_it_computes_attention"

    def call(self, q: Any, k: Any, v: Any, *, scale: float | None = None) -> Any:
        return right(q.half(), k.half(), v.half(), scale=scale).to(q.dtype)


class TestOverflows(Wrong):
    caught_by = "test_large_scores_do_not_overflow"

    def call(self, q: Any, k: Any, v: Any, *, scale: float | None = None) -> Any:
        scores = torch.einsum("blhd,bshd->bhls", q.float(), k.float()) * (scale or q.shape[-1] ** -0.5)
        weights = scores.exp() / scores.exp().sum(dim=-1, keepdim=True)
        return torch.einsum("bhls,bshd->blhd", weights, v.float()).to(q.dtype)


class TestReadsMemoryAsItLies(Wrong):
    caught_by = "test_it_takes_views"

    def call(self, q: Any, k: Any, v: Any, *, scale: float | None = None) -> Any:
        q, k, v = (x.as_strided(x.shape, torch.empty(x.shape, device="meta").stride(), 0) for x in (q, k, v))
        return right(q, k, v, scale=scale)


class TestScalesInPlace(Wrong):
    caught_by = "test_it_leaves_its_inputs_alone"

    def call(self, q: Any, k: Any, v: Any, *, scale: float | None = None) -> Any:
        return right(q.mul_(scale or q.shape[-1] ** -0.5), k, v, scale=1.0)


class TestIsRandom(Wrong):
    caught_by = "test_the_same_call_gives_the_same_bits"

    def call(self, q: Any, k: Any, v: Any, *, scale: float | None = None) -> Any:
        out = right(q, k, v, scale=scale)
        return out * (1 + 0.02 * torch.rand_like(out))


class TestMixesTheBatch(Wrong):
    caught_by = "test_batch_elements_do_not_mix"

    def call(self, q: Any, k: Any, v: Any, *, scale: float | None = None) -> Any:
        if len(q) == 1:
            return right(q, k, v, scale=scale)
        k, v = (torch.cat(x.unbind(0))[None].expand(len(q), -1, -1, -1) for x in (k, v))
        return right(q, k, v, scale=scale)


class TestUnknownDtypes(Wrong):
    caught_by = "test_it_names_dtypes_and_head_dims"
    more: ClassVar = {"dtypes": frozenset({"float32", "fp8"})}


class TestHasNoSummary(Wrong):
    caught_by = "test_it_says_what_it_is"
    more: ClassVar = {"summary": " "}


class TestReasonsAreOneString(Wrong):
    caught_by = "test_reasons_are_sentences"
    more: ClassVar = {"unusable": lambda ctx: "not here" if ctx.device.kind == "cuda" else ""}


class TestReasonsRaise(Wrong):
    caught_by = "test_reasons_are_sentences"
    more: ClassVar = {"unusable": lambda ctx: [] if ctx.device.kind == "cpu" else [][1]}


@frozen(kw_only=True)
class NeedsAnOption:
    kernel: str


class TestOptionsWithoutDefaults(Wrong):
    caught_by = "test_its_options_have_defaults_and_survive_a_file"
    more: ClassVar = {"config": NeedsAnOption}
