"""The command `attnstats`, with one file per subcommand.

Help, and mistakes that need no model to detect, are answered at once: nothing here imports torch, transformers, spaCy
or matplotlib before a command needs it.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Sequence

from tl_attnstats.cli import compare, merge, models, report, run, show, view
from tl_attnstats.cli.common import Parser, in_flags
from tl_attnstats.cli.resume import way_back
from tl_attnstats.corpus.untrusted import printable
from tl_attnstats.errors import AttnStatsError

COMMANDS = (run, merge, models, show, report, compare, view)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code. User errors print one line, not a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # print ? for characters that the terminal or pipe cannot encode
    try:
        code = _answer(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _answer(arguments: Sequence[str] | None) -> int:
    args = argparse.Namespace()
    given = sys.argv[1:] if arguments is None else arguments
    try:
        _parser().parse_args(arguments, args)
        args.command(args)
    except SystemExit as end:  # from --help and --version
        return int(end.code or 0)
    except BrokenPipeError:
        raise
    except KeyboardInterrupt as interrupt:
        # Write no partial figures: sentences run longest first, so a part of them would mislead.
        after = way_back(args, given) or "nothing was written"
        print(f"attnstats: {str(interrupt) or 'interrupted'}; {after}", file=sys.stderr)
        return 128 + getattr(interrupt, "signal", signal.SIGINT)
    except Exception as error:
        what = _in_words(error)
        if what is None:
            raise
        after = way_back(args, given)
        print(printable(f"attnstats: {in_flags(what, args)}{f'; {after}' * bool(after)}"), file=sys.stderr)
        return 2
    return 0


def _in_words(error: Exception) -> str | None:
    """The line for an error that is the user's, or the machine's; None for one of the program's own."""
    if isinstance(error, AttnStatsError | OSError):
        return " ".join(str(error).split())
    if isinstance(error, MemoryError | RuntimeError | ImportError):  # a library may not fit, either
        from tl_attnstats.attention.memory import out_of_memory

        if out_of_memory(error):
            said = " ".join(str(error).split())[:200] or type(error).__name__
            return f"out of memory ({said}); free some, or start anew with a smaller --batch-tokens"
    return None


def _parser() -> Parser:
    parser = Parser(prog="attnstats", description="Attention statistics of every head of a model.")
    parser.add_argument("--version", action=_Version, nargs=0, dest=argparse.SUPPRESS, help="print the version")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_to(commands)
    return parser


class _Version(argparse.Action):
    """Print the version. argparse's own action would look it up on every call, which takes time."""

    def __call__(self, *args: object, **kwargs: object) -> None:
        from importlib.metadata import version

        print(f"attnstats {version('tl-attnstats')}")
        sys.exit()
