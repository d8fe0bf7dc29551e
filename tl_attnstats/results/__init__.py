"""Results: what a run remembers, and comparisons between runs."""
