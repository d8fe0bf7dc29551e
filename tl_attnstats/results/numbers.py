"""Write numbers for readers: a value is rounded to the place of its error.

The error has one significant figure, or two if the first is 1, and the value ends at the same place: 0.494 ± 0.003,
12.3 ± 1.4. Numbers without an error have three significant figures. `report/numbers.js` holds the same rule.
"""

from __future__ import annotations

import math
from decimal import ROUND_05UP, ROUND_CEILING, ROUND_HALF_UP, Context, Decimal

DIGITS = 3
"""Significant figures of a number without an error."""
NEGLIGIBLE = 1e-6
"""Errors below this share of the value are zero up to the rounding of weights, which are float32."""
EXACT = Context(prec=400)


def with_error(value: float, error: float) -> str:
    """A value and its standard error, "0.494 ± 0.003"; the value alone if the error is not known (NaN)."""
    return number(value) if math.isnan(error) else f"{to_error(value, error)} ± {error_shown(error, value)}"


def with_bound(value: float, bound: float, words: str) -> str:
    """A value and a bound on its error, rounded up: "0.494 (binning ≤ 0.004)" for the words "binning ≤"."""
    if math.isnan(bound):
        return number(value)
    return f"{to_error(value, bound, bound=True)} ({words} {error_shown(bound, value, bound=True)})"


def to_error(value: float, error: float, *, bound: bool = False) -> str:
    """The value alone, rounded to the place of its error, or of a bound on it."""
    rounded = rounded_error(error, value, bound=bound)
    return _fixed(value, places(rounded)) if rounded and not math.isnan(value) else number(value)


def error_shown(error: float, value: float = 0.0, *, bound: bool = False) -> str:
    """The error alone; "0" if it is negligible, "–" if it is not known."""
    if math.isnan(error):
        return "–"
    rounded = rounded_error(error, value, bound=bound)
    return _fixed(float(rounded), places(rounded)) if rounded else "0"


def number(value: float, digits: int = DIGITS) -> str:
    """A number without an error, with so many significant figures and no exponent; "–" if there is none (NaN)."""
    if math.isnan(value):
        return "–"
    return _fixed(value, digits - 1 - _exponent(value, digits))


def rounded_error(error: float, value: float = 0.0, *, bound: bool = False) -> Decimal:
    """The error as it is shown. Bounds are rounded up, so that they remain bounds. 0 if negligible or not known."""
    if math.isnan(error) or error <= NEGLIGIBLE * abs(value):
        return Decimal(0)
    last = Decimal(1).scaleb(-places(error))
    if bound:
        return Decimal(repr(float(error))).quantize(last, ROUND_CEILING, EXACT)  # 0.004 is not a trace above itself
    return Decimal(float(error)).quantize(last, ROUND_HALF_UP, EXACT)


def places(error: float | Decimal) -> int:
    """Number of decimals of an error that is not 0; -1 means tens. Of a rounded error it is that of the error."""
    figures, power = f"{error:.1e}".split("e")
    return (figures[0] == "1") - int(power)


def carried(value: float, error: float = math.nan, *, bound: bool = False) -> float | None:
    """The value with two more figures than are shown, so that it rounds to the same text again. None for NaN."""
    if not math.isfinite(value):
        return None
    rounded = rounded_error(error, value, bound=bound)
    decimals = places(rounded) if rounded else DIGITS - 1 - _exponent(value, DIGITS)
    # 05UP never ends a number that was cut on 0 or 5, so that rounding it once more cannot meet a false tie.
    return float(Decimal(float(value)).quantize(Decimal(1).scaleb(-decimals - 2), ROUND_05UP, EXACT))


def _exponent(value: float, digits: int) -> int:
    return int(f"{value:.{digits - 1}e}".split("e")[1])


def _fixed(value: float, decimals: int) -> str:
    return _plain(Decimal(float(value)).quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP, EXACT))


def _plain(rounded: Decimal) -> str:
    return f"{rounded if rounded else rounded.copy_abs():f}"  # no minus before a zero
