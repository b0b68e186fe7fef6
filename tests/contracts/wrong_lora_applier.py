"""LoRA appliers with one mistake each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from attrs import evolve

from lightx2v_core.api import LORA_KINDS, Adapter, LoraApplierSpec
from lightx2v_core.builtin.lora_merge import Merge
from lightx2v_core.discovery.plugins import PluginSet
from lightx2v_core.testing import plugin_set
from lightx2v_core.testing.contracts import LoraApplierContract


class Wrong(LoraApplierContract):
    use = "given/wrong"
    caught_by: ClassVar[str]
    applier_type: ClassVar[type[Any]] = Merge
    kinds: ClassVar[frozenset[str]] = LORA_KINDS

    def plugins(self) -> PluginSet:
        return plugin_set(
            LoraApplierSpec(
                name="wrong",
                summary="an applier",
                build=lambda _config, _ctx: self.applier_type(),
                kinds=self.kinds,
            )
        )


class TestRight(Wrong):
    """The one that is not wrong."""


class TestKnowsNoDiffs(Wrong):
    caught_by = "test_it_names_kinds"
    kinds = frozenset({"low-rank"})


class Spoilt(Merge):
    """Merges other adapters than it is given."""

    def merged(self, base: Any, adapters: Sequence[Adapter], *, quantizer: Any = None) -> Any:
        return super().merged(base, self.instead(adapters), quantizer=quantizer)

    def instead(self, adapters: Sequence[Adapter]) -> Sequence[Adapter]:
        return adapters


class IgnoresStrength(Spoilt):
    def instead(self, adapters: Sequence[Adapter]) -> Sequence[Adapter]:
        return [evolve(adapter, strength=1.0) for adapter in adapters]


class TestIgnoresStrength(Wrong):
    caught_by = "test_a_strength_of_zero_changes_nothing"
    applier_type = IgnoresStrength


class IgnoresAlpha(Spoilt):
    def instead(self, adapters: Sequence[Adapter]) -> Sequence[Adapter]:
        return [
            evolve(adapter, changes=[evolve(change, scale=1.0) for change in adapter.changes])
            for adapter in adapters
        ]


class TestIgnoresAlpha(Wrong):
    caught_by = "test_an_adapter_changes_the_network"
    applier_type = IgnoresAlpha


class LastOnly(Spoilt):
    def instead(self, adapters: Sequence[Adapter]) -> Sequence[Adapter]:
        return adapters[-1:]


class TestLastOnly(Wrong):
    caught_by = "test_adapters_add_up"
    applier_type = LastOnly


class AllRows(Spoilt):
    """Applies changes of some rows to the first rows."""

    def instead(self, adapters: Sequence[Adapter]) -> Sequence[Adapter]:
        return [
            evolve(
                adapter,
                changes=[
                    evolve(c, rows=(0, c.rows[1] - c.rows[0])) if c.rows is not None else c
                    for c in adapter.changes
                ],
            )
            for adapter in adapters
        ]


class TestAllRows(Wrong):
    caught_by = "test_an_adapter_changes_the_network"
    applier_type = AllRows


class LeavesARest(Spoilt):
    """Keeps the previous adapters when none are requested."""

    before: Sequence[Adapter] = ()

    def instead(self, adapters: Sequence[Adapter]) -> Sequence[Adapter]:
        self.before = adapters or self.before
        return self.before


class TestLeavesARest(Wrong):
    caught_by = "test_switching_leaves_nothing_behind"
    applier_type = LeavesARest


class AttachesWeights:
    """Adds to the parameters of the module, which are not there yet."""

    def merged(self, base: Any, adapters: Sequence[Adapter], *, quantizer: Any = None) -> Any:
        return base

    def attach(self, module: Any, adapters: Sequence[Adapter]) -> None:
        changed = Merge().merged(_Parameters(module), adapters)
        for name, parameter in module.named_parameters():
            if not parameter.is_meta:
                parameter.data = changed.read(name)


class _Parameters:
    def __init__(self, module: Any) -> None:
        self.state = dict(module.named_parameters())

    def names(self) -> list[str]:
        return list(self.state)

    def info(self, name: str) -> Any:
        from lightx2v_core.testing.sources import MemorySource

        return MemorySource({name: self.state[name].detach()}).info(name)

    def read(self, name: str, device: str = "cpu") -> Any:
        return self.state[name].detach().clone()

    def close(self) -> None:
        pass


class TestAttachesToWhatIsNotThere(Wrong):
    caught_by = "test_it_is_attached_before_weights_are_there"
    applier_type = AttachesWeights


class InPlace(Merge):
    """Writes its changes into the tensors of the base."""

    def merged(self, base: Any, adapters: Sequence[Adapter], *, quantizer: Any = None) -> Any:
        found = super().merged(base, adapters, quantizer=quantizer)
        for name in base.names():
            base.tensors[name].copy_(found.read(name))
        return base


class TestInPlace(Wrong):
    caught_by = "test_what_it_reads_from_stays_as_it_is"
    applier_type = InPlace


class Widens:
    """Reads everything in float32."""

    def merged(self, base: Any, adapters: Sequence[Adapter], *, quantizer: Any = None) -> Any:
        found = Merge().merged(base, adapters, quantizer=quantizer)
        return _Wide(found) if adapters else base

    def attach(self, module: Any, adapters: Sequence[Adapter]) -> None:
        pass


class _Wide:
    def __init__(self, base: Any) -> None:
        self.base = base
        self.names, self.info, self.close = base.names, base.info, base.close

    def read(self, name: str, device: str = "cpu") -> Any:
        return self.base.read(name, device).to(torch.float32)


class TestWidens(Wrong):
    caught_by = "test_sources_keep_names_and_dtypes"
    applier_type = Widens


class AlwaysBetween(Merge):
    def merged(self, base: Any, adapters: Sequence[Adapter], *, quantizer: Any = None) -> Any:
        return _Wide(super().merged(base, adapters, quantizer=quantizer))


class TestAlwaysBetween(Wrong):
    caught_by = "test_without_adapters_nothing_is_between"
    applier_type = AlwaysBetween
