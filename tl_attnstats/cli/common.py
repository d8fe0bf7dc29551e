"""Helpers shared by commands: a parser with one-line errors, option types, and file checks."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from tl_attnstats.corpus.untrusted import printable
from tl_attnstats.errors import AttnStatsError

if TYPE_CHECKING:
    from rich.console import Console

Commands = argparse._SubParsersAction  # the return type of add_subparsers has no public name

STATS_FILE = "stats.nc"
REPORT_FILE = "report.html"
ENCODER_DECODER_STREAMS = ("encoder", "decoder", "cross")
MODEL_HELP = "hub name, local transformers directory, .gguf file, or 'demo'"
HEAD = re.compile(r"L(0|[1-9]\d*)H(0|[1-9]\d*)", re.ASCII)
LAYERS = re.compile(r"\s*(\d{1,3})\s*(?:-\s*(\d{1,3})\s*)?", re.ASCII)
# Python names that differ on the command line.
FLAGS = {
    "prepend_bos=True": "--bos",
    "prepend_bos=False": "--no-bos",
    "prepend_bos": "--bos",
    "(column=…)": "(--column)",
    "partial=True": "--partial",
    "or delete it to start anew": "or start anew with --fresh",
    "delete it to start anew": "start anew with --fresh",
    "every=": "--checkpoint-every ",
}


class UsageError(AttnStatsError):
    """An invalid option or combination of options."""


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that raises `UsageError` instead of printing usage and exiting."""

    def error(self, message: str) -> NoReturn:
        option, colon, what = message.removeprefix("argument ").partition(": ")
        if message.startswith("argument ") and colon:
            # The option types below say "VALUE: expected …".
            message = f"{option}{' ' if ': expected ' in what else ': '}{what}"
        raise UsageError(f"{message}; see {self.prog} --help")


def in_flags(message: str, args: argparse.Namespace) -> str:
    """Replace Python argument names in a message, as in `layers: got …`, by command-line options."""
    match = re.match(r"(\w+)(?=[:=])", message)
    if match and match[1] in vars(args) and match[1] not in args.positional:
        message = f"--{match[1].replace('_', '-')}{message[match.end() :]}"
    for name, flag in FLAGS.items():
        message = message.replace(name, flag)
    return message


# Option types. Each converts the text of an option to its value, or says what was expected.


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """An integer from `least` to `most`."""
    expected = "a positive number" if (least, most) == (1, None) else f"a number of at least {least}"
    if most is not None:
        expected = f"a number from {least} to {most}"

    def convert(text: str) -> int:
        number = int(text) if re.fullmatch(r"[+-]?\d{1,18}", text, re.ASCII) else None
        if number is None or number < least or (most is not None and number > most):
            raise argparse.ArgumentTypeError(f"{_shown(text)}: expected {expected}")
        return number

    return convert


def text(given: str) -> str:
    """A non-empty text."""
    if not given.strip():
        raise argparse.ArgumentTypeError(f"{given!r}: expected a non-empty text")
    return given


def path(given: str) -> Path:
    """A path."""
    try:
        valid = "\0" not in os.fsdecode(os.fsencode(text(given)))
    except UnicodeError:
        valid = False
    if not valid:
        raise argparse.ArgumentTypeError(f"{given!r}: expected a path, which has no null character or lone surrogate")
    return Path(given)


def names(given: str) -> list[str]:
    """Comma-separated names without duplicates."""
    found = [name.strip() for name in given.split(",")]
    if "" in found or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"{_shown(given)}: expected comma-separated names without duplicates")
    return found


def layers(given: str) -> list[int]:
    """Layer numbers and ranges."""
    numbers: list[int] = []
    for part in given.split(","):
        match = LAYERS.fullmatch(part)
        if not match:
            raise argparse.ArgumentTypeError(f"{_shown(given)}: expected numbers below 1000 and ranges, such as 0-3,7")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise argparse.ArgumentTypeError(
                f"{given}: expected ranges from a smaller to a larger number, such as {last}-{first}"
            )
        numbers += range(first, last + 1)
    return numbers


def head(given: str) -> str:
    """The name of a head."""
    if not HEAD.fullmatch(given):
        raise argparse.ArgumentTypeError(f"{_shown(given)}: expected a name such as L8H6")
    return given


def add_choice(parser: argparse.ArgumentParser, option: str, choices: Iterable[str], **more: Any) -> None:
    """Add an option whose value is one of several names."""
    choices = tuple(choices)

    def convert(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"{_shown(text)}: expected one of {', '.join(choices)}")
        return text

    parser.add_argument(option, type=convert, metavar=f"{{{','.join(choices)}}}", **more)


def _shown(text: str) -> str:
    return text if text.strip() else repr(text)


# Files


def check_file(option: str, path: Path) -> None:
    """Raise `UsageError` unless the path is a readable file."""
    if path.is_dir():
        raise UsageError(f"{option} {path}: is a directory, expected a file")
    if not path.exists():
        raise UsageError(f"{option} {path}: no such file")
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise UsageError(f"{option} {path}: cannot be read ({error.strerror})") from None


def check_writable(option: str, directory: Path, *files: str) -> None:
    """Check before the run that files can be written to a directory; create it if necessary."""
    import tempfile

    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise UsageError(f"{option} {directory}: cannot write there ({error.strerror})") from None
    for name in files:
        if (directory / name).is_dir():
            raise UsageError(f"{option} {directory / name}: a directory of this name already exists")


def stats_file(path: Path) -> Path:
    """The file of statistics: the given one, or the one that `run` wrote into the directory."""
    within = [stream for stream in ENCODER_DECODER_STREAMS if (path / stream / STATS_FILE).is_file()]
    if within and not (path / STATS_FILE).is_file():
        raise UsageError(f"{path}: has a directory for each stream of attention; choose one: {path / within[0]}")
    file = path / STATS_FILE if path.is_dir() else path
    if not file.is_file():
        raise UsageError(f"{file}: no such file; expected a file written by attnstats run")
    return file


# Output


def console() -> Console:
    """The console for standard output. In a file or a pipe, tables are not cut to the width of a terminal.

    It shows names from files as they are, except for what would control the terminal.
    """
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class Harmless(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else segment._replace(text=printable(segment.text))

    return Harmless(width=None if sys.stdout.isatty() else 160, markup=False, emoji=False)


def draw_to_files() -> None:
    """Make matplotlib draw without a window or display."""
    import matplotlib

    matplotlib.use("agg")
