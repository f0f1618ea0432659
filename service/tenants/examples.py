"""Examples of tenants, for the contract."""

from typing import Any

from service.http.examples import AT, Example, page

LIMITS: dict[str, Any] = {
    "running_executions": 10_000, "definitions": None, "ready_work_items": 100_000, "events_per_execution": 50_000,
    "payload_bytes": 262_144, "state_bytes": 1_048_576, "requests_per_second": 500,
    "burst": 1_000, "tokens": 100, "namespaces": 20, "workers": 50, "execution_days": 30,
}  # fmt: skip
TENANT: dict[str, Any] = {
    "id": "acme", "name": "Acme Ltd", "status": "active", "policy": {"region": "eu"}, "limits": LIMITS, "version": 1,
    "created_at": AT, "updated_at": AT, "job_id": None,
}  # fmt: skip
USAGE = {
    "tenant_id": "acme", "running_executions": 41, "definitions": 3, "ready_work_items": 120, "tokens": 6,
    "namespaces": 2, "workers": 48, "limits": LIMITS, "near": ["workers"],
}  # fmt: skip

EXAMPLES = [
    Example(
        "createTenant",
        {"id": "acme", "name": "Acme Ltd", "policy": {"region": "eu"}, "limits": {"running_executions": 10_000}},
        {**TENANT, "limits": {**dict.fromkeys(LIMITS), "running_executions": 10_000}},
    ),
    Example("getTenant", None, TENANT),
    Example("listTenants", None, page(TENANT)),
    Example(
        "updateTenant", {"status": "suspended", "expected_version": 1}, {**TENANT, "status": "suspended", "version": 2},
    ),
    Example(
        "deleteTenant", None,
        {**TENANT, "status": "deleting", "version": 3, "job_id": "01a1f90f-dae8-7b00-a89d-1cbf27b4e3ad"},
    ),
    Example("getUsage", None, USAGE),
]  # fmt: skip
