"""Workflows under load, and the clients that drive them: every request may be repeated, so a death needs no memory.

`order` has two activities done, sleeps, starts a child, waits for a signal, and tells the sum; `part` has one activity
done; `loop` goes on as new until it has counted down. Workers decide by what the history says, and by nothing else.
"""

import asyncio
import itertools
from collections import Counter
from typing import Any

import httpx

TASKS = {"worker_id": "w", "queues": ["flows"], "types": ["order", "part", "loop"], "max_items": 8}
ATTEMPTS = {"worker_id": "a", "queues": ["pay"], "activities": ["add"], "max_items": 8}
LEASE_MS = 1_000
WAIT_MS = 200
LOOPS = 3
BEGIN = {"workflow_type": "order", "task_queue": "flows"}
Commands = list[dict[str, Any]]


def add(seq: int) -> dict[str, Any]:
    """An activity that adds one to its input, tried again at once however often its worker dies."""
    said = {"type": "ScheduleActivity", "seq": seq, "name": "add", "task_queue": "pay", "input": seq}
    return said | {"max_attempts": 1_000, "initial_interval_ms": 0}


def decided(kind: str, history: list[Any]) -> Commands:
    """What the workflow asks for, having seen this history."""
    seen = Counter(event["kind"] for event in history)
    if seen["workflow.cancel_requested"]:
        return [{"type": "CancelWorkflow"}]
    if kind == "loop":
        left = int(history[0]["body"]["input"])
        return [
            {"type": "ContinueAsNew", "input": left - 1} if left else {"type": "CompleteWorkflow", "result": "done"}
        ]
    if not seen["activity.scheduled"]:
        return [add(1)] if kind == "part" else order()
    results = [
        event["body"]["result"] for event in history if event["kind"] in ("activity.completed", "child.completed")
    ]
    over = seen["activity.completed"] if kind == "part" else len(results) == 3 and seen["timer.fired"]
    if over and (kind == "part" or seen["signal.received"]):
        return [{"type": "CompleteWorkflow", "result": sum(results)}]
    return [] if kind == "part" else [{"type": "WaitForSignal", "name": "go"}]


def order() -> Commands:
    """The first step of `order`."""
    return [
        add(1), add(2), {"type": "ScheduleTimer", "seq": 1, "duration_ms": 20},
        {"type": "StartChildWorkflow", "seq": 1, "workflow_type": "part"},
        {"type": "RecordSideEffect", "seq": 1, "name": "dice", "value": None},
    ]  # fmt: skip


RESULTS = {"order": 2 + 3 + 2, "part": 2, "loop": "done"}
"""What each workflow tells at its end."""


class Flows:
    """The clients of a server, over all its lives; `asked` is what was to start, by the kind of workflow, `started` is
    what was acknowledged of it."""

    def __init__(self) -> None:
        self.asked: dict[str, str] = {}
        self.started: set[str] = set()
        self.cancelled: set[str] = set()
        self.acknowledged = 0
        self.resting = False
        self._numbers = itertools.count()

    async def send(self, http: httpx.AsyncClient, path: str, body: Any, *codes: str) -> Any:
        """The answer to a request, or to one that was made before; None for a refusal with one of `codes`."""
        answer = await http.post(path, json=body)
        if answer.status_code >= 500:
            raise httpx.TransportError(answer.text)
        told = answer.json()
        if answer.status_code >= 300:
            assert told["code"] in codes, f"{path} {body}: {answer.text}"
            return None
        self.acknowledged += 1
        return told

    async def starter(self, http: httpx.AsyncClient) -> None:
        """Starts workflows, one after another: tells orders to go on, and some to stop."""
        while not self.resting:
            n = next(self._numbers)
            kind = "loop" if n % 4 == 3 else "order"
            name = f"{kind}-{n}"
            self.asked[name] = kind
            await self.start(http, name)
            await self.start(http, name)
            if n % 5 == 4:
                self.cancelled.add(name)
                await self.send(http, f"/v1/executions/{name}/cancel", {}, "execution/terminal")
            await asyncio.sleep(0.005)

    async def start(self, http: httpx.AsyncClient, name: str) -> None:
        """Start a workflow, and tell an order to go on: whatever was done of it before."""
        kind = self.asked[name]
        said = BEGIN | {"workflow_type": kind, "execution_id": name, "input": LOOPS}
        await self.send(http, "/v1/executions", said)
        self.started.add(name)
        if kind == "order":
            signal = {"payload": kind, "signal_id": "once"}
            await self.send(http, f"/v1/executions/{name}/signals/go", signal, "execution/terminal")

    async def worker(self, http: httpx.AsyncClient) -> None:
        """Decides for workflows; one whose lease or whose run is over has lost its say."""
        while True:
            asked = TASKS | {"lease_ms": LEASE_MS, "wait_ms": WAIT_MS}
            for task in (await self.send(http, "/v1/workflow-tasks:claim", asked))["items"]:
                made = decided(task["workflow_type"], task["history"])
                body = {"epoch": task["epoch"], "history_sequence": task["history_sequence"], "commands": made}
                path = f"/v1/workflow-tasks/{task['task_id']}/commands"
                told = await self.send(http, path, body, "lease/stale", "lease/settled", "lease/not-held")
                if told is not None and task["epoch"] % 2:  # an answer that was lost, and asked for again
                    again = await self.send(http, path, body)
                    assert again == told, f"{path}: {told}, then {again}"

    async def hand(self, http: httpx.AsyncClient) -> None:
        """Does activities."""
        while True:
            asked = ATTEMPTS | {"lease_ms": LEASE_MS, "wait_ms": WAIT_MS}
            for item in (await self.send(http, "/v1/activities:claim", asked))["items"]:
                done = {"epoch": item["epoch"], "result": item["input"] + 1}
                path = f"/v1/activities/{item['id']}/complete"
                await self.send(http, path, done, "lease/stale", "lease/settled", "lease/not-held")

    def at_work(self, http: httpx.AsyncClient) -> list[asyncio.Task[None]]:
        """All clients, started; each works until the server goes away."""
        clients = [self.starter, self.starter, self.worker, self.worker, self.worker, self.hand, self.hand]
        return [asyncio.ensure_future(until_gone(client(http))) for client in clients]


async def until_gone(work: Any) -> None:
    """Work until the server goes away; a complaint of its own is the test's."""
    try:
        await work
    except httpx.TransportError:
        return
