"""Examples of the audit log, for the contract."""

from typing import Any

from service.http.examples import AT, TOKEN_ID, Example, page

ENTRY: dict[str, Any] = {
    "sequence": 1, "at": AT, "actor": TOKEN_ID, "action": "definition.stored", "target": "order/1.0.0",
    "detail": {"digest": "f0ab67fa41d1c6fc5f474a75741edcdc07341cc1819c785eb6b5a74803ef6445"},
    "request_id": "5f0c2a9be1d4-2c", "source": "192.0.2.7",
    "hash": "7dfb24cc251191de8ace7ad0c71c887a43e40c29e5ee994fb8d7f70245eb4286",
}  # fmt: skip
VERIFIED = {
    "whole": True, "lines": 1, "after": {"sequence": 0, "hash": "0" * 64},
    "through": {"sequence": 1, "hash": ENTRY["hash"]}, "fault": None,
}  # fmt: skip

EXAMPLES = [
    Example("listAudit", None, page(ENTRY)),
    Example("exportAudit", None, ENTRY),
    Example("verifyAudit", None, VERIFIED),
]
