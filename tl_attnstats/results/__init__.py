"""Results: what a run remembers, and what two results have to do with each other."""
