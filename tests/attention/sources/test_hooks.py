"""The tests of hooks on a `TransformerBridge`."""

from tests.attention.sources.tester import *  # noqa: F403  (pytest runs the tests that a module imports)
