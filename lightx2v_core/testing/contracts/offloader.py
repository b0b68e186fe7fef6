"""The contract of offloaders: results equal those of resident weights, independent of where weights are kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from lightx2v_core.checkpoint.fill import SourceWeights
from lightx2v_core.errors import LightX2VError, RunError
from lightx2v_core.spec.context import BuildContext
from lightx2v_core.spec.memory import OffloadForecast, Workload
from lightx2v_core.spec.protocols import Offloader
from lightx2v_core.spec.specs import OffloaderSpec
from lightx2v_core.testing.contracts.common import Contract
from lightx2v_core.testing.sources import MemorySource

if TYPE_CHECKING:
    from torch import Tensor, nn

BLOCKS = 6
#: width of each component, by its number
WIDTHS = (24, 40, 16)


class Placed:
    """A component under the offloader, and a copy with resident weights."""

    def __init__(self, offloader: Offloader, name: str, seed: int, device: str) -> None:
        import torch

        generator = torch.Generator().manual_seed(seed)
        self.name, self._offloader, self._device = name, offloader, device
        width = WIDTHS[seed % len(WIDTHS)]
        with torch.device("meta"):
            self.module, self._stays = _network(width), _network(width)
        self.source = MemorySource(
            {
                key: torch.randn(slot.shape, generator=generator) / width**0.5
                for key, slot in self.module.state_dict().items()
            }
        )
        blocks = [f"blocks.{index}" for index in range(BLOCKS)]
        weights = SourceWeights(self.module, self.source, lambda _count, _name: None)
        offloader.place(name, self.module, weights, blocks)
        self.module.eval()
        self.refill()
        self._input = torch.randn(2, width, generator=generator).to(device)

    def refill(self) -> None:
        """Copy the values of the source into the resident copy."""
        self._stays.load_state_dict(
            {name: tensor.to(self._device) for name, tensor in self.source.tensors.items()}, assign=True
        )

    def __call__(
        self, order: Sequence[int] = tuple(range(BLOCKS)), *, stop: Exception | None = None
    ) -> Tensor:
        """Run one use; with ``stop`` raise it in the middle."""
        with self._offloader.active(self.name):
            return self.inside(order, stop=stop)

    def inside(self, order: Sequence[int] = tuple(range(BLOCKS)), *, stop: Exception | None = None) -> Tensor:
        """Run the component within a use that is already open."""
        import torch

        with torch.inference_mode():
            out: Tensor = self.module(self._input, order, stop)
            return out.clone()

    def wanted(self, order: Sequence[int] = tuple(range(BLOCKS))) -> Tensor:
        """Compute the result of the resident copy."""
        import torch

        with torch.inference_mode():
            out: Tensor = self._stays(self._input, order, None)
            return out

    def check(self, order: Sequence[int] = tuple(range(BLOCKS))) -> None:
        """Compare the result of one use with that of the resident copy."""
        import torch

        assert torch.equal(self(order), self.wanted(order)), (
            f"{self.name}: wrong result with blocks {list(order)}"
        )


class OffloaderContract(Contract):
    """``place``, ``active``, ``prepare``, ``refresh`` and ``close``, in every order possible in a run."""

    kind = "offloader"

    @pytest.fixture
    def offloader(
        self, spec: OffloaderSpec[Any], config: Any, context: BuildContext, usable: None
    ) -> Iterator[Offloader]:
        built = spec.build(config, context)
        yield built
        built.close()

    @pytest.fixture
    def three(self, offloader: Offloader, context: BuildContext) -> list[Placed]:
        """Place three components: a text encoder and two alternating networks."""
        names = ("text_encoder", "high_noise", "low_noise")
        device = context.device.torch_name
        return [Placed(offloader, name, seed, device) for seed, name in enumerate(names)]

    def test_results_are_those_of_weights_that_stay(self, three: list[Placed]) -> None:
        for placed in three:
            placed.check()

    def test_a_component_is_used_again_and_again(self, three: list[Placed]) -> None:
        """Run the encoder once per request and a network in every step, for several requests."""
        encoder, high, low = three
        for _request in range(3):
            encoder.check()
            for step in range(4):
                (high if step < 2 else low).check()

    def test_several_calls_in_one_use(self, three: list[Placed], offloader: Offloader) -> None:
        import torch

        network = three[1]
        with offloader.active(network.name):
            for _ in range(3):
                assert torch.equal(network.inside(), network.wanted())

    def test_blocks_may_be_left_out_or_turned_around(self, three: list[Placed]) -> None:
        network = three[1]
        for order in ((5, 4, 3, 2, 1, 0), (0, 2, 4), (5,), (), (1, 2, 3, 4, 5), tuple(range(BLOCKS))):
            network.check(order)

    def test_a_use_that_fails_is_no_end(self, three: list[Placed]) -> None:
        """Check that the exception passes through unchanged and the next use is correct."""
        _, high, low = three
        stop = KeyError("stopped in the middle")
        for other in (high, low):
            with pytest.raises(KeyError, match="stopped in the middle"):
                high(stop=stop)
            other.check()

    def test_a_use_may_be_given_up(self, three: list[Placed], offloader: Offloader) -> None:
        """Close an abandoned use during another one, like that of a decoder whose chunks were not all read."""
        import torch

        encoder, high, low = three
        given_up = offloader.active(encoder.name)
        given_up.__enter__()
        encoder.inside()
        high.check()
        with offloader.active(high.name):
            high.inside()
            given_up.__exit__(None, None, None)
            assert torch.equal(high.inside(), high.wanted()), (
                "closing an abandoned use disturbed the current one"
            )
        for placed in (low, encoder):
            placed.check()

    def test_hints_change_nothing(self, three: list[Placed], offloader: Offloader) -> None:
        encoder, high, low = three
        for hinted in (low, low, encoder, high):
            offloader.prepare(hinted.name)
            high.check()
        offloader.prepare(encoder.name)
        low.check()
        encoder.check()

    def test_switched_values_are_read_again(self, three: list[Placed], offloader: Offloader) -> None:
        """Call ``refresh`` between two uses, and check that other components keep their values."""
        _, high, low = three
        high.check()
        names = ["blocks.0.first.weight", f"blocks.{BLOCKS - 1}.second.bias", "head.weight"]
        for _ in range(2):
            for name in names:
                high.source.tensors[name] = high.source.tensors[name] * -1.5
            high.refill()
            offloader.refresh(high.name, names)
            high.check()
            low.check()
        low.source.tensors["head.weight"] = low.source.tensors["head.weight"] + 1
        low.refill()
        offloader.refresh(low.name, ["head.weight"])  # of a component that is not active
        high.check()
        low.check()

    def test_an_unreadable_file_is_a_clear_error(
        self, spec: OffloaderSpec[Any], config: Any, context: BuildContext, usable: None
    ) -> None:
        """Check that the error of the reader passes through, whether placing or running raises it."""
        offloader = spec.build(config, context)
        try:
            placed = Placed(offloader, "dit", 0, context.device.torch_name)
            read = list(placed.source.read_names)
            placed.source.failing = {name: RunError("the file disappeared") for name in placed.source.names()}
            if read:  # the weights are already loaded
                placed.check()
                return
            with pytest.raises(LightX2VError, match="the file disappeared"):
                placed()
        finally:
            offloader.close()

    def test_closing_gives_everything_back(
        self, spec: OffloaderSpec[Any], config: Any, context: BuildContext, usable: None
    ) -> None:
        before = set(threading.enumerate())
        offloader = spec.build(config, context)
        placed = Placed(offloader, "dit", 0, context.device.torch_name)
        placed.check()
        offloader.close()
        offloader.close()
        limit = time.monotonic() + 2
        while (left := set(threading.enumerate()) - before) and time.monotonic() < limit:
            time.sleep(0.01)
        assert not left, f"close left threads running: {[thread.name for thread in left]}"

    def test_two_of_them_do_not_meet(
        self, spec: OffloaderSpec[Any], config: Any, context: BuildContext, usable: None
    ) -> None:
        """Use two offloaders with the same component names, as two pipelines in one process do."""
        device = context.device.torch_name
        first, second = spec.build(config, context), spec.build(config, context)
        here, there = Placed(first, "dit", 1, device), Placed(second, "dit", 2, device)
        for placed in (here, there, here):
            placed.check()
        first.close()
        there.check()
        second.close()

    def test_the_forecast_is_one(self, spec: OffloaderSpec[Any], config: Any, context: BuildContext) -> None:
        """Check the bounds of the forecast: at least the largest block, at most all components resident."""
        loads = [
            Workload(
                name=name,
                weights=7 * 2**20,
                activations=2**20,
                blocks=(2**20,) * 6,
                passes=passes,
                seconds=0.1,
            )
            for name, passes in (("text_encoder", 0), ("dit", 2))
        ]
        for options in (config, *spec.settings):
            forecast = spec.forecast(options, context, loads)
            assert isinstance(forecast, OffloadForecast)
            assert 2**20 <= forecast.weights <= 14 * 2**20
            assert 0 <= forecast.activations <= 2 * 2**20 + 14 * 2**20
            assert min(forecast.host, forecast.moved, forecast.scratch) >= 0
            assert min(forecast.exposed, forecast.switching) >= 0


def _network(width: int) -> nn.Module:
    """Build a network with blocks of several sizes, so that a buffer for any block is larger than most of them."""
    import torch
    from torch import nn

    class Linear(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            assert not self.weight.is_meta, "a layer is called before its weights are loaded"
            return super().forward(input)

    class Block(nn.Module):
        def __init__(self, inner: int) -> None:
            super().__init__()
            self.first, self.second = Linear(width, inner), Linear(inner, width)
            self.modulation = nn.Parameter(torch.empty(inner))

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = x + self.second(torch.tanh(self.first(x) * self.modulation))
            return out

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = Linear(width, width), Linear(width, 5)
            self.blocks = nn.ModuleList(Block(width * (1 + index % 3)) for index in range(BLOCKS))

        def forward(self, x: Tensor, order: Sequence[int], stop: Exception | None) -> Tensor:
            x = self.embed(x)
            for place, index in enumerate(order):
                if stop is not None and place == len(order) // 2:
                    raise stop
                x = self.blocks[index](x)
            out: Tensor = self.head(x)
            return out

    return Network()
