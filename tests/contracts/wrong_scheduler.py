"""Schedulers with one mistake each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from lightx2v_core.api import SchedulerContext, SchedulerSpec
from lightx2v_core.discovery.plugins import PluginSet
from lightx2v_core.testing import plugin_set
from lightx2v_core.testing.contracts import SchedulerContract


class Euler:
    """A right one, to be spoilt."""

    def __init__(self, ctx: SchedulerContext) -> None:
        levels = [1 - i / ctx.steps for i in range(ctx.steps)]
        shifted = [ctx.shift * u / (1 + (ctx.shift - 1) * u) for u in levels][ctx.start :]
        self.sigmas: Sequence[float] = (*shifted, 0.0)
        self.timesteps: Sequence[float] = tuple(1000 * sigma for sigma in shifted)

    def step(self, prediction: Any, index: int, latents: Any) -> Any:
        return latents + (self.sigmas[index + 1] - self.sigmas[index]) * prediction.float()


class Wrong(SchedulerContract):
    use = "given/wrong"
    caught_by: ClassVar[str]
    scheduler: ClassVar[type[Euler]] = Euler

    def plugins(self) -> PluginSet:
        return plugin_set(
            SchedulerSpec(name="wrong", summary="a scheduler", build=lambda _config, ctx: self.scheduler(ctx))
        )


class TestRight(Wrong):
    """The one that is not wrong."""


class EndsAboveZero(Euler):
    def __init__(self, ctx: SchedulerContext) -> None:
        super().__init__(ctx)
        self.sigmas = (*self.sigmas[:-1], 1e-3)


class TestEndsAboveZero(Wrong):
    caught_by = "test_noise_falls_to_zero"
    scheduler = EndsAboveZero


class Rises(Euler):
    def __init__(self, ctx: SchedulerContext) -> None:
        super().__init__(ctx)
        self.sigmas = (*reversed(self.sigmas[:-1]), 0.0)


class TestRises(Wrong):
    caught_by = "test_noise_falls_to_zero"
    scheduler = Rises


class OneTooMany(Euler):
    def __init__(self, ctx: SchedulerContext) -> None:
        super().__init__(ctx)
        self.timesteps = (*self.timesteps, 0.0)


class TestOneTooMany(Wrong):
    caught_by = "test_noise_falls_to_zero"
    scheduler = OneTooMany


class Overshoots(Euler):
    def step(self, prediction: Any, index: int, latents: Any) -> Any:
        return latents + 1.02 * (self.sigmas[index + 1] - self.sigmas[index]) * prediction


class TestOvershoots(Wrong):
    caught_by = "test_a_constant_flow_is_followed_exactly"
    scheduler = Overshoots


class WrongSign(Euler):
    def step(self, prediction: Any, index: int, latents: Any) -> Any:
        return latents - (self.sigmas[index + 1] - self.sigmas[index]) * prediction


class TestWrongSign(Wrong):
    caught_by = "test_a_constant_flow_is_followed_exactly"
    scheduler = WrongSign


class InTheDtypeOfThePrediction(Euler):
    def step(self, prediction: Any, index: int, latents: Any) -> Any:
        return super().step(prediction, index, latents).to(prediction.dtype)


class TestInTheDtypeOfThePrediction(Wrong):
    caught_by = "test_steps_are_float32"
    scheduler = InTheDtypeOfThePrediction


class InPlace(Euler):
    def step(self, prediction: Any, index: int, latents: Any) -> Any:
        return latents.add_(prediction, alpha=self.sigmas[index + 1] - self.sigmas[index])


class TestInPlace(Wrong):
    caught_by = "test_inputs_stay_as_they_are"
    scheduler = InPlace


class SharedHistory(Euler):
    history: ClassVar[list[Any]] = []

    def step(self, prediction: Any, index: int, latents: Any) -> Any:
        before = self.history[-1] if self.history and index else prediction
        self.history.append(prediction)
        return super().step(1.5 * prediction - 0.5 * before, index, latents)


class TestSharedHistory(Wrong):
    caught_by = "test_requests_do_not_share_a_history"
    scheduler = SharedHistory


class AlwaysFromTheStart(Euler):
    def __init__(self, ctx: SchedulerContext) -> None:
        super().__init__(SchedulerContext(steps=ctx.steps, shift=ctx.shift))


class TestAlwaysFromTheStart(Wrong):
    caught_by = "test_it_can_go_on_from_the_middle"
    scheduler = AlwaysFromTheStart


class Fewer(Euler):
    """Spreads the steps that are left over the whole schedule."""

    def __init__(self, ctx: SchedulerContext) -> None:
        super().__init__(SchedulerContext(steps=ctx.steps - ctx.start, shift=ctx.shift))


class TestFewer(Wrong):
    caught_by = "test_it_can_go_on_from_the_middle"
    scheduler = Fewer


class TestOneForAll(Wrong):
    """The same object for every request, with a history in it."""

    caught_by = "test_requests_do_not_share_a_history"

    class Keeps(Euler):
        last: Any = torch.zeros(())

        def step(self, prediction: Any, index: int, latents: Any) -> Any:
            TestOneForAll.Keeps.last = 0.5 * TestOneForAll.Keeps.last + 0.5 * prediction
            return super().step(prediction if index == 0 else TestOneForAll.Keeps.last, index, latents)

    scheduler = Keeps
