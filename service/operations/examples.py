"""Examples of what operators read, for the contract."""

from service.http.examples import AT, Example

JOB = {
    "id": "01a1f90f-dae8-7b00-a89d-1cbf27b4e3ad", "kind": "tenant.delete", "status": "running",
    "detail": {"tenant_id": "acme"}, "total": 0, "done": 4_000, "created_at": AT, "updated_at": AT + 2_000,
}  # fmt: skip
REDRIVE = {
    "id": "01a1f90f-dae8-7c11-9d70-2b6ad2ac01e5", "kind": "work.redrive", "status": "cancelled",
    "detail": {
        "filter": None, "queue": "emails", "error_type": "smtp_timeout", "rate_per_second": 50, "until": AT,
        "at": AT - 9_000, "after": "01a1f90f-dae8-74b5-b3d0-9188ca54e5d3", "requeued": 390, "skipped": 10,
    },
    "total": 1_204, "done": 400, "created_at": AT, "updated_at": AT + 8_000,
}  # fmt: skip
METRICS = """\
# HELP holdfast_requests_total Requests answered, by operation and status.
# TYPE holdfast_requests_total counter
holdfast_requests_total{operation="completeWork",status="200"} 4812.0
"""

EXAMPLES = [
    Example("health", None, {"status": "ok"}),
    Example("ready", None, {"status": "ready"}),
    Example("version", None, {"name": "holdfast", "version": "0.1.0", "store": "sqlite"}),
    Example(
        "getSweeper",
        None,
        {
            "held": True,
            "holder": "node-3/4172/9f3c01d2",
            "epoch": 7,
            "since": AT,
            "expires_at": AT + 3_603_000,
            "now": AT + 3_600_800,
        },
    ),
    Example("getMetrics", None, METRICS),
    Example("getJob", None, JOB),
    Example("cancelJob", None, REDRIVE),
]
