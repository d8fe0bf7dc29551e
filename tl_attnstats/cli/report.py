"""`attnstats report`: write the report page."""

from __future__ import annotations

import argparse

from tl_attnstats.cli.common import REPORT_FILE, Commands, check_writable, path, stats_file


def add_to(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("report", help="write report.html, a page for the browser, beside the statistics")
    parser.set_defaults(command=_report, positional=("stats",))
    parser.add_argument("stats", type=path, metavar="DIR", help="output of run: the directory, or its stats.nc")


def _report(args: argparse.Namespace) -> None:
    file = stats_file(args.stats)
    check_writable("DIR", file.parent, REPORT_FILE)
    from tl_attnstats import report
    from tl_attnstats.results.stats import load

    page = file.parent / REPORT_FILE
    report.write(load(file), page)
    print(page)
