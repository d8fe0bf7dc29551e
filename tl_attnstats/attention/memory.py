"""Running out of memory."""

from __future__ import annotations

import torch


class MemoryShort(UserWarning):
    """A batch did not fit into memory; smaller parts are tried, which is slower and gives the same result."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception means out of memory. On a CPU, torch raises a plain RuntimeError."""
    says = ("can't allocate memory", "not enough memory", "Unable to allocate")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error) for text in says)
