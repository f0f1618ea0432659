"""Measurements of the running server, against what the same app does without a database. Never asserted in tests."""
