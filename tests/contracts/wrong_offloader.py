"""Offloaders with one mistake each."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch

from lightx2v_core.api import OffloaderSpec, OffloadForecast, RunError
from lightx2v_core.discovery.plugins import PluginSet
from lightx2v_core.testing import plugin_set
from lightx2v_core.testing.contracts import OffloaderContract


class Blockwise:
    """A right one, to be spoilt: a component is filled when it is used, and let go of when another one is."""

    def __init__(self) -> None:
        self.placed: dict[str, tuple[Any, Any]] = {}
        self.present: str | None = None

    def place(self, component: str, module: Any, weights: Any, blocks: Sequence[str]) -> None:
        self.placed[component] = (module, weights)

    @contextmanager
    def active(self, component: str) -> Iterator[None]:
        self.bring(component)
        yield

    def bring(self, component: str) -> None:
        if self.present == component:
            return
        self.let_go()
        self.present = component
        self.placed[component][1].fill("", "cpu")

    def let_go(self) -> None:
        if self.present is not None:
            self.placed[self.present][0].to("meta")
            self.present = None

    def prepare(self, component: str) -> None:
        pass

    def refresh(self, component: str, names: Collection[str]) -> None:
        if component == self.present:
            self.placed[component][1].refill(names, "cpu")

    def close(self) -> None:
        self.let_go()


class Wrong(OffloaderContract):
    use = "given/wrong"
    caught_by: ClassVar[str]
    offloader_type: ClassVar[type[Blockwise]] = Blockwise

    def plugins(self) -> PluginSet:
        return plugin_set(
            OffloaderSpec(
                name="wrong",
                summary="an offloader",
                build=lambda _config, _ctx: self.offloader_type(),
                forecast=self.forecast,
            )
        )

    def forecast(self, config: Any, ctx: Any, loads: Any) -> Any:
        weights = max(load.weights for load in loads)
        return OffloadForecast(weights=weights, activations=max(load.activations for load in loads))


class TestRight(Wrong):
    """The one that is not wrong."""


class Rounds(Blockwise):
    """Keeps weights in half precision."""

    def bring(self, component: str) -> None:
        super().bring(component)
        for parameter in self.placed[component][0].parameters():
            parameter.data = parameter.data.half().float()


class TestRounds(Wrong):
    caught_by = "test_results_are_those_of_weights_that_stay"
    offloader_type = Rounds


class OnceOnly(Blockwise):
    """Empties what it lets go of, and does not read it again."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def bring(self, component: str) -> None:
        if self.present == component:
            return
        if self.present is not None:
            for parameter in self.placed[self.present][0].parameters():
                parameter.data = torch.zeros_like(parameter)
        self.present = component
        if component not in self.seen:
            self.seen.add(component)
            self.placed[component][1].fill("", "cpu")

    def let_go(self) -> None:
        """It stays."""


class TestOnceOnly(Wrong):
    caught_by = "test_a_component_is_used_again_and_again"
    offloader_type = OnceOnly


class OneCall(Blockwise):
    """Lets go of weights as soon as the network was called once."""

    def place(self, component: str, module: Any, weights: Any, blocks: Sequence[str]) -> None:
        super().place(component, module, weights, blocks)
        module.head.register_forward_hook(lambda _m, _i, out: (self.let_go(), out)[1])


class TestOneCall(Wrong):
    caught_by = "test_several_calls_in_one_use"
    offloader_type = OneCall


class InOrderOnly(Blockwise):
    """Takes the place of a block in the order of calls for its place in the network."""

    def place(self, component: str, module: Any, weights: Any, blocks: Sequence[str]) -> None:
        super().place(component, module, weights, blocks)
        self.turn = 0

        def start(*_: Any) -> None:
            self.turn = 0

        module.register_forward_pre_hook(start)
        for block in module.blocks:
            block.register_forward_hook(lambda _b, inputs, _out, module=module: self.by_turn(module, inputs))

    def by_turn(self, module: Any, inputs: Any) -> Any:
        block = module.blocks[self.turn]
        self.turn += 1
        return block.forward(*inputs)


class TestInOrderOnly(Wrong):
    caught_by = "test_blocks_may_be_left_out_or_turned_around"
    offloader_type = InOrderOnly


class StaysStopped(Blockwise):
    """A failure leaves a flag behind."""

    failed = False

    @contextmanager
    def active(self, component: str) -> Iterator[None]:
        if self.failed:
            raise RunError("failed before")
        self.failed = True
        self.bring(component)
        yield
        self.failed = False


class TestStaysStopped(Wrong):
    caught_by = "test_a_use_that_fails_is_no_end"
    offloader_type = StaysStopped


class Swallows(Blockwise):
    @contextmanager
    def active(self, component: str) -> Iterator[None]:
        self.bring(component)
        try:
            yield
        except Exception as exc:
            raise RunError("something went wrong") from exc


class TestSwallows(Wrong):
    caught_by = "test_a_use_that_fails_is_no_end"
    offloader_type = Swallows


class LocksUses(Blockwise):
    """Takes uses for nested."""

    depth = 0

    @contextmanager
    def active(self, component: str) -> Iterator[None]:
        assert not self.depth, "a component is in use"
        self.depth += 1
        try:
            self.bring(component)
            yield
        finally:
            self.depth -= 1


class TestLocksUses(Wrong):
    caught_by = "test_a_use_may_be_given_up"
    offloader_type = LocksUses


class HintsAreOrders(Blockwise):
    """Releases the active component on a hint for another one."""

    def prepare(self, component: str) -> None:
        self.bring(component)

    @contextmanager
    def active(self, component: str) -> Iterator[None]:
        if self.present is None:
            self.bring(component)
        yield


class TestHintsAreOrders(Wrong):
    caught_by = "test_hints_change_nothing"
    offloader_type = HintsAreOrders


class DoesNotRefresh(Blockwise):
    def refresh(self, component: str, names: Collection[str]) -> None:
        pass


class TestDoesNotRefresh(Wrong):
    caught_by = "test_switched_values_are_read_again"
    offloader_type = DoesNotRefresh


class HidesErrors(Blockwise):
    def bring(self, component: str) -> None:
        try:
            super().bring(component)
        except RunError as exc:
            raise RuntimeError("copy failed") from exc


class TestHidesErrors(Wrong):
    caught_by = "test_an_unreadable_file_is_a_clear_error"
    offloader_type = HidesErrors


class LeavesAThread(Blockwise):
    def __init__(self) -> None:
        super().__init__()
        threading.Thread(target=threading.Event().wait, args=(20,), daemon=True).start()


class TestLeavesAThread(Wrong):
    caught_by = "test_closing_gives_everything_back"
    offloader_type = LeavesAThread


class ClosesOnce(Blockwise):
    def close(self) -> None:
        self.placed.pop("dit", None)
        del self.let_go_once  # a second time it is not there

    let_go_once = None

    def __init__(self) -> None:
        super().__init__()
        self.let_go_once = True


class TestClosesOnce(Wrong):
    caught_by = "test_closing_gives_everything_back"
    offloader_type = ClosesOnce


SHARED: dict[str, tuple[Any, Any]] = {}


class Global(Blockwise):
    """Keeps components by their names, for the whole process."""

    def __init__(self) -> None:
        super().__init__()
        self.placed = SHARED

    def bring(self, component: str) -> None:
        super().bring(component)


class TestGlobal(Wrong):
    caught_by = "test_two_of_them_do_not_meet"
    offloader_type = Global


class TestForecastsTooMuch(Wrong):
    caught_by = "test_the_forecast_is_one"

    def forecast(self, config: Any, ctx: Any, loads: Any) -> Any:
        return OffloadForecast(weights=2 * sum(load.weights for load in loads), activations=0)


class TestForecastsNothing(Wrong):
    caught_by = "test_the_forecast_is_one"

    def forecast(self, config: Any, ctx: Any, loads: Any) -> Any:
        return OffloadForecast(weights=0, activations=0)
