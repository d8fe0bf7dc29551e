"""Sentences, their words, and how they become model input. Knows nothing of models or attention."""
