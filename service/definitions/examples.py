"""Examples of definitions, for the contract."""

from typing import Any

from service.http.examples import AT, TOKEN_ID, Example, page

DIGEST = "f0ab67fa41d1c6fc5f474a75741edcdc07341cc1819c785eb6b5a74803ef6445"
ORDER: dict[str, Any] = {
    "workflow_id": "order",
    "version": "1.0.0",
    "start_node": "charge",
    "nodes": {
        "charge": {"id": "charge", "kind": {"type": "http"}, "retry_policy": "io_default", "node_timeout_secs": 30},
        "receipt": {"id": "receipt", "kind": {"type": "email"}},
    },
    "edges": [{"from": "charge", "to": "receipt"}, {"from": "receipt", "to": "end"}],
}
LISTED = {
    "workflow_id": "order", "version": "1.0.0", "revision": 1, "digest": DIGEST, "validated": True, "created_at": AT,
    "created_by": TOKEN_ID,
}  # fmt: skip
STORED = {
    "workflow_id": "order",
    "version": "1.0.0",
    "digest": DIGEST,
    "revision": 1,
    "created_at": AT,
    "created": True,
}
WRONG = {"pointer": "/edges/1/to", "detail": "there is no node 'reciept'; did you mean 'receipt'?"}

EXAMPLES = [
    Example("storeDefinition", ORDER, STORED),
    Example("getDefinition", None, {**LISTED, "definition": ORDER}),
    Example("getLatestDefinition", None, {**LISTED, "definition": ORDER}),
    Example("listDefinitions", None, page(LISTED)),
    Example("deleteDefinition", None, {"workflow_id": "order", "version": "1.0.0"}),
    Example("validateDefinition", ORDER, {"valid": False, "errors": [WRONG]}),
]
