"""What is started, what people answer, and what must come of it."""

from typing import Any, NamedTuple

from workflow.client import Client

PART_SECONDS = 0.7


class Case(NamedTuple):
    """An execution: its workflow, its input, what people answer; and its result, its status, and how often each of its
    activities must have been done, as the logs have it."""

    flow: str
    input: Any
    result: Any
    done: dict[str, int]
    answer: bool | None = None
    status: str = "completed"


SHIPPED = {"done": ["reserve 1", "charge 1", "ship 1"]}
THREE = {"reserve": 1, "charge": 1, "ship": 1}
UNDONE = {"undone": ["no charge 1", "no reserve 1"], "because": "GivenUp"}
HALF = {"reserve": 1, "charge": 1, "refund": 1, "release": 1}
PATIENT, HASTY = {"whom": "the treasurer", "patience_ms": 600_000}, {"whom": "nobody", "patience_ms": 300}
ROUNDS = {"round": 0, "last": 8, "rounds_a_run": 3, "every_ms": 20, "total": 0}


def cases(slow: bool, width: int) -> list[Case]:
    """Each workflow with all its ways out; `slow` has an order that takes longer than a lease, `width` is how many
    activities fan out."""
    parts = {"parts": 4, "part_seconds": PART_SECONDS} if slow else {"parts": 2}
    return [
        Case("order", {"number": 1} | parts, SHIPPED, THREE),
        Case("order", {"number": 1, "card_fails": 2}, SHIPPED, THREE),
        Case("order", {"number": 1, "heavy": True}, UNDONE, HALF),
        Case("order", {"number": 1, "cancelled": True}, None, HALF, status="cancelled"),
        Case("squares", width, sum(number * number for number in range(width)), {"square": width}),
        Case("approval", PATIENT, "approved", {"ask": 1}, answer=True),
        Case("approval", PATIENT, "refused", {"ask": 1}, answer=False),
        Case("approval", HASTY, "nobody answered", {"ask": 1}),
        Case("rounds", ROUNDS, sum(number % 7 for number in range(8)), {"measure": 8}),
        Case("tree", {"width": 2, "depth": 2}, 2 * 2 * 2 * 2, {"square": 4}),
    ]


def start(client: Client, case: Case, id: str, queue: str) -> str:
    """Start it, and answer what it will ask; a repeat changes nothing."""
    said = {"workflow_type": case.flow, "execution_id": id, "task_queue": queue, "input": case.input}
    client.post("/v1/executions", said)
    if case.answer is not None:
        client.post(f"/v1/executions/{id}/signals/answer", {"payload": case.answer, "signal_id": "the answer"})
    return id
