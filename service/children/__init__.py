"""Children: runs that a workflow starts, and hears the end of, whichever end it is.

A child belongs to a step of its parent. Its end is told in the parent's log, in the commit in which it ends; of a chain
of runs only the last one's. When the parent ends, or is asked to stop, each open child is dealt with as its
`parent_close_policy` says: `terminate` it, `request_cancel` of it, or `abandon` it. That happens in the same commit for
up to `AT_ONCE` open steps, and for children that have no open children themselves; all others get an alarm that is due
at once, and the next sweep ends them, one level of a tree after another.

A parent that continues in a new run has ended: the next run knows nothing of its steps. Children that must live on
are started with `abandon`. Where a later run of the chain (continued, tried again, reset) starts a child under an id
that a child of an earlier run has, and that one is over or is being ended, the new child gets an id of its own.

Events, all in the parent's log: `child.started`, `child.completed`, `child.failed` (also when the id is taken by
somebody else), `child.cancelled`, `child.terminated`, `child.timed_out`, `child.limit_exceeded`.
"""
