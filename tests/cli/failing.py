"""Commands that must fail."""

from __future__ import annotations

from typing import Any

from tl_attnstats.cli import main


def failure(capsys: Any, *arguments: object) -> str:
    """Run a command that must fail, and return the one line it printed to standard error."""
    capsys.readouterr()  # drop what the test itself printed, for example while saving a model
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.startswith("attnstats: ")
    return str(captured.err)
