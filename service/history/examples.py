"""Examples of the log and its snapshots, for the contract."""

from typing import Any

from service.http.examples import AT, CURSOR, TOKEN_ID, Example, page

EVENT = {
    "sequence": 2,
    "kind": "payment.charged",
    "body": {"amount": 1250},
    "at": AT,
    "actor": TOKEN_ID,
    "node_id": "charge",
}
APPEND: dict[str, Any] = {
    "events": [{"kind": "payment.charged", "body": {"amount": 1250}, "node_id": "charge"}, {"kind": "note"}],
    "expected_sequence": 1,
}
FOLD: dict[str, Any] = {
    "sequence": 3, "status": "running", "state": {"charged": True}, "completed_nodes": {"charge": {"id": "ch_1"}},
    "active_nodes": {},
}  # fmt: skip
SNAPSHOT = {"sequence": 3, "created_at": AT, "fold": FOLD}

EXAMPLES = [
    Example("appendEvents", APPEND, {"execution_id": "order-4711", "first_sequence": 2, "last_sequence": 3}),
    Example("getEvents", None, {"items": [EVENT], "last_sequence": 5, "next_after": 2}),
    Example("latestSequence", None, {"execution_id": "order-4711", "sequence": 5, "status": "running"}),
    Example("tailEvents", None, EVENT),
    Example("readFeed", None, page({"execution_id": "order-4711", "event": EVENT}, next_cursor=CURSOR)),
    Example("writeSnapshot", None, {"execution_id": "order-4711", "snapshot_sequence": 3, "sequence": 6}),
    Example("latestSnapshot", None, SNAPSHOT),
    Example("listSnapshots", None, page(SNAPSHOT)),
    Example("verifySnapshots", None, {"execution_id": "order-4711", "sequence": 6, "matches": True, "differences": []}),
]
