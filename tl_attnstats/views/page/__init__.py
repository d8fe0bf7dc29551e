"""One text's attention as an interactive page: one HTML file that needs no network."""

from tl_attnstats.views.page.write import Frame, render, write

__all__ = ["Frame", "render", "write"]
