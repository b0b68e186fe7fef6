"""The contract of quantizers: stored weights follow their format, and layers compute with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from lightx2v_core.checkpoint.formats import layer_formats
from lightx2v_core.quant.arithmetic import WEIGHT_FORMATS, dequantize_weight, quantize_weight
from lightx2v_core.spec.context import BuildContext
from lightx2v_core.spec.protocols import Quantizer
from lightx2v_core.spec.specs import QuantizerSpec
from lightx2v_core.spec.tensors import Header, LayerFormat, TensorInfo
from lightx2v_core.testing.contracts.common import Contract
from lightx2v_core.testing.sources import MemorySource

OUT, IN = 32, 64


class QuantizerContract(Contract):
    """Every format of the spec that can be stored. Override ``stored`` for formats that the core does not know."""

    kind = "quantizer"
    #: format prefix -> largest relative error of a stored weight: norm of the difference / norm of the weight
    rounding: ClassVar[Mapping[str, float]] = {"int8": 0.02, "fp8-e5m2": 0.1, "fp8": 0.05, "": 0.15}
    #: largest relative error of a layer's output, for quantizers that are not exact and also round activations
    computing: ClassVar[float] = 0.06
    #: whether the header of a safetensors file identifies the format of ``makes``; False for formats of other file
    #: types or of memory only
    in_safetensors: ClassVar[bool] = True

    def stored(self, quantizer: Quantizer, weight: Any, format: str) -> Mapping[str, Any] | None:
        """Quantize a weight [out, in] to tensors by suffix; ``None`` if ``format`` cannot be written."""
        if format in WEIGHT_FORMATS:
            return quantize_weight(weight, format)
        try:
            return quantizer.quantize(weight, format)
        except ValueError:
            return None

    @pytest.fixture
    def quantizer(
        self, spec: QuantizerSpec[Any], config: Any, context: BuildContext, usable: None
    ) -> Quantizer:
        return spec.build(config, context)

    @pytest.fixture
    def samples(self, spec: QuantizerSpec[Any], quantizer: Quantizer) -> dict[str, Mapping[str, Any]]:
        """Return the tensors of one weight by format."""
        by_format = {name: self.stored(quantizer, _weight(), name) for name in sorted(spec.formats)}
        samples = {name: tensors for name, tensors in by_format.items() if tensors is not None}
        if not samples:
            pytest.fail(f"no weight can be stored as {', '.join(sorted(spec.formats))}; override stored")
        return samples

    def test_it_names_formats(self, spec: QuantizerSpec[Any], config: Any) -> None:
        assert spec.formats, "QuantizerSpec.formats is empty"
        made = spec.makes(config) if spec.makes is not None else None
        assert made is None or made in spec.formats, f"makes returns {made}, which is not in formats"

    def test_refusals_are_sentences(self, spec: QuantizerSpec[Any], context: BuildContext) -> None:
        for shape in ((16, 16), (1, 1), (7, 5), (5120, 13824), (3, 4096)):
            said = spec.refuses(shape, context)
            assert said is None or (isinstance(said, str) and said.strip()), f"{shape}: {said!r}"

    def test_stored_weights_mean_what_they_are(
        self, quantizer: Quantizer, samples: dict[str, Mapping[str, Any]]
    ) -> None:
        import torch

        weight = _weight()
        for name, tensors in samples.items():
            decoded = quantizer.dequantize(tensors, _layer(name, tensors))
            assert decoded.dtype == torch.float32, f"{name}: dequantized to {decoded.dtype}, not to float32"
            assert decoded.shape == weight.shape, name
            error = _error(decoded, weight)
            assert error <= self._bound(name), (
                f"{name}: relative error {error:.1%} of the weight exceeds {self._bound(name):.1%}"
            )
            if name in WEIGHT_FORMATS:
                assert torch.equal(decoded, dequantize_weight(tensors, name)), (
                    f"{name}: dequantize differs from dequantize_weight of the core"
                )

    def test_what_it_makes_is_recognized(
        self, spec: QuantizerSpec[Any], config: Any, quantizer: Quantizer
    ) -> None:
        """Recognize the format of ``makes`` from the header alone."""
        name = spec.makes(config) if spec.makes is not None else None
        if name is None:
            pytest.skip("it does not quantize plain weights")
        if not self.in_safetensors:
            pytest.skip(f"{name} is not stored in safetensors files")
        tensors = quantizer.quantize(_weight(), name)
        source = MemorySource({f"layer.{suffix}": tensor for suffix, tensor in tensors.items()})
        header = Header(tensors={key: source.info(key) for key in source.names()})
        formats = {layer.name: layer.format for layer in layer_formats(header).values()}
        assert formats == {"layer": name}

    def test_unknown_formats_are_refused(self, quantizer: Quantizer) -> None:
        with pytest.raises(ValueError, match="no-such-format"):
            quantizer.quantize(_weight(), "no-such-format")

    def test_what_is_no_number_is_not_stored(
        self, spec: QuantizerSpec[Any], config: Any, quantizer: Quantizer
    ) -> None:
        name = spec.makes(config) if spec.makes is not None else None
        if name is None:
            pytest.skip("it does not quantize plain weights")
        for wrong in (float("nan"), float("inf")):
            weight = _weight()
            weight[3, 4] = wrong
            with pytest.raises(ValueError, match="finite"):
                quantizer.quantize(weight, name)

    def test_layers_lie_on_the_meta_device_under_stored_names(
        self, quantizer: Quantizer, samples: dict[str, Mapping[str, Any]]
    ) -> None:
        for name, tensors in samples.items():
            for bias in (True, False):
                module = quantizer.linear(_plain(bias), _layer(name, tensors, bias=bias))
                state = module.state_dict(keep_vars=True)
                assert all(tensor.is_meta for tensor in state.values()), (
                    f"{name}: the layer is not on the meta device"
                )
                known = set(tensors) | ({"bias"} if bias else set())
                assert set(state) <= known, f"{name}: no stored tensors for {sorted(set(state) - known)}"
                needed = {"weight", "weight_scale"} & set(tensors) | ({"bias"} if bias else set())
                assert needed <= set(state), f"{name}: unused stored tensors {sorted(needed - set(state))}"

    def test_layers_compute_with_their_weights(
        self,
        spec: QuantizerSpec[Any],
        quantizer: Quantizer,
        samples: dict[str, Mapping[str, Any]],
        context: BuildContext,
    ) -> None:
        import torch
        from torch.nn.functional import linear

        device = context.device.torch_name
        for name, tensors in samples.items():
            if spec.refuses((OUT, IN), context):
                continue
            weight = quantizer.dequantize(tensors, _layer(name, tensors)).to(device)
            for bias in (torch.randn(OUT), None):
                module = self._filled(quantizer, name, tensors, bias, device)
                for shape in ((40, IN), (2, 20, IN), (1, IN)):
                    x = torch.randn(shape, generator=torch.Generator().manual_seed(5)).to(device)
                    kept = x.clone()
                    with torch.inference_mode():
                        out = module(x)
                    assert torch.equal(x, kept), f"{name}: the input was modified"
                    assert out.shape == (*shape[:-1], OUT), name
                    assert out.dtype == torch.float32, f"{name}: a float32 layer returned {out.dtype}"
                    error = _error(out, linear(x, weight, None if bias is None else bias.to(device)))
                    allowed = 1e-5 if spec.exact else self.computing
                    assert error <= allowed, (
                        f"{name}, input {list(shape)}: relative error {error:.2%} exceeds {allowed:.2%}"
                    )

    def _filled(
        self, quantizer: Quantizer, name: str, tensors: Mapping[str, Any], bias: Any, device: str
    ) -> Any:
        module = quantizer.linear(_plain(bias is not None), _layer(name, tensors, bias=bias is not None))
        given = {**tensors, **({} if bias is None else {"bias": bias})}
        state = {key: given[key].to(slot.dtype).to(device) for key, slot in module.state_dict().items()}
        module.load_state_dict(state, assign=True)
        return module.eval()

    def _bound(self, name: str) -> float:
        return self.rounding[max((start for start in self.rounding if name.startswith(start)), key=len)]


def _weight() -> Any:
    """Create a weight whose rows differ in size, as suits scales per channel."""
    import torch

    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(OUT, IN, generator=generator)
    return weight * torch.linspace(0.5, 2.0, OUT)[:, None]


def _plain(bias: bool) -> Any:
    import torch

    with torch.device("meta"):
        return torch.nn.Linear(IN, OUT, bias=bias)


def _layer(name: str, tensors: Mapping[str, Any], *, bias: bool = False) -> LayerFormat:
    source = MemorySource(tensors)
    infos: dict[str, TensorInfo] = {suffix: source.info(suffix) for suffix in tensors}
    if bias:
        infos["bias"] = TensorInfo(name="bias", shape=(OUT,), dtype="float32", file=infos["weight"].file)
    return LayerFormat(name="layer", format=name, tensors=infos, shape=(OUT, IN))


def _error(got: Any, wanted: Any) -> float:
    return float((got.double() - wanted.double()).norm() / wanted.double().norm())
