"""Fills a module that was built on the meta device, by assignment: no second copy, no key map."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lightx2v_core.errors import RunError
from lightx2v_core.protocols import WeightSource


class SourceWeights:
    """``ModuleWeights`` from a ``WeightSource`` whose names are the module's own parameter names."""

    def __init__(self, module: nn.Module, source: WeightSource, on_bytes: Callable[[int, str], None]) -> None:
        self._module = module
        self._source = source
        self._on_bytes = on_bytes

    def fill(self, prefix: str, device: str) -> int:
        """Read, cast and assign every tensor under ``prefix`` that still lies on the meta device.

        Each is cast to the dtype its parameter was created with, on the device it goes to. ``RunError`` when the
        device has no room for it.
        """
        done = 0
        with torch.no_grad():
            for owner, key, name, slot in slots(self._module, prefix):
                if not slot.is_meta:
                    continue
                info = self._source.info(name)
                try:
                    tensor = self._source.read(name, device).to(slot.dtype)
                except RuntimeError as exc:
                    if not _out_of_memory(exc):
                        raise
                    raise RunError(
                        f"out of memory on {device} while loading {name} ({info.nbytes} bytes): {exc}; "
                        "use a smaller dtype, an offloader, or a device with more memory"
                    ) from None
                if isinstance(slot, nn.Parameter):
                    owner._parameters[key] = nn.Parameter(tensor, requires_grad=False)
                else:
                    owner._buffers[key] = tensor
                done += info.nbytes
                self._on_bytes(info.nbytes, name)
        return done


def _out_of_memory(exc: RuntimeError) -> bool:
    """Torch has an exception of its own for the memory of accelerators only."""
    return isinstance(exc, torch.OutOfMemoryError) or "can't allocate memory" in str(exc)


def slots(module: nn.Module, prefix: str = "") -> list[tuple[nn.Module, str, str, Tensor]]:
    """(owner, attribute, full name, tensor) of each stored tensor of a module whose name starts with ``prefix``."""
    stored = module.state_dict(keep_vars=True)
    start = f"{prefix}." if prefix else ""
    found = []
    for name, tensor in stored.items():
        if name.startswith(start):
            path, _, key = name.rpartition(".")
            found.append((module.get_submodule(path), key, name, tensor))
    return found
