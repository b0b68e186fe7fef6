"""What a run asks of its device: to finish what was queued, and how much memory that took."""

from __future__ import annotations

import torch

from lightx2v_core.spec.context import Device


def synchronize(device: Device) -> None:
    """Wait until everything that was queued on a device is done; a CPU has no queue."""
    if device.kind != "cpu":
        torch.get_device_module(device.kind).synchronize(device.torch_name)


def reset_peak_memory(device: Device) -> None:
    """Count the peak of ``peak_memory`` from here on."""
    if device.kind != "cpu":
        torch.get_device_module(device.kind).reset_peak_memory_stats(device.torch_name)


def peak_memory(device: Device) -> int | None:
    """The most bytes of a device that tensors of this process took; None for a CPU, whose memory is the host's."""
    if device.kind == "cpu":
        return None
    peak: int = torch.get_device_module(device.kind).max_memory_allocated(device.torch_name)
    return peak
