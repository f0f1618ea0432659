"""The audit log as its readers have it: listed, exported whole, verified, kept as long as the settings say.

A line is written by the change that it tells of, in the same transaction (`kernel.audit`). Each tenant has a chain, the
system has its own; docs/audit.md lists what is a line of which. The chain begins at its first line or, once retention
let lines go, at a checkpoint, of which a line `audit.trimmed` of the chain itself tells.
"""
