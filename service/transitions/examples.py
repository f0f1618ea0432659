"""Examples of transitions, for the contract."""

from typing import Any

from service.http.examples import AT, ITEM_ID, Example, done

NEXT_ID = "01a1f90f-dae8-7d85-9660-335023bb7283"
UNDER_LEASE: dict[str, Any] = {
    "lease": {"work_item_id": ITEM_ID, "epoch": 1},
    "changes": [
        {"type": "append", "kind": "payment.charged", "body": {"amount": 1250}},
        {"type": "merge_state", "patch": {"charged": True}},
        {"type": "settle", "outcome": "completed", "result": {"id": "ch_1"}},
        {"type": "enqueue", "queue": "emails", "payload": {"to": "a@example.com"}},
    ],
}
MADE: dict[str, Any] = {
    "execution_id": "order-4711", "status": "running", "sequence": 5,
    "changes": [
        {"type": "append", "first_sequence": 2, "last_sequence": 2},
        {"type": "merge_state", "first_sequence": 3, "last_sequence": 3},
        {"type": "settle", "first_sequence": 4, "last_sequence": 4, "work_item_id": ITEM_ID, "outcome": "completed"},
        {
            "type": "enqueue", "first_sequence": 5, "last_sequence": 5, "work_item_id": NEXT_ID, "created": True,
            "ready_at": AT,
        },
    ],
}  # fmt: skip
ENDING: dict[str, Any] = {
    "execution_id": "order-4712", "expected_sequence": 7,
    "changes": [{"type": "set_status", "status": "completed", "result": {"receipt": "r-99"}}],
}  # fmt: skip
ENDED: dict[str, Any] = {
    "execution_id": "order-4712", "status": "completed", "sequence": 8,
    "changes": [{"type": "set_status", "first_sequence": 8, "last_sequence": 8}],
}  # fmt: skip

EXAMPLES = [
    Example("transition", UNDER_LEASE, MADE),
    Example("transitionBatch", [UNDER_LEASE, ENDING], done(MADE, ENDED)),
]
