"""One database per schema that was ever released, as SQL text with rows in every table that users fill.

``python -m tests.integration.schemas`` writes those that are missing; a released one is never written again.
"""
