"""Where attention comes from: the model's hooks, a walk inside the model, or patterns from elsewhere.

A new source is a file with a class that has `name` and `read`, and its name here. This module imports nothing heavy:
the command line lists these names.
"""

from __future__ import annotations

from typing import Literal, get_args

SourceName = Literal["auto", "hooks", "streamed"]
"""How attention is read; "auto" is streamed where that reproduces the hooks."""
SOURCES: tuple[SourceName, ...] = get_args(SourceName)
