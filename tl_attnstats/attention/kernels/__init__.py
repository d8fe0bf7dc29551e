"""From projections to attention and its reductions."""
