"""Filling a module built on the meta device by assignment: no second copy, no key map."""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn

from lightx2v_core.checkpoint.derived import is_direct
from lightx2v_core.errors import RunError
from lightx2v_core.spec.protocols import ModuleTensor, WeightSource


class SourceWeights:
    """``ModuleWeights`` from a ``WeightSource`` whose names are the module's own parameter names."""

    def __init__(self, module: nn.Module, source: WeightSource, on_bytes: Callable[[int, str], None]) -> None:
        self._module = module
        #: source of the tensors; may be replaced before a call to ``refill``
        self.source = source
        self._on_bytes = on_bytes
        self._dtypes = {name: slot.dtype for _, _, name, slot in slots(module)}

    def fill(self, prefix: str, device: str) -> int:
        """Load every tensor under ``prefix`` that is still on the meta device, and assign it to the module.

        Each is cast on ``device`` to the dtype of its parameter. Returns the number of stored bytes read. Raises
        ``RunError`` if the device runs out of memory.
        """
        done = 0
        with torch.no_grad():
            for owner, key, name, slot in slots(self._module, prefix):
                if slot.is_meta:
                    _assign(owner, key, slot, self._read(name, slot.dtype, device))
                    done += self._count(name)
        return done

    def tensors(self, prefix: str) -> list[ModuleTensor]:
        """List every parameter and persistent buffer of the module under ``prefix``."""
        return [
            ModuleTensor(
                name=name,
                owner=owner,
                key=key,
                parameter=isinstance(slot, nn.Parameter),
                shape=tuple(slot.shape),
                dtype=slot.dtype,
                nbytes=slot.numel() * slot.element_size(),
            )
            for owner, key, name, slot in slots(self._module, prefix)
        ]

    def direct(self, name: str) -> bool:
        """Return whether the stored bytes can be used in computation without a conversion."""
        source = self.source
        return is_direct(source) and self._stored_dtype(name) == self._dtypes[name] and source.direct(name)

    def read_into(self, name: str, out: Tensor, *, cached: bool = True) -> None:
        """Read one tensor into ``out``, cast to its dtype. Raises ``RunError`` as ``WeightSource.read`` does."""
        source = self.source
        with torch.no_grad():
            if is_direct(source) and self._stored_dtype(name) == out.dtype and source.direct(name):
                source.read_into(name, out, cached=cached)
            else:
                out.copy_(source.read(name))
        self._on_bytes(source.info(name).nbytes, name)

    def _stored_dtype(self, name: str) -> torch.dtype:
        dtype: torch.dtype = getattr(torch, self.source.info(name).stored_dtype)
        return dtype

    def refill(self, names: Collection[str], device: str) -> int:
        """Reload the tensors in ``names``, whose stored values have changed. Tensors already on ``device`` are updated
        in place, so that other references see the new values. Returns the number of stored bytes read. Raises
        ``RunError`` as ``fill`` does."""
        done = 0
        with torch.no_grad():
            for owner, key, name, slot in slots(self._module):
                if name not in names:
                    continue
                tensor = self._read(name, slot.dtype, device)
                if slot.device == tensor.device:
                    slot.copy_(tensor)
                else:
                    _assign(owner, key, slot, tensor)
                done += self._count(name)
        return done

    def _read(self, name: str, dtype: torch.dtype, device: str) -> Tensor:
        try:
            return self.source.read(name, device).to(dtype)
        except RuntimeError as exc:
            if not _out_of_memory(exc):
                raise
            raise RunError(
                f"out of memory on {device} while loading {name} ({self.source.info(name).nbytes} bytes): {exc}; "
                "use a smaller dtype, an offloader, or a device with more memory"
            ) from None

    def _count(self, name: str) -> int:
        count = self.source.info(name).nbytes
        self._on_bytes(count, name)
        return count


def _assign(owner: nn.Module, key: str, slot: Tensor, tensor: Tensor) -> None:
    if isinstance(slot, nn.Parameter):
        owner._parameters[key] = nn.Parameter(tensor, requires_grad=False)
    else:
        owner._buffers[key] = tensor


def _out_of_memory(exc: RuntimeError) -> bool:
    """Return whether torch ran out of memory; it has an exception class for accelerator memory only."""
    return isinstance(exc, torch.OutOfMemoryError) or "can't allocate memory" in str(exc)


def slots(module: nn.Module, prefix: str = "") -> list[tuple[nn.Module, str, str, Tensor]]:
    """Return the (owner, attribute, full name, tensor) of each tensor in a module's state below ``prefix``."""
    state = module.state_dict(keep_vars=True)
    start = f"{prefix}." if prefix else ""
    tensors = []
    for name, tensor in state.items():
        if name.startswith(start):
            path, _, key = name.rpartition(".")
            tensors.append((module.get_submodule(path), key, name, tensor))
    return tensors
