"""Examples of work, leases and dead letters, for the contract."""

from typing import Any

from service.http.examples import AT, ITEM_ID, Example, done, page

OTHER_ID = "01a1f90f-dae8-7d85-9660-335023bb7283"
ENQUEUE: dict[str, Any] = {
    "queue": "emails", "payload": {"to": "a@example.com", "template": "receipt"}, "priority": 5, "delay_ms": 60_000,
    "max_attempts": 5, "retry": {"backoff": "exponential", "initial_delay_ms": 500}, "dedup_key": "receipt-4711",
}  # fmt: skip
ENQUEUED = {"id": ITEM_ID, "status": "ready", "ready_at": AT, "created": True, "sequence": None}
ERROR: dict[str, Any] = {"type": "smtp_timeout", "message": "no answer in 10 s", "details": {"host": "mx1"}}
CLAIMED = {
    "id": ITEM_ID, "execution_id": "order-4711", "node_id": "receipt", "queue": "emails", "drives": "nothing",
    "payload": {"to": "a@example.com", "template": "receipt"}, "priority": 5, "attempt": 1, "max_attempts": 5,
    "epoch": 1, "expires_at": AT + 30_000, "progress": None,
}  # fmt: skip
ITEM: dict[str, Any] = {
    "id": ITEM_ID, "execution_id": "order-4711", "node_id": "receipt", "queue": "emails", "drives": "nothing",
    "priority": 5, "ready_at": AT, "attempt": 1, "max_attempts": 5, "retry": None, "required_capabilities": [],
    "dedup_key": "receipt-4711", "concurrency_key": None, "status": "leased",
    "lease": {"worker_id": "mailer-1", "epoch": 1, "expires_at": AT + 30_000}, "progress": None, "errors": [],
    "payload": {"to": "a@example.com", "template": "receipt"}, "result": None, "created_at": AT, "settled_at": None,
}  # fmt: skip
DEAD = {
    **ITEM,
    "status": "dead",
    "attempt": 5,
    "lease": None,
    "errors": [{**ERROR, "attempt": 5, "at": AT}],
    "settled_at": AT,
}
SETTLED = {
    "id": ITEM_ID, "outcome": "completed", "status": "completed", "attempt": 1, "ready_at": None,
    "execution_id": "order-4711", "execution_status": "running", "sequence": 6,
}  # fmt: skip
RETRIED = {**SETTLED, "outcome": "retry_scheduled", "status": "delayed", "ready_at": AT + 1_000}
BURIED = {**SETTLED, "outcome": "dead_lettered", "status": "dead"}
RENEWED = {"id": ITEM_ID, "epoch": 1, "expires_at": AT + 60_000, "cancel_requested": False}
TAKEN = {"tenant_id": "acme", "id": ITEM_ID, "epoch": 1, "attempt": 1}
QUEUE = {"tenant_id": "acme", "name": "emails", "paused_at": AT, "note": "the mail server is down", "created_at": AT}
STATS = {
    "name": "emails", "ready": 12, "leased": 3, "delayed": 1, "dead": 0, "oldest_ready_ms": 840, "workers": 2,
    "at_least": [], "per_second": {"enqueued": 4.2, "claimed": 4.0, "completed": 3.9, "failed": 0.1},
    "paused_at": None, "note": None,
}  # fmt: skip

EXAMPLES = [
    Example("enqueueWork", ENQUEUE, ENQUEUED),
    Example("enqueueWorkItems", [ENQUEUE, {"queue": "emails"}], done(ENQUEUED, {**ENQUEUED, "id": OTHER_ID})),
    Example(
        "claimWork", {"worker_id": "mailer-1", "queues": ["emails*"], "max_items": 10, "wait_ms": 20_000},
        {"items": [CLAIMED]},
    ),
    Example("completeWorkItems", [{"id": ITEM_ID, "epoch": 1, "result": {"message_id": "m-1"}}], done(SETTLED)),
    Example("listWorkItems", None, page(ITEM)),
    Example("getWorkItem", None, ITEM),
    Example("renewLease", {"epoch": 1, "lease_ms": 60_000, "progress": {"sent": 40}}, RENEWED),
    Example("completeWork", {"epoch": 1, "result": {"message_id": "m-1"}}, SETTLED),
    Example("failWork", {"epoch": 1, "error": ERROR}, RETRIED),
    Example("releaseWork", {"epoch": 1, "delay_ms": 5_000}, {**RETRIED, "outcome": "released"}),
    Example("deadLetterWork", {"epoch": 1, "error": {"type": "bad_address"}}, BURIED),
    Example("renewLeases", [{"id": ITEM_ID, "epoch": 1}], done(RENEWED)),
    Example("reclaimLeases", {"limit": 100}, {"retryable": [TAKEN], "exhausted": []}),
    Example("listDeadLetters", None, page(DEAD)),
    Example("getDeadLetter", None, DEAD),
    Example(
        "requeueDeadLetter", {"payload": {"to": "b@example.com", "template": "receipt"}},
        {**SETTLED, "outcome": "requeued", "status": "ready", "attempt": 0, "ready_at": AT},
    ),
    Example(
        "redriveDeadLetters", {"queue": "emails", "error_type": "smtp_timeout", "rate_per_second": 50},
        {"count": 1_204, "job_id": "01a1f90f-dae8-7c11-9d70-2b6ad2ac01e5", "created": True},
    ),
    Example("discardDeadLetter", None, {**BURIED, "outcome": "discarded", "status": "discarded"}),
    Example("listQueues", None, page(STATS)),
    Example("pauseQueue", {"note": "the mail server is down"}, QUEUE),
    Example("resumeQueue", {"note": "it is back"}, {**QUEUE, "paused_at": None, "note": "it is back"}),
]  # fmt: skip
