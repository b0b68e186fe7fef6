"""The contract of LoRA appliers: merged or attached, a network computes with ``W + strength * scale * (up @ down)``,
and without adapters it is the unchanged network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

from lightx2v_core.checkpoint.fill import SourceWeights
from lightx2v_core.spec.context import BuildContext
from lightx2v_core.spec.protocols import Adapter, Change, LoraApplier
from lightx2v_core.spec.specs import LORA_KINDS, LoraApplierSpec
from lightx2v_core.testing.contracts.common import Contract
from lightx2v_core.testing.sources import MemorySource

WIDTH, RANK = 16, 4


class LoraApplierContract(Contract):
    """Low-rank changes and added tensors, which every applier supports: one, several, partial, switched and removed."""

    kind = "lora_applier"
    #: largest absolute error of outputs, compared with weights changed directly
    tolerance: ClassVar[float] = 2e-5

    @pytest.fixture
    def applier(
        self, spec: LoraApplierSpec[Any], config: Any, context: BuildContext, usable: None
    ) -> LoraApplier:
        return spec.build(config, context)

    @pytest.fixture
    def base(self) -> MemorySource:
        import torch

        generator = torch.Generator().manual_seed(0)
        with torch.device("meta"):
            state = _network().state_dict()
        return MemorySource(
            {name: torch.randn(x.shape, generator=generator) / 4 for name, x in state.items()}
        )

    def test_it_names_kinds(self, spec: LoraApplierSpec[Any]) -> None:
        assert spec.kinds <= LORA_KINDS, f"unknown kinds: {sorted(spec.kinds - LORA_KINDS)}"
        assert {"low-rank", "diff"} <= spec.kinds, (
            "every applier must support low-rank changes and added tensors (low-rank, diff)"
        )

    def test_an_adapter_changes_the_network(
        self, applier: LoraApplier, base: MemorySource, context: BuildContext
    ) -> None:
        for strength in (1.0, 0.3, -0.5):
            self._check(applier, base, [_adapter(1, strength)], context)

    def test_adapters_add_up(self, applier: LoraApplier, base: MemorySource, context: BuildContext) -> None:
        self._check(applier, base, [_adapter(1, 0.7), _adapter(2, 0.4), _adapter(3, -0.2)], context)

    def test_a_strength_of_zero_changes_nothing(
        self, applier: LoraApplier, base: MemorySource, context: BuildContext
    ) -> None:
        import torch

        run = _Run(applier, base, context)
        run.apply([_adapter(1, 0.0)])
        assert torch.equal(run.output(), _output(base.tensors, context)), (
            "an adapter of strength 0 changes the output"
        )

    def test_switching_leaves_nothing_behind(
        self, applier: LoraApplier, base: MemorySource, context: BuildContext
    ) -> None:
        """Apply one adapter, another one, none, and the first again, and compare the outputs."""
        import torch

        run = _Run(applier, base, context)
        run.apply([_adapter(1, 0.8)])
        first = run.output()
        run.apply([_adapter(2, 0.5)])
        run.apply([])
        assert torch.equal(run.output(), _output(base.tensors, context)), (
            "without adapters the output differs from that of the plain network"
        )
        run.apply([_adapter(1, 0.8)])
        torch.testing.assert_close(run.output(), first, atol=1e-6, rtol=1e-6)

    def test_it_is_attached_before_weights_are_there(
        self, applier: LoraApplier, base: MemorySource, context: BuildContext
    ) -> None:
        """Check that parameters keep names and shapes, as an offloader may fill the module at any time."""
        import torch

        run = _Run(applier, base, context, filled=False)
        names = {name: slot.shape for name, slot in run.module.state_dict().items()}
        adapters = [_adapter(1, 0.8)]
        run.apply(adapters)
        run.fill()
        stored = {name: x.shape for name, x in run.module.state_dict().items() if name in names}
        assert stored == names, "names or shapes of parameters changed"
        wanted = _output(_changed(base, adapters), context)
        torch.testing.assert_close(run.output(), wanted, atol=self.tolerance, rtol=self.tolerance)

    def test_what_it_reads_from_stays_as_it_is(
        self, applier: LoraApplier, base: MemorySource, context: BuildContext
    ) -> None:
        import torch

        adapter = _adapter(1, 0.8)
        before = {name: tensor.clone() for name, tensor in base.tensors.items()}
        run = _Run(applier, base, context)
        run.apply([adapter])
        run.output()
        assert all(torch.equal(base.tensors[name], tensor) for name, tensor in before.items())
        assert all(torch.equal(x, _adapter(1, 0.8).source.read(n)) for n, x in adapter.source.tensors.items())  # type: ignore[attr-defined]

    def test_sources_keep_names_and_dtypes(
        self, applier: LoraApplier, base: MemorySource, context: BuildContext
    ) -> None:
        import torch

        half = MemorySource({name: tensor.bfloat16() for name, tensor in base.tensors.items()})
        merged = applier.merged(half, [_adapter(1, 1.0)])
        assert list(merged.names()) == list(half.names())
        for name in half.names():
            tensor = merged.read(name)
            assert merged.info(name).dtype == "bfloat16"
            assert tensor.dtype == torch.bfloat16, f"{name} is read as {tensor.dtype}, not as bfloat16"
            assert tensor.shape == half.tensors[name].shape

    def test_without_adapters_nothing_is_between(self, applier: LoraApplier, base: MemorySource) -> None:
        assert applier.merged(base, []) is base

    def _check(
        self, applier: LoraApplier, base: MemorySource, adapters: Sequence[Adapter], context: BuildContext
    ) -> None:
        run = _Run(applier, base, context)
        run.apply(adapters)
        off = (run.output() - _output(_changed(base, adapters), context)).abs().max().item()
        assert off <= self.tolerance, (
            f"strengths {[a.strength for a in adapters]}: error {off:.2g} exceeds {self.tolerance:g}"
        )


class _Run:
    """A module under an applier, filled as a run fills it."""

    def __init__(
        self, applier: LoraApplier, base: MemorySource, context: BuildContext, *, filled: bool = True
    ) -> None:
        import torch

        self._applier, self._base, self._context, self._filled = applier, base, context, filled
        with torch.device("meta"):
            self.module = _network().eval()
        self._weights = SourceWeights(self.module, base, lambda _count, _name: None)
        if filled:
            self.fill()

    def fill(self) -> None:
        self._weights.fill("", self._context.device.torch_name)
        self._filled = True

    def apply(self, adapters: Sequence[Adapter]) -> None:
        """Read the merged weights again and attach the adapters."""
        self._weights.source = self._applier.merged(self._base, adapters)
        if self._filled:
            self._weights.refill(list(self._base.names()), self._context.device.torch_name)
        self._applier.attach(self.module, adapters)

    def output(self) -> Any:
        import torch

        with torch.inference_mode():
            return self.module(_input().to(self._context.device.torch_name)).clone()


def _network() -> Any:
    import torch
    from torch import nn

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH, bias=False)
            self.norm = nn.LayerNorm(WIDTH)

        def forward(self, x: Any) -> Any:
            return self.norm(self.second(torch.tanh(self.first(x))))

    return Network()


def _adapter(seed: int, strength: float) -> Adapter:
    """Create low-rank changes of both linears, one of them for some rows, and tensors added to a bias and a norm."""
    import torch

    generator = torch.Generator().manual_seed(100 + seed)

    def make(*shape: int) -> Any:
        return torch.randn(shape, generator=generator) / 2

    tensors = {
        "a.down": make(RANK, WIDTH), "a.up": make(2 * WIDTH, RANK),
        "b.down": make(RANK, 2 * WIDTH), "b.up": make(WIDTH // 2, RANK),
        "c.diff": make(2 * WIDTH), "d.diff": make(WIDTH),
    }  # fmt: skip
    changes = (
        Change(
            target="first.weight", kind="low-rank", tensors={"down": "a.down", "up": "a.up"},
            shape=(2 * WIDTH, WIDTH), rank=RANK, scale=0.5,
        ),
        Change(
            target="second.weight", kind="low-rank", tensors={"down": "b.down", "up": "b.up"},
            shape=(WIDTH, 2 * WIDTH), rank=RANK, rows=(4, 4 + WIDTH // 2), scale=2.0,
        ),
        Change(target="first.bias", kind="diff", tensors={"diff": "c.diff"}, shape=(2 * WIDTH,)),
        Change(target="norm.weight", kind="diff", tensors={"diff": "d.diff"}, shape=(WIDTH,)),
    )  # fmt: skip
    return Adapter(source=MemorySource(tensors), changes=changes, strength=strength, name=f"adapter {seed}")


def _changed(base: MemorySource, adapters: Sequence[Adapter]) -> dict[str, Any]:
    """Compute the changed weights, in float64."""
    tensors = {name: tensor.double() for name, tensor in base.tensors.items()}
    for adapter in adapters:
        for change in adapter.changes:
            read = {role: adapter.source.read(name).double() for role, name in change.tensors.items()}
            added = read["diff"] if change.kind == "diff" else change.scale * read["up"] @ read["down"]
            first, last = change.rows or (0, change.shape[0])
            tensors[change.target][first:last] += adapter.strength * added
    return {name: tensor.float() for name, tensor in tensors.items()}


def _output(tensors: dict[str, Any], context: BuildContext) -> Any:
    import torch

    device = context.device.torch_name
    with torch.device("meta"):
        module = _network().eval()
    module.load_state_dict({name: x.to(device) for name, x in tensors.items()}, assign=True)
    with torch.inference_mode():
        return module(_input().to(device))


def _input() -> Any:
    import torch

    return torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(9))
