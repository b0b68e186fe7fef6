"""The contract of schedulers, and the order of the rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
from lightx2v_core.testing.contracts import SchedulerContract

from lightx2v_example.rule import Multistep, weights


class TestScheduler(SchedulerContract):
    use = "pebble"


class TestSchedulerOfOrderThree(SchedulerContract):
    use = "pebble"
    options: ClassVar[Mapping[str, Any]] = {"order": 3}


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_rule_integrates_the_polynomials_of_its_order(order: int) -> None:
    """Velocities are powers of the noise level; the first steps use fewer of them."""
    sigmas = Multistep(steps=8, shift=3.0).sigmas
    for index in range(8):
        rule = weights(sigmas, index, order)
        assert len(rule) == min(order, index + 1)
        for power in range(len(rule)):
            integral = sum(weight * sigmas[index - back] ** power for back, weight in enumerate(rule))
            wanted = (sigmas[index + 1] ** (power + 1) - sigmas[index] ** (power + 1)) / (power + 1)
            assert integral == pytest.approx(wanted, abs=1e-9)
