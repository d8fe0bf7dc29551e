"""Device code of the `cuda` kernel: three sweeps over the scores of a layer, written in Triton.

No sweep keeps scores or weights in memory. Each result belongs to one program, which adds it up in a fixed order: there
are no atomic additions, so running again gives the same bits.
"""

from __future__ import annotations

import triton
import triton.language as tl

BY_ROW = ("most", "inverse", "row_max", "row_max_others", "ones", "others", "row_log_mass", "null_mass", "self_mass")
"""What `sweep_rows` finds for each row, in this order.

`most`: the row's largest score, null keys and sink included. `inverse`: 1 / Σ exp(score - most), so that a weight is
exp(score - most) · inverse; 0 in rows that do not count. `ones`: how many content keys have the largest content score;
each weighs `row_max`. `others`: the mass of the other content keys, which would lose its digits if added to the ones.
"""
BY_KEY = ("column_mass", "null_column_mass", "column_distance")
"""What `sweep_columns` finds for each key, in this order."""

_CONTENT, _NULL = tl.constexpr(1), tl.constexpr(2)  # kinds of keys; padding is 0
_NEVER = tl.constexpr(float("-inf"))
_BITS = tl.constexpr(1.4426950408889634)  # bits per nat


@triton.jit
def _load(x, tokens, n_tokens, n_wide, WIDE: tl.constexpr, AS_FLOAT: tl.constexpr):
    """Vectors of some tokens `[token, d]`, with zeros after the last token and after the last dimension."""
    wide = tl.arange(0, WIDE)
    inside = (tokens >= 0) & (tokens < n_tokens)
    loaded = tl.load(x + tokens[:, None] * n_wide + wide, inside[:, None] & (wide < n_wide), 0.0)
    return loaded.to(tl.float32) if AS_FLOAT else loaded


@triton.jit
def _kinds(kinds, keys, n_keys):
    return tl.load(kinds + keys, (keys >= 0) & (keys < n_keys), 0)


@triton.jit
def _power(x):
    """exp(x), through the instruction that GPUs have for it."""
    return tl.exp2(x * _BITS)


@triton.jit
def _scores(query, key, scale, softcap, PRECISION: tl.constexpr, CAPPED: tl.constexpr):
    """Scores `[query, key]`, without bias and mask."""
    scores = tl.dot(query, tl.trans(key), input_precision=PRECISION) * scale
    if CAPPED:
        # The hyperbolic tangent; written for |x|, no exponential overflows.
        power = _power(-2.0 * tl.abs(scores) / softcap)
        scores = tl.where(scores < 0, -softcap, softcap) * (1 - power) / (1 + power)
    return scores


@triton.jit
def _add_bias(scores, bias, rows, keys, n_queries, n_keys):
    inside = (rows < n_queries)[:, None] & (keys >= 0) & (keys < n_keys)
    return scores + tl.load(bias + rows[:, None].to(tl.int64) * n_keys + keys, inside, 0.0)


@triton.jit
def sweep_rows(
    query,
    key,
    bias,
    kinds,
    first_key,
    end_key,
    n_heads,
    n_shared,
    n_queries,
    n_keys,
    d_head,
    bias_of_sequence,
    scale,
    softcap,
    value,
    sinks,
    counted,
    output,
    found,
    d_value,
    CAPPED: tl.constexpr,
    BIASED: tl.constexpr,
    D_HEAD: tl.constexpr,
    PRECISION: tl.constexpr,
    AS_FLOAT: tl.constexpr,
    SINKING: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    D_VALUE: tl.constexpr,
):
    """The output of attention and what `BY_ROW` names, of a block of rows of one head of one sequence."""
    group = tl.program_id(0).to(tl.int64)
    sequence, head = group // n_heads, group % n_heads
    kinds += sequence * n_keys
    bias += sequence * bias_of_sequence + head * n_queries * n_keys
    # In causal attention, the last blocks of rows have the most keys; they start first.
    rows = (tl.num_programs(1) - 1 - tl.program_id(1)) * ROWS + tl.arange(0, ROWS)
    real = rows < n_queries
    queries = _load(query + group * n_queries * d_head, rows, n_queries, d_head, D_HEAD, AS_FLOAT)
    key += (group // n_shared) * n_keys * d_head
    value += (group // n_shared) * n_keys * d_value
    first = tl.load(first_key + rows, real, n_keys)
    end = tl.load(end_key + rows, real, 0)

    most = tl.full([ROWS], _NEVER, tl.float32)  # largest score of all
    top = tl.full([ROWS], _NEVER, tl.float32)  # largest content score
    top_others = tl.full([ROWS], _NEVER, tl.float32)  # without the query's own token
    own = tl.full([ROWS], _NEVER, tl.float32)
    ones = tl.zeros([ROWS], tl.float32)
    others = tl.zeros([ROWS], tl.float32)  # this and the following in units of exp(most)
    logs = tl.zeros([ROWS], tl.float32)
    null = tl.zeros([ROWS], tl.float32)
    mixed = tl.zeros([ROWS, D_VALUE], tl.float32)
    for start in range(tl.min(first) // KEYS * KEYS, tl.max(end), KEYS):
        keys = start + tl.arange(0, KEYS)
        kind = _kinds(kinds, keys, n_keys)
        scores = _scores(queries, _load(key, keys, n_keys, d_head, D_HEAD, AS_FLOAT), scale, softcap, PRECISION, CAPPED)
        if BIASED:
            scores = _add_bias(scores, bias, rows, keys, n_queries, n_keys)
        reached = (keys >= first[:, None]) & (keys < end[:, None]) & (kind > 0)
        content = reached & (kind == _CONTENT)
        itself = rows[:, None] == keys
        scores = tl.where(reached, scores, _NEVER)
        of_content = tl.where(content, scores, _NEVER)
        new_most = tl.maximum(most, tl.max(scores, 1))
        new_top = tl.maximum(top, tl.max(of_content, 1))
        top_others = tl.maximum(top_others, tl.max(tl.where(itself, _NEVER, of_content), 1))
        own = tl.maximum(own, tl.max(tl.where(itself, of_content, _NEVER), 1))

        # Bring the sums so far to the new units. Ones that are no longer the largest join the others.
        unit = tl.where(new_most == _NEVER, 0.0, new_most)
        fade = _power(most - unit)
        before = others * fade + ones * _power(top - unit)
        rises = new_top > top
        logs = logs * fade + before * tl.where(rises & (top > _NEVER), top - new_top, 0.0)
        others = tl.where(rises, before, others * fade)
        ones = tl.where(rises, 0.0, ones)
        most, top = new_most, new_top

        powers = _power(scores - unit[:, None])
        largest = scores == top[:, None]
        ones += tl.sum(tl.where(content & largest, 1.0, 0.0), 1)
        others += tl.sum(tl.where(content & ~largest, powers, 0.0), 1)
        logs += tl.sum(tl.where(content, powers * (scores - top[:, None]), 0.0), 1)
        null = null * fade + tl.sum(tl.where(kind == _NULL, powers, 0.0), 1)
        values = _load(value, keys, n_keys, d_value, D_VALUE, AS_FLOAT)
        mixed = mixed * fade[:, None] + tl.dot(powers.to(values.dtype), values, input_precision=PRECISION)

    sink = tl.load(sinks + head).to(tl.float32) if SINKING else _NEVER
    unit = tl.maximum(most, sink)
    unit = tl.where(unit == _NEVER, 0.0, unit)
    fade, one = _power(most - unit), _power(top - unit)
    total = ones * one + (others + null) * fade
    if SINKING:
        total += _power(sink - unit)
    inverse = tl.where(total == 0, 0.0, 1 / total)
    wide = tl.arange(0, D_VALUE)
    place = output + (group * n_queries + rows[:, None]) * d_value + wide
    tl.store(place, mixed * (fade * inverse)[:, None], real[:, None] & (wide < d_value))
    weight = tl.where(tl.load(counted + sequence * n_queries + rows, real, 0) > 0, inverse, 0.0)
    step = tl.num_programs(0).to(tl.int64) * n_queries
    place = found + group * n_queries + rows
    tl.store(place, unit, real)
    tl.store(place + step, weight, real)
    tl.store(place + 2 * step, one * weight, real)
    tl.store(place + 3 * step, _power(top_others - unit) * weight, real)
    tl.store(place + 4 * step, ones, real)
    tl.store(place + 5 * step, others * fade * weight, real)
    tl.store(place + 6 * step, logs * fade * weight, real)
    tl.store(place + 7 * step, null * fade * weight, real)
    tl.store(place + 8 * step, _power(own - unit) * weight, real)


@triton.jit
def _weights(scores, reached, most, inverse):
    return tl.where(reached, _power(scores - most[:, None]) * inverse[:, None], 0.0)


@triton.jit
def sweep_columns(
    query,
    key,
    bias,
    kinds,
    first_key,
    end_key,
    n_heads,
    n_shared,
    n_queries,
    n_keys,
    d_head,
    bias_of_sequence,
    scale,
    softcap,
    first_query,
    end_query,
    most,
    inverse,
    found,
    CAPPED: tl.constexpr,
    BIASED: tl.constexpr,
    D_HEAD: tl.constexpr,
    PRECISION: tl.constexpr,
    AS_FLOAT: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
):
    """What `BY_KEY` names, of a block of keys for one head of one sequence, from all rows that reach them."""
    group = tl.program_id(0).to(tl.int64)
    sequence, head = group // n_heads, group % n_heads
    bias += sequence * bias_of_sequence + head * n_queries * n_keys
    query += group * n_queries * d_head
    most += group * n_queries
    inverse += group * n_queries
    keys = tl.program_id(1) * KEYS + tl.arange(0, KEYS)
    inside = keys < n_keys
    kind = _kinds(kinds + sequence * n_keys, keys, n_keys)
    vectors = _load(key + (group // n_shared) * n_keys * d_head, keys, n_keys, d_head, D_HEAD, AS_FLOAT)
    first_row = tl.min(tl.load(first_query + keys, inside, n_queries))
    end_row = tl.max(tl.load(end_query + keys, inside, 0))

    mass = tl.zeros([KEYS], tl.float64)
    distance = tl.zeros([KEYS], tl.float64)
    for start in range(first_row // ROWS * ROWS, end_row, ROWS):
        rows = start + tl.arange(0, ROWS)
        real = rows < n_queries
        first, end = tl.load(first_key + rows, real, n_keys), tl.load(end_key + rows, real, 0)
        largest, factor = tl.load(most + rows, real, 0.0), tl.load(inverse + rows, real, 0.0)
        scores = _scores(
            _load(query, rows, n_queries, d_head, D_HEAD, AS_FLOAT), vectors, scale, softcap, PRECISION, CAPPED
        )
        if BIASED:
            scores = _add_bias(scores, bias, rows, keys, n_queries, n_keys)
        reached = (factor != 0)[:, None] & (keys >= first[:, None]) & (keys < end[:, None]) & (kind > 0)
        weights = _weights(scores, reached, largest, factor)
        mass += tl.sum(weights, 0).to(tl.float64)
        distance += tl.sum(weights * tl.abs(rows[:, None] - keys).to(tl.float32), 0).to(tl.float64)

    step = tl.num_programs(0).to(tl.int64) * n_keys
    place = found + group * n_keys + keys
    tl.store(place, tl.where(kind == _CONTENT, mass, 0.0), inside)
    tl.store(place + step, tl.where(kind == _NULL, mass, 0.0), inside)
    tl.store(place + 2 * step, tl.where(kind == _CONTENT, distance, 0.0), inside)


@triton.jit
def sweep_offsets(
    query,
    key,
    bias,
    kinds,
    first_key,
    end_key,
    n_heads,
    n_shared,
    n_queries,
    n_keys,
    d_head,
    bias_of_sequence,
    scale,
    softcap,
    most,
    inverse,
    found,
    first_band,
    CAPPED: tl.constexpr,
    BIASED: tl.constexpr,
    D_HEAD: tl.constexpr,
    PRECISION: tl.constexpr,
    AS_FLOAT: tl.constexpr,
    SIZE: tl.constexpr,
):
    """Content weights summed by offset (query - key), of a band of offsets for one head of one sequence.

    The band begins at offset `band * SIZE`. From a block of rows, it crosses two blocks of keys: the diagonals on and
    below the main one of the first, and those above the main one of the second. Put together these are a square in
    which the offset is (row - column) modulo SIZE. Squares of all blocks of rows are added, and the diagonals of the
    sum at the end.
    """
    group = tl.program_id(0).to(tl.int64)
    band = first_band + tl.program_id(1)
    sequence, head = group // n_heads, group % n_heads
    kinds += sequence * n_keys
    bias += sequence * bias_of_sequence + head * n_queries * n_keys
    query += group * n_queries * d_head
    key += (group // n_shared) * n_keys * d_head
    most += group * n_queries
    inverse += group * n_queries
    place = tl.arange(0, SIZE)
    lower = place[:, None] >= place

    square = tl.zeros([SIZE, SIZE], tl.float32)
    # Blocks of rows whose keys are not all before the first token, nor all after the last.
    first_block, end_block = tl.maximum(band, 0), tl.cdiv(n_queries, SIZE) + tl.minimum(band + 1, 0)
    for block in range(first_block, end_block):
        rows = block * SIZE + place
        near = rows - band * SIZE  # keys
        far = near - SIZE
        real = rows < n_queries
        first, end = tl.load(first_key + rows, real, n_keys), tl.load(end_key + rows, real, 0)
        largest, factor = tl.load(most + rows, real, 0.0), tl.load(inverse + rows, real, 0.0)
        queries = _load(query, rows, n_queries, d_head, D_HEAD, AS_FLOAT)
        on_near = _scores(
            queries, _load(key, near, n_keys, d_head, D_HEAD, AS_FLOAT), scale, softcap, PRECISION, CAPPED
        )
        on_far = _scores(queries, _load(key, far, n_keys, d_head, D_HEAD, AS_FLOAT), scale, softcap, PRECISION, CAPPED)
        scores = tl.where(lower, on_near, on_far)
        keys = tl.where(lower, near, far)
        if BIASED:
            scores = _add_bias(scores, bias, rows, keys, n_queries, n_keys)
        kind = tl.where(lower, _kinds(kinds, near, n_keys), _kinds(kinds, far, n_keys))
        content = (factor != 0)[:, None] & (keys >= first[:, None]) & (keys < end[:, None]) & (kind == _CONTENT)
        square += _weights(scores, content, largest, factor)

    aligned = tl.gather(square, (place[:, None] - place) & (SIZE - 1), 1)  # column: the offset within the band
    tl.store(found + (group * tl.num_programs(1) + tl.program_id(1)) * SIZE + place, tl.sum(aligned, 0))
