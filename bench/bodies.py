"""What the cases send: bodies of a plausible size, the same in every run."""

from typing import Any

QUEUE = "bench"
LEASE_MS = 3_600_000  # no lease runs out while a pass lasts
INPUT = {"customer": "c-123456", "amount": 12345, "items": ["a" * 40, "b" * 40], "note": "x" * 60}
RESULT = {"ok": True, "value": "y" * 80}
EVENT = {"node": "charge", "took_ms": 1834, "detail": "z" * 80}

EXECUTIONS = "/v1/executions"
ITEMS = "/v1/work-items"
CLAIM = "/v1/work-items:claim"
TASKS, CLAIM_TASK = "/v1/workflow-tasks", "/v1/workflow-tasks:claim"
ACTIVITIES, CLAIM_ACTIVITY = "/v1/activities", "/v1/activities:claim"


def start(queue: str = QUEUE) -> dict[str, Any]:
    """An execution with its first work item."""
    return {"workflow_id": "order", "input": INPUT, "start": {"queue": queue, "payload": INPUT}}


def item(queue: str = QUEUE) -> dict[str, Any]:
    """A work item of its own."""
    return {"queue": queue, "payload": INPUT}


def claim(queue: str = QUEUE, most: int = 1, wait_ms: int = 0) -> dict[str, Any]:
    """A claim of up to `most` items."""
    return {"worker_id": "w1", "queues": [queue], "max_items": most, "lease_ms": LEASE_MS, "wait_ms": wait_ms}


def complete(epoch: int) -> dict[str, Any]:
    """A settled item."""
    return {"epoch": epoch, "result": RESULT}


def append() -> dict[str, Any]:
    """One event."""
    return {"events": [{"kind": "node.progress", "body": EVENT}]}


def transition(item_id: str, epoch: int, *, light: bool = False) -> dict[str, Any]:
    """Settle and append; unless `light`, also write state and enqueue what comes next."""
    changes: list[dict[str, Any]] = [
        {"type": "settle", "outcome": "completed", "result": RESULT},
        {"type": "append", "kind": "node.completed", "body": EVENT},
    ]
    if not light:
        changes += [
            {"type": "merge_state", "patch": {"charge": {"status": "done", "amount": 12345}, "step": 2}},
            {"type": "enqueue", "queue": "next", "node_id": "ship", "payload": INPUT},
        ]
    return {"lease": {"work_item_id": item_id, "epoch": epoch}, "changes": changes}


def end(item_id: str, epoch: int) -> dict[str, Any]:
    """The only step of a workflow: settle, and end the execution with a result."""
    changes = [
        {"type": "settle", "outcome": "completed", "result": RESULT},
        {"type": "set_status", "status": "completed", "result": RESULT},
    ]
    return {"lease": {"work_item_id": item_id, "epoch": epoch}, "changes": changes}


def run(queue: str = QUEUE) -> dict[str, Any]:
    """An execution that workflow code drives."""
    return {"workflow_type": "order", "task_queue": queue, "input": INPUT}


def claim_task(queue: str = QUEUE, most: int = 1, **more: Any) -> dict[str, Any]:
    """A claim of up to `most` workflow tasks."""
    return {"worker_id": "w1", "queues": [queue], "types": ["order"], "max_items": most, "lease_ms": LEASE_MS} | more


def claim_activity(queue: str = QUEUE, most: int = 1) -> dict[str, Any]:
    """A claim of up to `most` activities."""
    said = {"worker_id": "w1", "queues": [queue], "activities": ["charge"], "max_items": most}
    return said | {"lease_ms": LEASE_MS}


def commands(epoch: int, seen: int, *made: dict[str, Any]) -> dict[str, Any]:
    """A submission that has seen so much of the log."""
    return {"epoch": epoch, "history_sequence": seen, "commands": list(made)}


def activity(queue: str = QUEUE) -> dict[str, Any]:
    """The command that has an activity done."""
    return {"type": "ScheduleActivity", "seq": 1, "name": "charge", "task_queue": queue, "input": INPUT}


DONE = {"type": "CompleteWorkflow", "result": RESULT}


def timer(seq: int, fire_at: int) -> dict[str, Any]:
    """The command that sets a timer; milliseconds since the epoch."""
    return {"type": "ScheduleTimer", "seq": seq, "fire_at": fire_at}
