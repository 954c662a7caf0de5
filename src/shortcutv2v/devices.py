"""Devices: wait for GPUs, so that a clock tells how long they worked, and say what timings were taken on."""

from __future__ import annotations

import torch

__all__ = ["device_name", "gpus", "synchronise"]


def synchronise() -> None:
    """Wait for every GPU in use, so that the clock is not read too early."""
    for device in gpus():
        torch.cuda.synchronize(device)
    if torch.backends.mps.is_available():
        torch.mps.synchronize()


def gpus() -> list[int]:
    """Return the CUDA devices in use, current or not. Synchronising an idle one would set it up first."""
    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return []
    return [device for device in range(torch.cuda.device_count()) if torch.cuda.memory_reserved(device)]


def device_name(device: torch.device) -> str:
    """Return what a reader of timings must know about a device.

    >>> device_name(torch.device("cpu")).startswith("CPU, ")
    True
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads" if device.type == "cpu" else str(device)
