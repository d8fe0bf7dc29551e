"""A hash of all weights of a model, to tell runs of edited and unedited models apart."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

from tl_attnstats.models.compiling import compiled, numba

# 8-byte words in a sum; as many multipliers fit into a core's cache.
CHUNK = 1 << 12
# Multiplication only carries bits upward, so first shift each word right by this many bits to mix upper into lower.
SHIFT = 33
SHIFT_WORD = np.uint64(SHIFT)
PRIVATE = re.compile(r"(^|\.)_(?!original_component\b)")


def fingerprint(model: Any) -> str:
    """Hash every byte of every parameter and persistent buffer, with shapes and dtypes.

    Uses only integer arithmetic, so the result is the same on every machine and device and with any number of threads.
    The same values in another precision have another fingerprint.
    """
    tensors = list(_tensors(model))
    n = max(1, torch.get_num_threads())
    digests = [b""] * len(tensors)
    # A share of tensors for each thread: a task for each tensor takes longer than most tensors do.
    with ThreadPoolExecutor(n) as pool:
        shares = pool.map(lambda first: [digest(tensor) for tensor in tensors[first::n]], range(n))
        for first, share in enumerate(shares):
            digests[first::n] = share
    return hashlib.blake2b(b"".join(digests), digest_size=8).hexdigest()


def raw_bytes(tensor: Tensor) -> Tensor:
    """The bytes of a tensor in the order of its elements, whatever their memory layout."""
    dense = tensor.detach().contiguous()
    # contiguous() may leave a single element with any stride.
    return dense.as_strided((dense.numel(),), (1,)).view(torch.uint8)


def _tensors(model: Any) -> Iterator[Tensor]:
    """Parameters in the model's order, then persistent buffers.

    A TransformerLens 3 bridge registers modules a second time under private names as it runs; these do not affect the
    order. Non-persistent buffers are left out because they are computed and may differ between machines, and all-zero
    buffers because they change nothing, such as a bias that the bridge adds to a model without one.
    """
    root = getattr(model, "original_model", None)
    root = root if isinstance(root, torch.nn.Module) else model
    public: dict[int, Tensor] = {}
    private: dict[int, Tensor] = {}
    for name, parameter in root.named_parameters(remove_duplicate=False):
        (private if PRIVATE.search(name) else public).setdefault(id(parameter), parameter)
    yield from {**public, **{key: parameter for key, parameter in private.items() if key not in public}}.values()
    if not isinstance(root, transformers.PreTrainedModel):
        return
    for module in root.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set and buffer.any():
                yield buffer


def digest(tensor: Tensor) -> bytes:
    """Hash one tensor: a weighted sum of each chunk of 8-byte words, and the remaining bytes.

    A word x enters as (x ^ x >> 33) · k, modulo 2⁶⁴, with an odd random k for each place in a chunk. Changing one word
    always changes the sum; several changes cancel with probability about 2⁻³².
    """
    raw = raw_bytes(tensor)
    n_whole = len(raw) // 8 * 8
    sums = _sums_on_gpu(raw[:n_whole]) if raw.is_cuda else _sums(raw[:n_whole].cpu().numpy().view("<u8"))
    told = f"{tuple(tensor.shape)} {tensor.dtype}".encode()
    return hashlib.blake2b(told + sums.tobytes() + raw[n_whole:].cpu().numpy().tobytes()).digest()


def _sums(words: np.ndarray) -> np.ndarray:
    multipliers = _multipliers()
    if numba is not None:
        sums = np.empty(-(-len(words) // CHUNK), np.uint64)
        _sum_chunks(words, multipliers, sums)
        return sums.astype("<u8")
    whole = len(words) // CHUNK * CHUNK
    parts = [words[start : min(start + 64 * CHUNK, whole)] for start in range(0, whole, 64 * CHUNK)]
    found = [((part ^ part >> np.uint64(SHIFT)).reshape(-1, CHUNK) * multipliers).sum(1) for part in parts]
    rest = words[whole:]
    found.append(((rest ^ rest >> np.uint64(SHIFT)) * multipliers[: len(rest)]).sum(keepdims=True)[: len(rest)])
    return np.concatenate(found).astype("<u8")


@compiled(nogil=True)
def _sum_chunks(words: Any, multipliers: Any, sums: Any) -> None:
    """One pass over the words, at the speed of memory."""
    for chunk in range(len(sums)):
        here = words[chunk * len(multipliers) : (chunk + 1) * len(multipliers)]
        total = np.uint64(0)
        for place in range(len(here)):
            word = here[place]
            total += (word ^ (word >> SHIFT_WORD)) * multipliers[place]
        sums[chunk] = total


def _sums_on_gpu(raw: Tensor) -> np.ndarray:
    """The same on the GPU. PyTorch has only signed words, but their sums have the same bits."""
    words = (raw if raw.storage_offset() % 8 == 0 else raw.clone()).view(torch.int64)
    multipliers = torch.from_numpy(_multipliers().view(np.int64)).to(raw.device)
    sums = []
    for part in torch.split(words, 1024 * CHUNK):  # bounds the memory for intermediate results
        mixed = part ^ (part >> SHIFT & (1 << 64 - SHIFT) - 1)
        whole = len(part) // CHUNK * CHUNK
        sums.append((mixed[:whole].view(-1, CHUNK) * multipliers).sum(1))
        if whole < len(part):
            sums.append((mixed[whole:] * multipliers[: len(part) - whole]).sum()[None])
    return torch.cat(sums).cpu().numpy().view("<u8") if sums else np.empty(0, "<u8")


@functools.cache
def _multipliers() -> np.ndarray:
    """Odd pseudo-random words, the same on every machine."""
    return np.frombuffer(hashlib.shake_128(b"tl_attnstats").digest(8 * CHUNK), "<u8") | np.uint64(1)
