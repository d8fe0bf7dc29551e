"""Kernels: from projections to the output of attention and its reductions.

A kernel is a module with a function `covers`, whether it can compute what is given, and a function `attend`, which
does. `torch_blocks` covers everything and is the reference. A new kernel is a file and its place in `KERNELS`.
"""

from __future__ import annotations

from warnings import warn

from tl_attnstats.attention.kernels import cpu, cuda, torch_blocks
from tl_attnstats.attention.kernels.projections import Job, Kernel
from tl_attnstats.errors import PlainAttention

KERNELS: tuple[Kernel, ...] = (cpu, cuda, torch_blocks)
"""The quickest first."""


def kernel_for(job: Job) -> Kernel:
    """The quickest kernel that covers a job. Warns where it is plain torch on a GPU, and says why."""
    kernel = next(kernel for kernel in KERNELS if kernel.covers(job))
    if kernel is torch_blocks and job.given.query.device.type in cuda.DEVICES:
        reason = cuda.why_not(job)
        warn(f"attention on the GPU is computed in plain torch, not by the Triton kernel: {reason}", PlainAttention, 2)
    return kernel
