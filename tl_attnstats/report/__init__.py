"""Saved statistics as HTML that needs nothing else, no network and no server: of one model, or of several compared."""

from tl_attnstats.report.build import write
from tl_attnstats.report.compare import write_comparison

__all__ = ["write", "write_comparison"]
