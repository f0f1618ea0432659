"""Examples of what operators read, for the contract."""

from service.http.examples import AT, TOKEN_ID, Example, page

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
ENTRY = {
    "sequence": 1, "at": AT, "actor": TOKEN_ID, "action": "definition.stored", "target": "order/1.0.0",
    "detail": {"digest": "f0ab67fa41d1c6fc5f474a75741edcdc07341cc1819c785eb6b5a74803ef6445"},
    "hash": "7dfb24cc251191de8ace7ad0c71c887a43e40c29e5ee994fb8d7f70245eb4286",
}  # fmt: skip

EXAMPLES = [
    Example("health", None, {"status": "ok"}),
    Example("ready", None, {"status": "ready"}),
    Example("version", None, {"name": "holdfast", "version": "0.1.0", "store": "sqlite"}),
    Example("listAudit", None, page(ENTRY)),
    Example("getJob", None, JOB),
    Example("cancelJob", None, REDRIVE),
]
