"""Activities: what a workflow has done by workers, once or several times, until it succeeds or its time is up.

An activity is a step of its run and a work item that `drives: activity`, with the lease, fence, retries and dead letter
of any other; it goes only to workers that name it. While it is open it has one alarm, at the earliest of its deadlines:
to be started, to end an attempt, to be heard of, to end at all. A step is `open` until it is `completed`, `failed`,
`timed_out` or `cancelled`, or `closed` with its run. A retry is no event; the item keeps every attempt's error.
Events: `activity.scheduled`, `activity.completed`, `activity.failed`, `activity.timed_out`, `activity.cancelled`.
"""
