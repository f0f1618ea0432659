"""Examples of activities, for the contract."""

from service.http.examples import AT, ITEM_ID, Example, done

ASKED = {
    "seq": 2, "name": "charge", "task_queue": "payments", "input": {"amount": 4200}, "max_attempts": 5,
    "non_retryable": ["card_declined"], "start_to_close_ms": 60_000, "heartbeat_timeout_ms": 10_000,
}  # fmt: skip
SCHEDULED = {
    "id": ITEM_ID, "execution_id": "order-4711", "seq": 2, "name": "charge", "status": "open", "created": True,
}  # fmt: skip
CLAIMED = {
    "id": ITEM_ID, "execution_id": "order-4711", "seq": 2, "name": "charge", "task_queue": "payments",
    "input": {"amount": 4200}, "attempt": 2, "max_attempts": 5, "epoch": 2, "expires_at": AT + 30_000,
    "details": {"sent": True},
}  # fmt: skip
ERROR = {"type": "gateway_down", "message": "no answer in 10 s"}
ACTIVITY = {
    "id": ITEM_ID, "execution_id": "order-4711", "seq": 2, "name": "charge", "task_queue": "payments",
    "status": "leased", "ready_at": AT, "attempt": 2, "max_attempts": 5,
    "lease": {"worker_id": "payments-1", "epoch": 2, "expires_at": AT + 30_000}, "details": {"sent": True},
    "errors": [{**ERROR, "attempt": 1, "at": AT}], "input": {"amount": 4200}, "result": None,
    "cancel_requested": False, "created_at": AT, "settled_at": None,
}  # fmt: skip
SETTLED = {
    "id": ITEM_ID, "outcome": "completed", "status": "completed", "attempt": 2, "ready_at": None,
    "execution_id": "order-4711", "execution_status": "running", "sequence": 3,
}  # fmt: skip

EXAMPLES = [
    Example("scheduleActivity", ASKED, SCHEDULED),
    Example(
        "claimActivities",
        {"worker_id": "payments-1", "queues": ["payments"], "activities": ["charge", "refund"], "wait_ms": 20_000},
        {"items": [CLAIMED]},
    ),
    Example("getActivity", None, ACTIVITY),
    Example("completeActivity", {"epoch": 2, "result": {"receipt": "r-1"}}, SETTLED),
    Example("completeActivities", [{"id": ITEM_ID, "epoch": 2, "result": {"receipt": "r-1"}}], done(SETTLED)),
    Example(
        "failActivity", {"epoch": 2, "error": ERROR},
        {**SETTLED, "outcome": "retry_scheduled", "status": "ready", "ready_at": AT + 2_000, "sequence": 2},
    ),
    Example(
        "heartbeatActivity", {"epoch": 2, "details": {"sent": True}},
        {"id": ITEM_ID, "epoch": 2, "expires_at": AT + 60_000, "cancel_requested": False},
    ),
]  # fmt: skip
