"""Numbers as readers see them, rounded to their error."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tl_attnstats.results.numbers import carried, number, places, rounded_error, to_error, with_bound, with_error


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (0.4937, 0.0033, "0.494 ± 0.003"),
        (0.4937, 0.0133, "0.494 ± 0.013"),  # the first figure is 1: two figures
        (0.4937, 0.0196, "0.49 ± 0.02"),  # which is 1 no longer once rounded
        (0.4937, 0.0096, "0.494 ± 0.010"),
        (0.4937, 0.00996, "0.494 ± 0.010"),
        (0.4937, 0.33, "0.5 ± 0.3"),
        (0.4937, 7.0, "0 ± 7"),
        (12.34, 1.44, "12.3 ± 1.4"),
        (1234.5, 33.0, "1230 ± 30"),
        (1234.5, 14.0, "1235 ± 14"),  # a tie goes up
        (1234.4, 14.0, "1234 ± 14"),
        (99.97, 0.2, "100.0 ± 0.2"),
        (-0.7274, 0.0042, "-0.727 ± 0.004"),
        (-0.0004, 0.003, "0.000 ± 0.003"),
        (3.21e-7, 4.2e-8, "0.00000032 ± 0.00000004"),
        (0.0, 0.003, "0.000 ± 0.003"),
        (0.25, 0.0, "0.250 ± 0"),
        (0.25, 1e-17, "0.250 ± 0"),  # zero up to rounding
        (1.0, 0.0, "1.00 ± 0"),
        (0.0, 0.0, "0.00 ± 0"),
        (0.4937, math.nan, "0.494"),
        (math.nan, math.nan, "–"),
    ],
)
def test_a_value_ends_where_its_error_does(value: float, error: float, shown: str) -> None:
    assert with_error(value, error) == shown
    assert math.isnan(error) or to_error(value, error) == shown.partition(" ± ")[0]


@pytest.mark.parametrize(
    ("value", "bound", "shown"),
    [
        (0.4937, 0.0033, "0.494 (binning ≤ 0.004)"),
        (0.4937, 0.0121, "0.494 (binning ≤ 0.013)"),
        (0.4937, 0.0191, "0.49 (binning ≤ 0.02)"),
        (0.4937, 0.0091, "0.494 (binning ≤ 0.010)"),
        (0.4937, 0.004, "0.494 (binning ≤ 0.004)"),
        (0.4937, 0.0, "0.494 (binning ≤ 0)"),
        (0.4937, math.nan, "0.494"),
    ],
)
def test_bounds_are_rounded_up(value: float, bound: float, shown: str) -> None:
    assert with_bound(value, bound, "binning ≤") == shown


@pytest.mark.parametrize(
    ("value", "digits", "shown"),
    [(0.12345, 3, "0.123"), (9.996, 3, "10.0"), (1234.5, 3, "1230"), (5.01e-7, 2, "0.00000050"), (2.0, 3, "2.00"),
     (0.0, 3, "0.00"), (-0.0, 3, "0.00"), (-0.5, 3, "-0.500"), (math.nan, 3, "–")],
)  # fmt: skip
def test_numbers_without_an_error_have_three_significant_figures(value: float, digits: int, shown: str) -> None:
    assert number(value, digits) == shown


VALUES = st.floats(-1e4, 1e4, allow_nan=False).filter(lambda value: value == 0 or abs(value) > 1e-12)
ERRORS = st.floats(1e-12, 1e4, allow_nan=False)


@given(VALUES, ERRORS)
def test_laws_of_rounding(value: float, error: float) -> None:
    rounded, bound = rounded_error(error), rounded_error(error, bound=True)
    unit = Decimal(1).scaleb(-places(error))
    assert abs(rounded - Decimal(error)) <= unit / 2
    assert 0 <= bound - Decimal(repr(error)) < unit
    assert unit <= Decimal(error) * Decimal("1.06")  # not coarser than the error; 0.095 counts as 0.10
    assert rounded_error(float(rounded)) == rounded  # rounding again changes nothing
    assert rounded_error(float(bound), bound=True) == bound
    assert abs(Decimal(to_error(value, error)) - Decimal(value)) <= Decimal(1).scaleb(-places(rounded)) / 2 or (
        error <= 1e-6 * abs(value)
    )


@given(VALUES, st.one_of(ERRORS, st.just(math.nan)), st.booleans())
def test_what_is_carried_is_shown_as_the_value_itself(value: float, error: float, bound: bool) -> None:
    again = carried(value, error, bound=bound)
    assert again is not None
    assert to_error(again, error, bound=bound) == to_error(value, error, bound=bound)
    assert number(again) == number(value) or not math.isnan(error)


def test_nothing_is_carried_for_a_missing_value() -> None:
    assert carried(math.nan, 0.1) is None
    assert carried(math.inf) is None
