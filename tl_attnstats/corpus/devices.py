"""On which device tensors are, and where they are added up: not every device has float64."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

CPU = torch.device("cpu")


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device. From the CPU to a GPU, the host does not wait for what the GPU is doing."""
    # Apple's GPUs read the CPU's memory later, when it may be gone.
    return tensor.to(device, non_blocking=tensor.device == CPU and device.type != "mps")


@cache
def has_float64(device: torch.device) -> bool:
    """Whether a device has float64. Apple's GPUs do not."""
    try:
        torch.zeros(1, dtype=torch.float64, device=device)
    except (TypeError, RuntimeError):
        return False
    return True


def sum_dtype(device: torch.device) -> torch.dtype:
    """The dtype of sums within a batch, on a device."""
    return torch.float64 if has_float64(device) else torch.float32


def home_of(device: torch.device) -> torch.device:
    """Where the sums of a run on a device are kept, in float64: the device itself, or the CPU where it has none."""
    return device if has_float64(device) else CPU


@contextmanager
def exact_products() -> Iterator[None]:
    """Multiply matrices of float32 exactly on Nvidia's GPUs, whatever the user has set.

    With TF32, which rounds to 10 bits, two computations of one weight differ by more than a comparison can allow.
    """
    settings: Any = torch.backends.cuda.matmul
    name: str = "allow_tf32"
    exact: Any = False
    try:
        before = settings.allow_tf32
    except RuntimeError:  # the user has set it by its newer name, and torch does not let the two be mixed
        name, exact = "fp32_precision", "ieee"
        before = settings.fp32_precision
    setattr(settings, name, exact)
    try:
        yield
    finally:
        setattr(settings, name, before)
