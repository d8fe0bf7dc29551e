"""`python -m tl_attnstats.cli`."""

import sys

from tl_attnstats.cli import main

sys.exit(main())
