"""A run of the command line that has only so much memory left from one of its batches on.

python -m tests.reliability.memory BYTES BATCH ARGUMENTS…
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import tl_attnstats.plotting  # before memory is short
import tl_attnstats.report  # noqa: F401
from tl_attnstats.cli import main
from tl_attnstats.corpus.batches import Batch
from tl_attnstats.run import Collectors

collect = Collectors.run
n_bytes, batches_left = map(int, sys.argv[1:3])


def limited(collectors: Collectors, batch: Batch) -> None:
    """Set the limit just before the batch, then collect it."""
    global batches_left
    batches_left -= 1
    if batches_left == 0:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + n_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    collect(collectors, batch)


if __name__ == "__main__":
    Collectors.run = limited  # type: ignore[method-assign]
    sys.exit(main(sys.argv[3:]))
