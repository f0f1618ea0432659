"""Retention: executions that ended so many days ago are removed, with everything that belongs to them.

With `execution_days` a sweep walks each tenant's executions from the oldest, by the index of their age, and removes
those that ended long enough ago: their logs, states, snapshots, labels, items and dead letters, steps, signals. One
that has not ended stays, however old, and so does all of a tenant that is not active. A page is one commit: an
execution is there as a whole or not at all, but for one whose rows do not fit into a page, which goes in several and
cannot be reset meanwhile. Its id is free again.
"""
