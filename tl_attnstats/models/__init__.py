"""Describe, load and run models."""
