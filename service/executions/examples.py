"""Examples of executions, for the contract."""

from typing import Any

from service.http.examples import AT, CURSOR, ITEM_ID, Example, done, page

START: dict[str, Any] = {
    "workflow_id": "order", "version": "latest", "execution_id": "order-4711", "input": {"order": 4711, "amount": 1250},
    "start": {}, "labels": {"team": "billing"}, "attributes": {"customer": "acme", "amount": 1250},
}  # fmt: skip
STARTED = {
    "execution_id": "order-4711", "status": "running", "version": "1.0.0", "sequence": 1, "created": True,
    "work_item_id": ITEM_ID,
}  # fmt: skip
LISTED = {
    "execution_id": "order-4711", "namespace": "main", "workflow_id": "order", "version": "1.0.0", "status": "running",
    "queue": None, "parent_id": None, "segment": 0, "sequence": 1, "open_items": 1, "labels": {"team": "billing"},
    "attributes": {"customer": "acme", "amount": 1250}, "created_at": AT, "started_at": AT, "updated_at": AT,
    "completed_at": None,
}  # fmt: skip
SHOWN = {**LISTED, "result": None, "error": None, "state": {"charged": True}, "input": {"order": 4711, "amount": 1250}}
CHANGED = {"execution_id": "order-4711", "status": "running", "sequence": 4}

EXAMPLES = [
    Example("startExecution", START, STARTED),
    Example(
        "startExecutions", [START, {"workflow_id": "order", "execution_id": "order-4712", "input": {"order": 4712}}],
        done(STARTED, {**STARTED, "execution_id": "order-4712", "version": None, "work_item_id": None}),
    ),
    Example("listExecutions", None, page(LISTED, next_cursor=CURSOR)),
    Example("getExecution", None, SHOWN),
    Example(
        "setExecutionStatus", {"status": "completed", "result": {"receipt": "r-99"}, "expected_sequence": 3},
        {**CHANGED, "status": "completed"},
    ),
    Example("replaceState", {"charged": True, "notes": []}, CHANGED),
    Example("mergeState", {"charged": True, "draft": None}, CHANGED),
    Example("appendState", {"path": "/notes", "value": "called the customer"}, CHANGED),
    Example("setAttributes", {"attributes": {"amount": 990}, "labels": {"team": None}}, CHANGED),
]  # fmt: skip
