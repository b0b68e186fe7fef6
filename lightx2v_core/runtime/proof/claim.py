"""An implementation and a use of it, which a proof tries, and what it finds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from attrs import field, frozen

from lightx2v_core.plan.plan import KernelUse
from lightx2v_core.spec.context import BuildContext
from lightx2v_core.spec.specs import Spec

#: kinds of implementations that have a proof: each has one right answer, but for rounding
KERNELS = ("attention", "quantizer", "lora_applier")
State = Literal["proved", "wrong", "open"]


@frozen(kw_only=True)
class Verdict:
    """What a proof found: ``wrong`` with its figures, or ``open`` with the reason why nothing could be found out."""

    state: State
    text: str = ""


@frozen(kw_only=True)
class Claim:
    """An implementation and a use of it. Two are equal when they would be proved alike: the same ``build``, options,
    device, dtype and use, whichever ``PluginSet`` they come from."""

    kind: str
    build: Callable[..., object]
    options: str
    device: str
    dtype: str
    use: KernelUse
    spec: Spec[Any] = field(eq=False)
    config: object = field(eq=False)
    ctx: BuildContext = field(eq=False)


class Inconclusive(Exception):
    """A proof has nothing to compute with: it cannot tell."""


#: proves a claim: returns what is wrong, with figures, and None when nothing is; ``Inconclusive`` when it cannot tell
Proof = Callable[[Claim], str | None]
