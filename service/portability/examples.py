"""Examples of exports and imports, for the contract."""

from typing import Any

import msgspec

from service.http.examples import AT, Example
from service.portability.model import Manifest
from service.portability.rows import digest_of, first
from service.portability.rules import job_id
from service.portability.tables import COLUMNS, names_of, schema

TABLES = {
    name: {"columns": names_of(name), "rows": 0, "sha256": first(name, names_of(name)).sha256} for name in COLUMNS
}
MANIFEST: dict[str, Any] = {
    "format": "holdfast.tenant", "schema": schema(), "tenant_id": "acme", "exported_at": AT,
    "tenant": {
        "name": "Acme Ltd", "status": "suspended", "policy": '{"region": "eu"}', "limits": '{"tokens": 100}',
        "version": 2, "created_at": AT - 9_000, "updated_at": AT,
    },
    "tables": TABLES, "sha256": "",
}  # fmt: skip
MANIFEST["sha256"] = digest_of(msgspec.convert(MANIFEST, Manifest))
ID = job_id(msgspec.convert(MANIFEST, Manifest))
IMPORT = {
    "id": ID, "tenant_id": "acme", "status": "running", "next_part": 1, "rows": 120_000, "rows_written": 0,
    "created": True,
}  # fmt: skip
STATE = ["run-1", '{"greeted":"Ada"}', 4]

EXAMPLES = [
    Example("exportTenant", None, {"states": STATE}),
    Example("beginImport", MANIFEST, IMPORT),
    Example(
        "writeImportPart", {"part": 1, "table": "states", "rows": [STATE]},
        {**IMPORT, "next_part": 2, "rows_written": 1, "created": False},
    ),
    Example(
        "finishImport", None,
        {
            "id": "acme", "name": "Acme Ltd", "status": "suspended", "policy": {"region": "eu"}, "version": 2,
            "limits": {
                "running_executions": None, "definitions": None, "ready_work_items": None,
                "events_per_execution": None, "payload_bytes": None, "state_bytes": None,
                "requests_per_second": None, "burst": None, "tokens": 100, "namespaces": None, "workers": None,
                "execution_days": None,
            },
            "created_at": AT - 9_000, "updated_at": AT, "job_id": None,
        },
    ),
    Example("abandonImport", None, {**IMPORT, "created": False}),
]  # fmt: skip
