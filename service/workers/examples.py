"""Examples of workers, for the contract."""

from typing import Any

from service.http.examples import AT, ITEM_ID, Example, page

HEARD: dict[str, Any] = {
    "worker_id": "4711@worker-3", "heartbeat_ms": 10_000, "expires_at": AT + 30_000, "created": False,
}  # fmt: skip
LISTED: dict[str, Any] = {
    "worker_id": "4711@worker-3", "namespace": "main", "identity": "order service, eu-1", "queues": ["orders"],
    "types": ["order"], "activities": ["charge", "ship"], "capacities": {"activities": 50, "workflow_tasks": 10},
    "build_id": "2026.11.2", "status": "alive", "heartbeat_ms": 10_000, "registered_at": AT, "heartbeat_at": AT,
    "expires_at": AT + 30_000,
}  # fmt: skip
LEASE = {
    "id": ITEM_ID, "execution_id": "order-4711", "queue": "orders", "drives": "activity", "attempt": 1, "epoch": 1,
    "expires_at": AT + 30_000,
}  # fmt: skip

EXAMPLES = [
    Example(
        "registerWorker",
        {
            "queues": ["orders"], "types": ["order"], "activities": ["charge", "ship"], "build_id": "2026.11.2",
            "identity": "order service, eu-1", "capacities": {"activities": 50, "workflow_tasks": 10},
        },
        {**HEARD, "created": True},
    ),
    Example("heartbeatWorker", None, HEARD),
    Example("listWorkers", None, page(LISTED)),
    Example("getWorker", None, {**LISTED, "leases": [LEASE], "more_leases": False}),
]  # fmt: skip
