"""Checks for NaN and infinity, which end a run where they first occur, with nothing saved.

Their causes are a dtype whose range is too small, a kernel that is wrong on this machine, or a damaged weight. They
spread, and would end in a black video. Each check reads a tensor that exists anyway.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import torch
from attrs import frozen
from torch import Tensor

from lightx2v_core.errors import RunError
from lightx2v_core.plan.plan import Plan
from lightx2v_core.spec.protocols import Conditions, Step

#: depth to which containers are searched for tensors
_DEPTH = 4
#: kernels of torch's own arithmetic, which messages do not suggest to replace
_PLAIN = ("core/sdpa", "core/dequant")


@frozen(kw_only=True)
class Guard:
    """The checks of one run, which raise ``RunError``. ``experts`` are the components that denoise in turn."""

    plan: Plan
    experts: Sequence[str]

    def encoded(self, conditions: Conditions) -> None:
        """Check the conditions of a request. Their structure is known to the model only: a single tensor is embeddings,
        others may be masks, where minus infinity is valid and NaN is not."""
        for what, value, whole in (
            ("the prompt", conditions.positive, True),
            ("the negative prompt", conditions.negative, True),
            ("the inputs", conditions.shared, False),
        ):
            lone = whole and isinstance(value, Tensor)
            for tensor in _tensors(value, _DEPTH):
                if not tensor.is_floating_point():
                    continue
                if not bool(torch.isfinite(tensor).all() if lone else ~torch.isnan(tensor).any()):
                    raise self._error(
                        f"encoding {what} produced values that are not finite", self._encoders()
                    )

    def step(self, latents: Tensor, step: Step, expert: int) -> None:
        """Check the latents after a step."""
        if not is_finite(latents):
            name = self.experts[min(expert, len(self.experts) - 1)] if self.experts else "the network"
            raise self._error(
                f"step {step.index + 1} of {step.count} ({name}) produced latents that are not finite", [name]
            )

    def frames(self, chunk: Tensor) -> None:
        """Check decoded frames [3, n, H, W]."""
        if not is_finite(chunk):
            decoders = [part.name for part in self.plan.components if "vae" in part.name]
            raise self._error(
                f"{' or '.join(decoders) or 'the decoder'} produced frames that are not finite", decoders
            )

    def _encoders(self) -> list[str]:
        return [part.name for part in self.plan.components if part.name not in self.experts]

    def _error(self, what: str, parts: Sequence[str]) -> RunError:
        """Build the error, with dtype, kernels and device, and remedies in the order of likely causes."""
        plan, advice = self.plan, []
        if plan.dtype != "float32":
            wider = "bfloat16 or float32" if plan.dtype == "float16" else "float32"
            advice.append(f"another --dtype ({wider})")
        kernels = [choice for choice in plan.choices if choice.kind == "attention"]
        kernels += [choice for choice in plan.choices if choice.kind.startswith("quantizer")]
        others = [choice for choice in kernels if choice.use not in _PLAIN]
        advice += [f"another --{choice.kind.split()[0]} than {choice.use}" for choice in others]
        if plan.adapters:
            advice.append("a smaller strength for the LoRA files, or no LoRA")
        advice.append(
            f"downloading the files of {', '.join(parts) or 'the model'} again: a weight may be damaged"
        )
        uses = ", ".join([plan.dtype, *(f"{choice.kind} {choice.use}" for choice in kernels)])
        return RunError(
            f"{what}, with {uses} on {plan.device.name}; nothing was saved\n  try {'; '.join(advice)}"
        )


def is_finite(values: Tensor) -> bool:
    """Return whether a tensor has neither NaN nor infinity."""
    return bool(torch.isfinite(values).all())


def _tensors(value: Any, depth: int) -> Iterator[Tensor]:
    """Yield the tensors in a value, searching nested containers and attrs classes."""
    if isinstance(value, Tensor):
        yield value
    elif depth and isinstance(value, Mapping):
        for entry in value.values():
            yield from _tensors(entry, depth - 1)
    elif depth and isinstance(value, list | tuple):
        for entry in value:
            yield from _tensors(entry, depth - 1)
    elif depth and attrs.has(type(value)):
        for attribute in attrs.fields(type(value)):
            yield from _tensors(getattr(value, attribute.name), depth - 1)
