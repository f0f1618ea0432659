"""What clients were told, and what they could not be told.

Every request that changes something can be repeated: it has a chosen id, an expected sequence, a lease or an
Idempotency-Key. A request whose answer never came is kept as it was, and sent again once the server is back; then it is
known to have had its effect, before or now, and what the store holds must be exactly what the ledger holds.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import httpx


class Gone(Exception):
    """The server went away before it answered."""


class Doubt:
    """A request without an answer."""

    def __init__(self, method: str, path: str, body: Any, key: str | None) -> None:
        self.method, self.path, self.body, self.key = method, path, body, key


class Ledger:
    """All that was acknowledged, over every life of the server. Each entry of a batch is a write of its own."""

    def __init__(self) -> None:
        self.acknowledged = 0
        self.doubts: dict[int, Doubt] = {}
        self.executions: dict[str, Any] = {}
        """Execution → its input."""
        self.logs: dict[str, list[Any]] = {}
        """Execution → bodies of its `said` events, in order."""
        self.items: dict[str, str] = {}
        """Item → `ready`, `leased` or `completed`."""
        self.held: dict[str, Any] = {}
        """Items claimed and not yet completed, as they were delivered."""
        self.last_executions: deque[str] = deque(maxlen=8)
        self.last_items: deque[str] = deque(maxlen=16)
        """What was acknowledged last: the first to look at after a kill."""
        self._goal, self._reached = 0, asyncio.Event()

    async def more(self, count: int) -> None:
        """Wait until so many more writes are acknowledged."""
        self._goal = self.acknowledged + count
        self._reached.clear()
        await self._reached.wait()

    async def send(self, http: httpx.AsyncClient, method: str, path: str, body: Any, key: str | None = None) -> Any:
        """Send a change; its JSON once it is acknowledged and written down. Raises `Gone` when no answer came."""
        doubt = Doubt(method, path, body, key)
        self.doubts[id(doubt)] = doubt
        headers = {} if key is None else {"idempotency-key": key}
        try:
            answer = await http.request(method, path, json=body, headers=headers)
        except httpx.TransportError:
            raise Gone from None
        if answer.status_code >= 500:
            raise Gone
        assert answer.status_code < 300, f"{method} {path} {body}: {answer.status_code} {answer.text}"
        del self.doubts[id(doubt)]
        self.note(doubt, answer.json())
        return answer.json()

    async def resolve(self, http: httpx.AsyncClient) -> int:
        """Repeat every request that is in doubt; how many had had their effect before, as far as the answers say."""
        happened = 0
        for doubt in list(self.doubts.values()):
            headers = {} if doubt.key is None else {"idempotency-key": doubt.key}
            answer = await http.request(doubt.method, doubt.path, json=doubt.body, headers=headers)
            happened += had_happened(doubt, answer)
            del self.doubts[id(doubt)]
            self.note(doubt, answer.json())
        return happened

    def note(self, doubt: Doubt, told: Any) -> None:
        """Write down what an acknowledged request means for the store."""
        self.note_bodies(doubt.path, doubt.body, told)
        if self._goal <= self.acknowledged:
            self._reached.set()

    def note_bodies(self, path: str, body: Any, told: Any) -> None:
        """Write down one change, or each of a batch."""
        if path in self.of_batches():
            for one, result in zip(body, told["results"], strict=True):
                assert "ok" in result, f"{path} {one}: {result}"
                self.acknowledged += 1
                self.of_batches()[path](one)
            return
        self.acknowledged += 1
        if path == "/v1/executions":
            self.started(body)
        elif path == "/v1/work-items":
            self.enqueued(body)
        elif path == "/v1/work-items:claim":
            self.delivered(told["items"])
        elif path.endswith("/events"):
            self.said(path.split("/")[3], [event["body"] for event in body["events"]])
        elif path.endswith("/complete"):
            self.settled(path.split("/")[3])
        elif path.endswith("/transitions"):
            self.moved(body)

    def of_batches(self) -> dict[str, Callable[[Any], None]]:
        """What each entry of a batch means."""
        return {
            "/v1/executions:batch": self.started,
            "/v1/work-items:batch": self.enqueued,
            "/v1/work-items:complete": lambda one: self.settled(one["id"]),
            "/v1/transitions:batch": self.moved,
        }

    def started(self, body: Any) -> None:
        """An execution is there, perhaps with its first item."""
        self.executions[body["execution_id"]] = body["input"]
        self.said(body["execution_id"], [])
        if "start" in body:
            self.enqueued(body["start"])

    def enqueued(self, body: Any) -> None:
        """An item is there. It may have been claimed before its own enqueue was answered."""
        self.items.setdefault(body["id"], "ready")
        self.last_items.append(body["id"])

    def delivered(self, items: list[Any]) -> None:
        """Items are leased, each for the first and only time."""
        for item in items:
            assert self.items.get(item["id"], "ready") == "ready", f"delivered twice: {item}"
            assert item["epoch"] == 1, item
            self.items[item["id"]] = "leased"
            self.held[item["id"]] = item
            self.last_items.append(item["id"])

    def said(self, execution: str, bodies: list[Any]) -> None:
        """Events stand in a log."""
        self.logs.setdefault(execution, []).extend(bodies)
        self.last_executions.append(execution)

    def settled(self, item: str) -> None:
        """An item is completed."""
        self.items[item] = "completed"
        self.held.pop(item, None)
        self.last_items.append(item)

    def moved(self, body: Any) -> None:
        """A transition settled its item, said something and enqueued what comes next: all three."""
        item = body["lease"]["work_item_id"]
        execution = self.held[item]["execution_id"]
        self.settled(item)
        for change in body["changes"]:
            if change["type"] == "append":
                self.said(execution, [change["body"]])
            elif change["type"] == "enqueue":
                self.enqueued(change)


def had_happened(doubt: Doubt, answer: httpx.Response) -> bool:
    """Whether the answer to a repeated request says that an earlier sending had its effect; never a refusal."""
    told = answer.json()
    if told.get("code") == "sequence/mismatch":  # its own earlier sending was the one
        assert told["current_sequence"] == doubt.body["expected_sequence"] + len(doubt.body["events"]), told
        return True
    assert answer.status_code < 300, f"{doubt.method} {doubt.path}: {answer.status_code} {answer.text}"
    entries = [entry.get("ok", {}) for entry in told.get("results", [{"ok": told}])]
    return any(entry.get("created") is False for entry in entries) or "idempotent-replayed" in answer.headers
