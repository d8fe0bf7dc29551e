"""A hash over all weights of a model, by which runs of edited and unedited models are told apart."""

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

# Words (8 bytes) in a sum: as many multipliers fit into a core's cache.
CHUNK = 1 << 12
# Bits that words are shifted by, so that their upper bits, which multiplication hardly mixes, reach the lower ones.
SHIFT = 33
SHIFT_WORD = np.uint64(SHIFT)
PRIVATE = re.compile(r"(^|\.)_(?!original_component\b)")


def fingerprint(model: Any) -> str:
    """A hash over every byte of every parameter and persistent buffer, with their shapes and types.

    Integer arithmetic alone, so that it is the same on every machine and device and with any number of threads. The
    same values in another precision have another fingerprint.
    """
    with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:
        digests = list(pool.map(_digest, _tensors(model)))
    return hashlib.blake2b(b"".join(digests), digest_size=8).hexdigest()


def raw_bytes(tensor: Tensor) -> Tensor:
    """The bytes of a tensor, in the order of its elements, wherever these lie in memory."""
    dense = tensor.detach().contiguous()
    # A single element may keep any stride.
    return dense.as_strided((dense.numel(),), (1,)).view(torch.uint8)


def _tensors(model: Any) -> Iterator[Tensor]:
    """Parameters in the order in which the model has them, and persistent buffers.

    A bridge of TransformerLens 3 registers modules in a second place as it runs, under a private name, which does not
    change the order here. Of buffers, those that come with a checkpoint count. Others are computed, and may differ
    between machines; those of zeros, such as a bias that a bridge adds where the model has none, change nothing.
    """
    root = getattr(model, "original_model", None)
    root = root if isinstance(root, torch.nn.Module) else model
    places: dict[int, int] = {}
    for name, parameter in root.named_parameters(remove_duplicate=False):
        if not PRIVATE.search(name):
            places.setdefault(id(parameter), len(places))
    yield from sorted(root.parameters(), key=lambda parameter: places.get(id(parameter), len(places)))
    if not isinstance(root, transformers.PreTrainedModel):
        return
    for module in root.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set and buffer.any():
                yield buffer


def _digest(tensor: Tensor) -> bytes:
    """The hash of one tensor: of a weighted sum for each chunk of its words, and of the bytes that are left.

    A word x enters as (x ^ x >> 33) · k, modulo 2⁶⁴, with an odd random k for each place in a chunk. A change of one
    word always changes the sum; several changes cancel with a probability of about 2⁻³².
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
    """The same where the weights are; PyTorch knows signed words only, whose sums have the same bits."""
    words = (raw if raw.storage_offset() % 8 == 0 else raw.clone()).view(torch.int64)
    multipliers = torch.from_numpy(_multipliers().view(np.int64)).to(raw.device)
    sums = []
    for part in torch.split(words, 1024 * CHUNK):  # bounds the memory for what is computed on the way
        mixed = part ^ (part >> SHIFT & (1 << 64 - SHIFT) - 1)
        whole = len(part) // CHUNK * CHUNK
        sums.append((mixed[:whole].view(-1, CHUNK) * multipliers).sum(1))
        if whole < len(part):
            sums.append((mixed[whole:] * multipliers[: len(part) - whole]).sum()[None])
    return torch.cat(sums).cpu().numpy().view("<u8") if sums else np.empty(0, "<u8")


@functools.cache
def _multipliers() -> np.ndarray:
    """Odd random words that are the same everywhere."""
    return np.frombuffer(hashlib.shake_128(b"tl_attnstats").digest(8 * CHUNK), "<u8") | np.uint64(1)
