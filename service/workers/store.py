"""The tables of workers."""

from service.kernel.tables import ONLY_BY_GROUP, Group, Table
from service.workers.model import QUEUES_OF, Worker, WorkerQueue

TABLES = [
    Table(
        Worker,
        ("tenant_id", "id"),
        52,
        "load_workers",
        "insert_workers",
        "update_workers",
        "delete_workers",
        narrow={
            "beat_workers": (
                "namespace", "identity", "queues", "types", "activities", "capacities", "build_id", "heartbeat_ms",
                "registered_at",
            )
        },
    ),
    Table(
        WorkerQueue,
        ("tenant_id", "queue", "worker_id"),
        53,
        ONLY_BY_GROUP,
        "insert_worker_queues",
        delete="delete_worker_queues",
        groups=(Group(QUEUES_OF, "queues_of_workers", lambda row: (row.tenant_id, row.worker_id)),),
    ),
]  # fmt: skip
