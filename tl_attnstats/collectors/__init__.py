"""One file a statistic: sums over attention blocks. Knows the block, not where it came from."""
