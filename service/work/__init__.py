"""Work: items that a worker claims under a lease, with retries, dead letters and a fence.

An item is `ready` (perhaps for later), `leased`, and ends `completed`, `dead` or `cancelled`. Every delivery counts an
attempt and raises the item's epoch by one: the epoch is the fence, and every write by a holder carries it. An item that
runs out of attempts becomes a dead letter in the commit that failed it, and a redrive is a job that gives many of them
another life. What an item `drives` is settled with it. Of the items with one concurrency key at most one is leased.
Events: `work.enqueued`, `work.completed`, `work.failed`, `work.retry_scheduled`, `work.lease_expired`,
`work.dead_lettered`, `work.requeued`, `work.released`, `work.cancelled`.
"""
