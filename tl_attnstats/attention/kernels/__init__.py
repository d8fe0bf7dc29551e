"""Kernels: from projections to the output of attention and its reductions.

A kernel is a module with a function `covers`, whether it can compute what is given, and a function `attend`, which
does. `torch_blocks` covers everything and is the reference. A new kernel is a file and its place in `KERNELS`.
"""

from __future__ import annotations

from tl_attnstats.attention.kernels import cpu, torch_blocks
from tl_attnstats.attention.kernels.projections import Job, Kernel

KERNELS: tuple[Kernel, ...] = (cpu, torch_blocks)
"""The quickest first."""


def kernel_for(job: Job) -> Kernel:
    """The quickest kernel that covers a job."""
    return next(kernel for kernel in KERNELS if kernel.covers(job))
