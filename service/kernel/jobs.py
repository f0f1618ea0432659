"""Jobs: work of the service's own that takes longer than a transaction, done in pages, resumed by whoever comes next.

A page is one transaction that moves the job's row with it: a process that dies leaves the job where its last page ended.
"""

import msgspec

from service.kernel.tables import Table


class Job(msgspec.Struct, frozen=True):
    """A job: its kind, what it needs to know (`detail`, JSON), how far it is, and when its next page is due."""

    tenant_id: str
    id: str
    kind: str
    status: str
    detail: bytes
    total: int
    done: int
    due_at: int
    created_at: int
    updated_at: int


TABLES = [Table(Job, ("tenant_id", "id"), 80, "load_jobs", "insert_jobs", "update_jobs")]
