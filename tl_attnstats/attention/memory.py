"""Running out of memory."""

from __future__ import annotations

import torch


class MemoryShort(UserWarning):
    """A batch did not fit into memory; smaller parts are tried, which is slower and gives the same result."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception means out of memory. On a CPU, torch raises a plain RuntimeError, and so does Python.

    Python raises one where a file cannot be opened, or a thread not be started, for want of memory.
    """
    says = ("allocate memory", "can't allocate", "Unable to allocate", "not enough memory", "bad_alloc", "new thread")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error) for text in says)
