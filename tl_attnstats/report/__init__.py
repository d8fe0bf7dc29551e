"""A saved `AttentionStats` as one HTML file that needs nothing else: no network, no server."""

from tl_attnstats.report.build import write

__all__ = ["write"]
