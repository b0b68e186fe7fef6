"""Range validators for numbers in the configuration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from attrs import Attribute, frozen


@frozen
class Between:
    """A validator for a number or a sequence of numbers: ``low`` <= value <= ``high``; ``low`` < value if ``above``.

    None is accepted: the value is not set.
    """

    low: float
    high: float
    above: bool = False
    #: advice for a value out of range
    hint: str = ""

    def __call__(
        self, _instance: object, attribute: Attribute[Any], value: float | Sequence[float] | None
    ) -> None:
        for number in value if isinstance(value, Sequence) else (value,):
            fits = number is None or (self.low < number if self.above else self.low <= number)
            if fits and (number is None or number <= self.high):
                continue
            hint = f"; {self.hint}" if self.hint else ""
            raise ValueError(f"{attribute.name!r} must be {self._limits()}, got {number!r}{hint}")

    def _limits(self) -> str:
        if self.high == math.inf:
            return f"above {self.low:g}" if self.above else f"at least {self.low:g}"
        if self.above:
            return f"above {self.low:g} and at most {self.high:g}"
        high = f"{self.high:g}" if self.high < 1e6 else f"{self.high:,}"
        return f"between {self.low:g} and {high}"
