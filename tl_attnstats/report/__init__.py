"""Self-contained HTML reports of saved statistics, for one model or a comparison. They need no network or server."""

from tl_attnstats.report.build import write
from tl_attnstats.report.compare import write_comparison

__all__ = ["write", "write_comparison"]
