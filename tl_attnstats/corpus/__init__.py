"""Sentences, their words, and how they become model input. Independent of models and attention."""
