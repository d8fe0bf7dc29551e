"""Options of a model and its attention. Imports nothing heavy, because the command line lists these names."""

from __future__ import annotations

from typing import Literal, get_args

from tl_attnstats.errors import AttnStatsError

NullRule = Literal["first", "special", "none"]
"""Which keys are null keys: the first position, all special tokens, or none."""
NULL_RULES: tuple[NullRule, ...] = get_args(NullRule)

Stream = Literal["self", "encoder", "decoder", "cross"]
"""A decoder or an encoder has only the stream "self", an encoder–decoder the other three."""
STREAMS: tuple[Stream, ...] = get_args(Stream)

DTYPES = ("float32", "float16", "bfloat16", "float64")

MAX_TOKENS = 64
"""Default limit for a view of one text: about as many lines as fit on a page."""


def check_null_rule(null: str) -> None:
    """Raise unless `null` is a known rule."""
    if null not in ("auto", *NULL_RULES):
        raise AttnStatsError(f"null={null!r}: expected one of auto, {', '.join(NULL_RULES)}")
