"""Runs: executions that workflow code drives by replaying their history.

A run has at most one open workflow task, a work item that `drives: decision`. Whatever the workflow must see (a
result, a signal, a timer) appends its event and calls `wake` in the same commit: without an open task one is made;
with one, the run remembers how far the log must be seen, and a submission that has seen less is followed by another
task. A task is settled by its commands, all in one commit. What a command asks for is a step, known by the workflow's
own counter: the same again changes nothing, another thing under the same counter is refused. Commands of other
capabilities are told as facts, `Ordered`, to whoever listens for their type.

Events: `workflow.cancel_requested`, `side_effect.recorded`, `memo.set`, and those of executions.
"""
