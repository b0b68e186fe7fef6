"""Quantizers with one mistake each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from attrs import evolve
from torch.nn.functional import linear

from lightx2v_core.api import LayerFormat, QuantizerSpec, StoredLinear, dequantize_weight, quantize_weight
from lightx2v_core.discovery.plugins import PluginSet
from lightx2v_core.testing import plugin_set
from lightx2v_core.testing.contracts import QuantizerContract


class Decoded(StoredLinear):
    def forward(self, x: Any) -> Any:
        return linear(x, (self.weight.float() * self.scales()[:, None]).to(self.dtype), self.bias)


class Codes:
    """A right one, to be spoilt."""

    layer: ClassVar[type[StoredLinear]] = Decoded

    def linear(self, plain: Any, layer: LayerFormat) -> Any:
        return self.layer(plain, layer)

    def quantize(self, weight: Any, format: str) -> dict[str, Any]:
        return quantize_weight(weight, format)

    def dequantize(self, stored: Mapping[str, Any], layer: LayerFormat) -> Any:
        return dequantize_weight(stored, layer.format)


class Wrong(QuantizerContract):
    use = "given/wrong"
    caught_by: ClassVar[str]
    quantizer_type: ClassVar[type[Codes]] = Codes
    more: ClassVar[dict[str, Any]] = {}

    def plugins(self) -> PluginSet:
        spec = QuantizerSpec(
            name="wrong",
            summary="a quantizer",
            formats=frozenset({"int8-channel", "fp8-channel"}),
            makes=lambda _config: "int8-channel",
            exact=True,
            build=lambda _config, _ctx: self.quantizer_type(),
        )
        return plugin_set(evolve(spec, **self.more))


class TestRight(Wrong):
    """The one that is not wrong."""


class TestMakesWhatItDoesNotRun(Wrong):
    caught_by = "test_it_names_formats"
    more: ClassVar = {"makes": lambda _config: "nvfp4"}


class TestRefusesWithoutAReason(Wrong):
    caught_by = "test_refusals_are_sentences"
    more: ClassVar = {"refuses": lambda shape, _ctx: shape[0] % 16 != 0}


class OneScale(Codes):
    """Decodes with the scale of the first channel."""

    def dequantize(self, stored: Mapping[str, Any], layer: LayerFormat) -> Any:
        return stored["weight"].float() * stored["weight_scale"].reshape(-1)[0]


class TestOneScale(Wrong):
    caught_by = "test_stored_weights_mean_what_they_are"
    quantizer_type = OneScale


class HalfPrecision(Codes):
    def dequantize(self, stored: Mapping[str, Any], layer: LayerFormat) -> Any:
        return super().dequantize(stored, layer).half()


class TestHalfPrecision(Wrong):
    caught_by = "test_stored_weights_mean_what_they_are"
    quantizer_type = HalfPrecision


class ScaleTurnedAround(Codes):
    """Stores what divides, under the name of what multiplies, as a row."""

    def quantize(self, weight: Any, format: str) -> dict[str, Any]:
        found = super().quantize(weight, format)
        return {**found, "weight_scale": found["weight_scale"].reshape(1, -1)}


class TestScaleTurnedAround(Wrong):
    caught_by = "test_what_it_makes_is_recognized"
    quantizer_type = ScaleTurnedAround


class TakesAnyFormat(Codes):
    def quantize(self, weight: Any, format: str) -> dict[str, Any]:
        return quantize_weight(weight, "int8-channel")


class TestTakesAnyFormat(Wrong):
    caught_by = "test_unknown_formats_are_refused"
    quantizer_type = TakesAnyFormat


class StoresNonsense(Codes):
    def quantize(self, weight: Any, format: str) -> dict[str, Any]:
        return super().quantize(weight.nan_to_num(0, 1, -1), format)


class TestStoresNonsense(Wrong):
    caught_by = "test_what_is_no_number_is_not_stored"
    quantizer_type = StoresNonsense


class OnTheCpu(Decoded):
    def __init__(self, plain: Any, layer: LayerFormat) -> None:
        super().__init__(plain, layer)
        self.to_empty(device="cpu")


class LiesOnTheCpu(Codes):
    layer = OnTheCpu


class TestLiesOnTheCpu(Wrong):
    caught_by = "test_layers_lie_on_the_meta_device_under_stored_names"
    quantizer_type = LiesOnTheCpu


class Renamed(Decoded):
    def __init__(self, plain: Any, layer: LayerFormat) -> None:
        super().__init__(plain, layer)
        self.codes = self.weight


class RenamesTensors(Codes):
    layer = Renamed


class TestRenamesTensors(Wrong):
    caught_by = "test_layers_lie_on_the_meta_device_under_stored_names"
    quantizer_type = RenamesTensors


class WithoutBias(Decoded):
    def forward(self, x: Any) -> Any:
        return super().forward(x) - (0 if self.bias is None else self.bias)


class ForgetsTheBias(Codes):
    layer = WithoutBias


class TestForgetsTheBias(Wrong):
    caught_by = "test_layers_compute_with_their_weights"
    quantizer_type = ForgetsTheBias


class Rounded(Decoded):
    def forward(self, x: Any) -> Any:
        return super().forward(x.bfloat16().float())


class SaysItIsExact(Codes):
    layer = Rounded


class TestSaysItIsExact(Wrong):
    caught_by = "test_layers_compute_with_their_weights"
    quantizer_type = SaysItIsExact


class FlatOnly(Decoded):
    def forward(self, x: Any) -> Any:
        return super().forward(x.reshape(-1, x.shape[-1]))


class TakesMatricesOnly(Codes):
    layer = FlatOnly


class TestTakesMatricesOnly(Wrong):
    caught_by = "test_layers_compute_with_their_weights"
    quantizer_type = TakesMatricesOnly


class ScalesTheInput(Decoded):
    def forward(self, x: Any) -> Any:
        return super().forward(x.mul_(torch.ones(())).clamp_(-3, 3))


class WritesItsInput(Codes):
    layer = ScalesTheInput


class TestWritesItsInput(Wrong):
    caught_by = "test_layers_compute_with_their_weights"
    quantizer_type = WritesItsInput
