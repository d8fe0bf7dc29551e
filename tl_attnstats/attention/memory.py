"""Running out of memory."""

from __future__ import annotations

import torch

SAYS = (
    "allocate memory",
    "not enough memory",
    "Unable to allocate",
    "bad_alloc",
    "can't start new thread",
    "can't allocate lock",
    "can't allocate read lock",
)


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception means out of memory. On a CPU, torch raises a plain RuntimeError, and so does Python.

    Python raises one where a file cannot be opened, or a thread not be started, for want of memory.
    """
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error) for text in SAYS)
