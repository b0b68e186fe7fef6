"""The subject of a proof, an implementation and a use of it, and the verdict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from attrs import field, frozen

from lightx2v_core.plan.plan import KernelUse
from lightx2v_core.spec.context import BuildContext
from lightx2v_core.spec.specs import Spec

#: kinds of implementations that have a proof: their results are defined up to rounding
KERNELS = ("attention", "quantizer", "lora_applier")
State = Literal["proved", "wrong", "open"]


@frozen(kw_only=True)
class Verdict:
    """The result of a proof: ``proved``, ``wrong`` with figures, or ``open`` with the reason for being inconclusive."""

    state: State
    text: str = ""


@frozen(kw_only=True)
class Claim:
    """An implementation and a use of it. Two claims are equal if they have the same ``build``, options, device, dtype
    and use, even from different ``PluginSet`` objects."""

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
    """A proof that cannot be carried out, with the reason."""


#: function that tests a claim: returns the fault with figures, or None; raises ``Inconclusive`` if it cannot be tested
Proof = Callable[[Claim], str | None]
