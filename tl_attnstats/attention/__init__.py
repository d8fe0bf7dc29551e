"""Attention, and the reductions that statistics read. Knows nothing of statistics."""
