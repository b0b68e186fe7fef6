"""LoRA files applied at run time: linears get a low-rank branch, other parameters are read with their change added.

The module keeps its parameters and their names, so offloaders fill and move them as usual; its class is replaced by a
subclass that uses the attached tensors (as ``torch.nn.utils.parametrize`` does). These tensors stay on the device.
Their shapes do not change when adapters or strengths change: ranks are padded, strengths are a tensor, unused parts
are zero. A compiled graph of the module therefore stays valid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from attrs import define, field
from torch import Tensor, nn
from torch.nn import functional as F

from lightx2v_core.api import Adapter, Change, delta, read_factors

if TYPE_CHECKING:
    from lightx2v_core.api import BuildContext, WeightSource

Steps = list[tuple[Adapter, Change]]
#: largest parameter to reserve memory for, in elements; embedding tables are larger
_RESERVED = 1 << 22


@define(eq=False, slots=False)
class Branch:
    """The tensors attached to one module; their shapes are fixed while attached.

    ``down`` [rank, in], ``gain`` [rank] (strength * alpha / rank of each row's adapter), ``up`` [out, rank]; ``dense``
    [out, in] and ``bias`` [out] are added to those of a linear; ``added`` are the changes of other parameters.
    """

    down: Tensor | None = None
    gain: Tensor | None = None
    up: Tensor | None = None
    dense: Tensor | None = None
    bias: Tensor | None = None
    added: dict[str, Tensor] = field(factory=dict)

    def __call__(self, y: Tensor, x: Tensor) -> Tensor:
        """Add the branch of the input ``x`` of a linear to its output ``y``, in the dtype of ``y``."""
        if self.down is not None and self.gain is not None and self.up is not None:
            inner = F.linear(x.to(self.down.dtype), self.down) * self.gain
            y = y + F.linear(inner.to(self.up.dtype), self.up).to(y.dtype)
        if self.dense is not None:
            y = y + F.linear(x.to(self.dense.dtype), self.dense).to(y.dtype)
        if self.bias is not None:
            y = y + self.bias.to(y.dtype)
        return y


class Dynamic:
    """A ``LoraApplier`` that computes adapters at run time and leaves the weights unchanged."""

    def __init__(self, ctx: BuildContext, *, rank: int, reserve: bool) -> None:
        self._device = ctx.device.torch_name
        self._dtype: torch.dtype = getattr(torch, ctx.dtype)
        self._rank = rank
        self._reserve = reserve
        self._attached: WeakKeyDictionary[nn.Module, dict[str, nn.Module]] = WeakKeyDictionary()

    def merged(self, base: WeightSource, adapters: Sequence[Adapter]) -> WeightSource:
        """Return ``base`` unchanged."""
        return base

    def attach(self, module: nn.Module, adapters: Sequence[Adapter]) -> None:
        """Replace the adapters attached to ``module``; submodules that are no longer adapted keep a zero branch."""
        steps: dict[str, dict[str, Steps]] = {}
        for adapter in adapters:
            for change in adapter.changes:
                owner, _, parameter = change.target.rpartition(".")
                steps.setdefault(owner, {}).setdefault(parameter, []).append((adapter, change))
        attached = self._attached.setdefault(module, {})
        if not steps and not self._reserve:
            for part in attached.values():
                detach(part)
            attached.clear()
            return
        names = {**dict.fromkeys(attached), **dict.fromkeys(steps)}
        if self._reserve:
            names |= dict.fromkeys(name for name, part in module.named_modules() if _reservable(part))
        with torch.no_grad():
            for name in names:
                part = module.get_submodule(name)
                self._adapt(part, steps.get(name, {}))
                attached[name] = part

    def _adapt(self, part: nn.Module, steps: dict[str, Steps]) -> None:
        branch = part.__dict__.get("lora_branch") or Branch()
        linear = _is_linear(part, steps)
        if linear:
            self._linear(branch, part, steps.pop("weight", []))
            bias = steps.pop("bias", [])
            if self._reserve and branch.bias is None:
                branch.bias = self._zeros(part._parameters.get("bias"))
            branch.bias = _kept(branch.bias, self._sum(bias, _dtype_of(part, "bias", self._dtype)))
        elif self._reserve and not branch.added:
            reserved = {name: self._zeros(parameter) for name, parameter in part._parameters.items()}
            branch.added |= {name: zeros for name, zeros in reserved.items() if zeros is not None}
        for name in {*branch.added, *steps}:
            total = self._sum(steps.get(name, []), torch.float32)
            kept = _kept(branch.added.get(name), total)
            assert kept is not None
            branch.added[name] = kept
        part.__dict__["lora_branch"] = branch
        part.__class__ = _adapted_class(plain_class(part), tuple(sorted(branch.added)), linear)  # type: ignore[arg-type]

    def _zeros(self, parameter: Tensor | None) -> Tensor | None:
        """Allocate zeros for the change of a parameter, in float32; ``None`` for large or non-float parameters."""
        if parameter is None or not parameter.is_floating_point() or parameter.numel() > _RESERVED:
            return None
        return torch.zeros(parameter.shape, dtype=torch.float32, device=self._device)

    def _linear(self, branch: Branch, part: nn.Module, steps: Steps) -> None:
        """Fill the branch of a linear, in place if its tensors are large enough."""
        pairs = [(a, c) for a, c in steps if c.kind == "low-rank" and "mid" not in c.tensors]
        others = [(a, c) for a, c in steps if (a, c) not in pairs]
        dtype = _dtype_of(part, "weight", self._dtype)
        branch.dense = _kept(branch.dense, self._sum(others, dtype))
        if not pairs and branch.down is None and not self._reserve:
            return
        rank = sum(change.rank or 0 for _, change in pairs)
        if branch.down is None or branch.up is None or branch.gain is None or branch.down.shape[0] < rank:
            size = self._rank * max(-(-rank // self._rank), 1)
            rows, columns = _size(part, pairs)
            branch.down = torch.zeros(size, columns, dtype=dtype, device=self._device)
            branch.up = torch.zeros(rows, size, dtype=dtype, device=self._device)
            branch.gain = torch.zeros(size, dtype=torch.float32, device=self._device)
        branch.gain.zero_()
        branch.up.zero_()
        start = 0
        for adapter, change in pairs:
            factors = read_factors(adapter, change, self._device)
            stop = start + (change.rank or 0)
            branch.down[start:stop] = factors["down"].flatten(1)
            branch.up[slice(*(change.rows or (None,))), start:stop] = factors["up"].flatten(1)
            branch.gain[start:stop] = adapter.strength * change.scale
            start = stop

    def _sum(self, steps: Steps, dtype: torch.dtype) -> Tensor | None:
        """Add up changes multiplied by their strengths; ``None`` without changes."""
        total: Tensor | None = None
        for adapter, change in steps:
            if total is None:
                total = torch.zeros(change.shape, device=self._device)
            part = total if change.rows is None else total[slice(*change.rows)]
            part.add_(delta(adapter, change, self._device), alpha=adapter.strength)
        return None if total is None else total.to(dtype)


@cache
def _adapted_class(plain: type[nn.Module], names: tuple[str, ...], linear: bool) -> type[nn.Module]:
    """Create a subclass of ``plain`` that adds the attached changes to the parameters ``names`` on access.

    With ``linear`` its ``forward`` also runs the branch. Cached, as compiled graphs depend on the class of a module.
    """
    members: dict[str, Any] = {name: property(_reader(name)) for name in names}
    members["lora_plain"] = plain
    members["lora_linear"] = linear
    if linear:
        members["forward"] = _branched(plain)
    return type(f"Lora{plain.__name__}", (plain,), members)


def _reader(name: str) -> Callable[[Any], Tensor]:
    def read(module: Any) -> Tensor:
        base: Tensor = module._parameters[name]
        branch: Branch = module.lora_branch
        return (base.float() + branch.added[name]).to(base.dtype)

    return read


def _branched(plain: type[nn.Module]) -> Callable[..., Tensor]:
    def forward(module: Any, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        branch: Branch = module.lora_branch
        return branch(plain.forward(module, x, *args, **kwargs), x)

    return forward


def plain_class(part: nn.Module) -> type[nn.Module]:
    """Return the class of a module without attached adapters."""
    plain: type[nn.Module] = getattr(type(part), "lora_plain", type(part))
    return plain


def detach(part: nn.Module) -> None:
    """Restore the class of a module and remove its branch."""
    part.__class__ = plain_class(part)
    del part.__dict__["lora_branch"]


def _is_linear(part: nn.Module, steps: dict[str, Steps]) -> bool:
    """Return whether a module is a linear, possibly quantized, whose input a branch can use."""
    if isinstance(part, nn.Linear) or getattr(part, "lora_linear", False):
        return True
    if "weight" not in steps:
        return False
    # a quantized weight is not a plain float tensor that a change could be added to
    weight = part._parameters.get("weight")
    return weight is None or not weight.is_floating_point() or weight.element_size() < 2


def _reservable(part: nn.Module) -> bool:
    """Return whether a module has parameters that adapters may change, all of them in plain float dtypes."""
    parameters = [parameter for parameter in part._parameters.values() if parameter is not None]
    return bool(parameters) and all(p.is_floating_point() and p.element_size() > 1 for p in parameters)


def _dtype_of(part: nn.Module, name: str, default: torch.dtype) -> torch.dtype:
    parameter = part._parameters.get(name)
    if parameter is None or not parameter.is_floating_point() or parameter.element_size() < 2:
        return default
    return parameter.dtype


def _size(part: nn.Module, pairs: Steps) -> tuple[int, int]:
    """Return rows and columns of a linear."""
    if pairs:
        rows, columns = pairs[0][1].shape
        return rows, columns
    assert isinstance(part, nn.Linear)
    return part.out_features, part.in_features


def _kept(held: Tensor | None, value: Tensor | None) -> Tensor | None:
    """Copy ``value`` into ``held``, so that compiled graphs see it; zero ``held`` for ``None``.

    Without ``held``, returns ``value`` itself.
    """
    if held is None:
        return value
    if value is None:
        return held.zero_()
    return held.copy_(value)
