"""Chains: the runs of one workflow after another: continued in a new log, tried again, or reset to an earlier point.

The runs of a chain are linked both ways (`first_id`, `previous_id`, `next_id`); a run's end and its successor's
beginning are one commit. A parent is told of the chain's end only. The next run has the parent, labels, attributes,
memo, options and queue of the one before, and the time of the chain's end (`execution_timeout_ms`).

What the workflow had not seen goes on to the next run: the signals, and a request to cancel, that came after the
`history_sequence` of its last submission. What it had seen it has consumed: what it still needs of that belongs into
the next run's input. Timers, activities and children that are open end with the run.

Tried again: with `workflow_retry` or `workflow_max_attempts` (default 3, as of work items) a `FailWorkflow` that may be
retried is followed by another attempt, whose first task is put off by the backoff.

Reset: a new run whose log is the prefix of another's up to `to_sequence`. Steps that had ended by then are copied, so
that replay finds them; timers, activities and children that were pending then are asked for anew, after the prefix,
their times counted from now. Signals that came later are carried over, and recognised by their ids as before. A
request to cancel, pauses, snapshots and work items of the prefix are not. The old run, if it is open, is terminated.

The id of a next run follows from the run before (and, for a reset, from what was asked), so a repeat is recognised.

Events: `workflow.continued_as_new`, `workflow.retry_scheduled`, `workflow.reset`, each the last but one of its log.
"""
