"""Executions: one run of something, with its status, state and the head of its log.

An execution is `pending` or `running` from the start, may be `paused`, and ends once: `completed`, `failed`,
`cancelled`, `terminated`, `timed_out` or `limit_exceeded`. Its row is the lock of its log: whoever holds it gives out
the next dense sequence, so every change of an execution is one winner's. Terminal is final. Events:
`execution.started`, `execution.status_changed` and one for each ending, `state.replaced`, `state.merged`,
`state.appended`, `attributes.set`.
"""
