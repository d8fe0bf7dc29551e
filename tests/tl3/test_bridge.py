"""The tests of hooks again, on a `TransformerBridge` of TransformerLens 3."""

from tests.attention.sources.tester import *  # noqa: F403  (pytest runs the tests that a module imports)

# Its first forward pass registers a module in a second place, so that the list of modes, by module, is another.
del test_collect_leaves_the_model_as_it_was
