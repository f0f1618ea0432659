"""Examples of workflow tasks and of how executions are stopped, for the contract."""

from service.http.examples import AT, ITEM_ID, Example, done

CLAIMED = {
    "task_id": ITEM_ID, "epoch": 1, "attempt": 1, "expires_at": AT + 30_000, "execution_id": "order-4711",
    "workflow_type": "order", "namespace": "main", "task_queue": "orders", "status": "running", "run_attempt": 1,
    "first_id": "order-4711", "previous_id": None, "cancel_requested_at": None, "memo": None,
    "history": [{
        "sequence": 1, "kind": "execution.started", "at": AT, "actor": "QbBKAdR4rBmcRH5J",
        "body": {"workflow_id": "order", "input": {"order": 4711}},
    }],
    "history_after": 0, "history_sequence": 1, "history_complete": True,
}  # fmt: skip
COMMANDS = {
    "epoch": 1, "history_sequence": 1,
    "commands": [
        {"type": "RecordSideEffect", "seq": 1, "name": "receipt-number", "value": "r-1"},
        {"type": "CompleteWorkflow", "result": {"charged": True}},
    ],
}  # fmt: skip
SUBMITTED = {"execution_id": "order-4711", "status": "completed", "sequence": 3, "task_id": None}
RENEWED = {"id": ITEM_ID, "epoch": 1, "expires_at": AT + 60_000, "cancel_requested": False}

EXAMPLES = [
    Example(
        "claimWorkflowTasks",
        {
            "worker_id": "orders-1", "queues": ["orders"], "types": ["order"], "wait_ms": 20_000,
            "since": {"order-4710": 12}, "since_at": {"order-4710": AT - 60_000},
        },
        {"items": [CLAIMED]},
    ),
    Example("submitCommands", COMMANDS, SUBMITTED),
    Example("submitWorkflowTasks", [{"id": ITEM_ID, **COMMANDS}], done(SUBMITTED)),
    Example("renewWorkflowTask", {"epoch": 1}, RENEWED),
    Example(
        "cancelExecution", {"reason": "the customer called", "force_after_ms": 60_000},
        {"execution_id": "order-4711", "status": "running", "sequence": 5},
    ),
    Example(
        "terminateExecution", {"reason": "runaway"},
        {"execution_id": "order-4711", "status": "terminated", "sequence": 5},
    ),
    Example(
        "completeExecution", {"result": {"receipt": "r-99"}},
        {"execution_id": "order-4711", "status": "completed", "sequence": 5},
    ),
    Example(
        "failExecution", {"error": {"type": "card_declined", "message": "the bank said no"}, "retryable": False},
        {"execution_id": "order-4711", "status": "failed", "sequence": 5},
    ),
]  # fmt: skip
