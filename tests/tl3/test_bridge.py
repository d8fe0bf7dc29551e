"""The tests of hooks again, on a `TransformerBridge` of TransformerLens 3."""

from tests.attention.test_hooks import *  # noqa: F403  (pytest runs the tests that a module imports)

# After `bridge.hooks(…)` TransformerLens 3 removes the user's hooks at the same points too.
del test_collect_leaves_the_model_as_it_was
del test_collect_leaves_the_model_as_it_was_after_an_error
del test_interrupted_run_reports_partial_work
# Its first forward pass gives some weights another name, and with it the model another fingerprint.
del test_the_ways_in_agree
del test_collectors_after_an_aborted_pass_count_nothing_of_it
