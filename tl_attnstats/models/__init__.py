"""Models: what they offer, how they are loaded and run."""
