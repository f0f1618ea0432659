"""Transitions: several changes of one execution, all or nothing, in one commit.

A transition is a list of changes decided in order over one overlay: settle the leased item, append events, write state,
enqueue what comes next, move the status. With a lease the fence is checked in the same step and the execution comes
from the item. Every capability may add a kind of change; `CHANGES` is the one registry.
"""
