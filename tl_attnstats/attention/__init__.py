"""Models and their attention patterns. Knows nothing of statistics."""
