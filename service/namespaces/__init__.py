"""Namespaces: parts of a tenant, each with queues, executions, schedules and workers of its own.

`main` is always there and has no row. Any other is made before something starts in it, and is `active` until it is
deleted; then it is `deleting` until a job has taken away everything that was in it. Ids stay the tenant's: no two
namespaces have an execution of the same id. It appends no events of its own.
"""
