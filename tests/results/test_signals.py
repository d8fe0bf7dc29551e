from __future__ import annotations

import signal

import pytest

from tl_attnstats.results.signals import Insist


class Dying:
    """An object in whose destructor SIGINT comes."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_that_python_drops_is_raised_at_the_next_check() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Insist() as insist:
        insist.check()
        dying = Dying()
        del dying  # raises nothing here
        with pytest.raises(KeyboardInterrupt):
            insist.check()
    assert signal.getsignal(signal.SIGINT) is before


def test_other_signals_are_raised_at_once() -> None:
    with Insist(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Insist() as insist:
            signal.raise_signal(signal.SIGINT)
            insist.check()
    finally:
        signal.signal(signal.SIGINT, before)
