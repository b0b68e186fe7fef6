"""Synchronization of a run's device, and its peak memory."""

from __future__ import annotations

import torch

from lightx2v_core.spec.context import Device


def synchronize(device: Device) -> None:
    """Finish all work queued on a device; a CPU has no queue."""
    if device.kind != "cpu":
        torch.get_device_module(device.kind).synchronize(device.torch_name)


def reset_peak_memory(device: Device) -> None:
    """Reset the peak that ``peak_memory`` returns."""
    if device.kind != "cpu":
        torch.get_device_module(device.kind).reset_peak_memory_stats(device.torch_name)


def peak_memory(device: Device) -> int | None:
    """Return the peak bytes of device memory used by tensors of this process; None for a CPU, which uses host
    memory."""
    if device.kind == "cpu":
        return None
    peak: int = torch.get_device_module(device.kind).max_memory_allocated(device.torch_name)
    return peak
