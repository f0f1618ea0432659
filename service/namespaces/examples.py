"""Examples of namespaces, for the contract."""

from typing import Any

from service.http.examples import AT, Example, page

MADE: dict[str, Any] = {
    "name": "billing", "note": "invoices and dunning", "status": "active", "job_id": None, "created_at": AT,
    "created": False,
}  # fmt: skip
MAIN = {**MADE, "name": "main", "note": None}
STATS = {
    "name": "billing",
    "executions": {
        "pending": 0, "running": 41, "paused": 1, "completed": 1_204_511, "failed": 12, "cancelled": 3, "terminated": 0,
        "timed_out": 2, "limit_exceeded": 0,
    },
    "workflow_tasks": {"ready": 3, "delayed": 0, "leased": 8},
    "activities": {"ready": 5_000, "delayed": 40, "leased": 64},
    "other_work": {"ready": 0, "delayed": 0, "leased": 0},
    "schedules": 4,
    "workers": 6,
    "at_least": ["ready"],
}  # fmt: skip

EXAMPLES = [
    Example("createNamespace", {"name": "billing", "note": "invoices and dunning"}, {**MADE, "created": True}),
    Example("listNamespaces", None, page(MADE, MAIN)),
    Example("getNamespace", None, MADE),
    Example("getNamespaceStats", None, STATS),
    Example("deleteNamespace", None, {**MADE, "status": "deleting", "job_id": "01a1f90f-dae8-7b00-a89d-1cbf27b4e3ad"}),
]
