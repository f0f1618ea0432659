"""What clients were told, and what they could not be told.

Every request that changes something can be repeated: it has a chosen id, an expected sequence, a lease or an
Idempotency-Key. A request whose answer never came is kept as it was, and sent again once the server is back; then it is
known to have had its effect, before or now, and what the store holds must be exactly what the ledger holds.
"""

from typing import Any

import httpx


class Gone(Exception):
    """The server went away before it answered."""


class Doubt:
    """A request without an answer."""

    def __init__(self, method: str, path: str, body: Any, key: str | None) -> None:
        self.method, self.path, self.body, self.key = method, path, body, key


class Ledger:
    """All that was acknowledged, over every life of the server."""

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
        """Repeat every request that is in doubt; how many had had their effect before."""
        happened = 0
        for doubt in list(self.doubts.values()):
            headers = {} if doubt.key is None else {"idempotency-key": doubt.key}
            answer = await http.request(doubt.method, doubt.path, json=doubt.body, headers=headers)
            told = answer.json()
            if told.get("code") == "sequence/mismatch":  # its own first sending was the one
                assert told["current_sequence"] == doubt.body["expected_sequence"] + len(doubt.body["events"]), told
                happened += 1
            else:
                assert answer.status_code < 300, f"{doubt.method} {doubt.path}: {answer.status_code} {answer.text}"
                happened += told.get("created") is False or "idempotent-replayed" in answer.headers
            del self.doubts[id(doubt)]
            self.note(doubt, told)
        return happened

    def note(self, doubt: Doubt, told: Any) -> None:
        """Write down what an acknowledged request means for the store."""
        self.acknowledged += 1
        path, body = doubt.path, doubt.body
        if path == "/v1/executions":
            self.executions[body["execution_id"]] = body["input"]
            self.logs.setdefault(body["execution_id"], [])
            if "start" in body:
                self.items[body["start"]["id"]] = "ready"
        elif path == "/v1/work-items":
            self.items[body["id"]] = "ready"
        elif path == "/v1/work-items:claim":
            for item in told["items"]:
                assert self.items.get(item["id"], "ready") == "ready", f"delivered twice: {item}"
                assert item["epoch"] == 1, item
                self.items[item["id"]] = "leased"
                self.held[item["id"]] = item
        elif path.endswith("/events"):
            self.logs[path.split("/")[3]] += [event["body"] for event in body["events"]]
        elif path.endswith("/complete"):
            self.settle(path.split("/")[3])
        elif path.endswith("/transitions"):
            self.moved(path.split("/")[3], body)

    def settle(self, item: str) -> None:
        """An item is completed."""
        self.items[item] = "completed"
        self.held.pop(item, None)

    def moved(self, execution: str, body: Any) -> None:
        """A transition settled its item, said something and enqueued what comes next: all three."""
        self.settle(body["lease"]["work_item_id"])
        for change in body["changes"]:
            if change["type"] == "append":
                self.logs[execution].append(change["body"])
            elif change["type"] == "enqueue":
                self.items.setdefault(change["id"], "ready")
