"""Definitions: immutable, versioned workflow IRs.

A definition is one JSON object for one (workflow id, version). Storing the same digest again changes nothing; another
body for the same pair is a conflict. `ir` says everything that is wrong with a document at once; with `validate=false`
any JSON object can be stored, for engines that have an IR of their own.
"""
