"""A worker process: claims items, keeps their leases, does a node's work, and moves the run on in one transition."""

import ctypes
import os
import signal
import threading
import time
from typing import Any, NamedTuple

from workflow.client import Client, Refused
from workflow.graph import Graph, Position

AT_ONCE = 4
WORK_SECONDS = 0.002
LOST = ("lease/stale", "lease/not-held", "lease/settled", "execution/terminal", "not-found")


class Task(NamedTuple):
    """What a worker is told: where the service is, whose work to do, and which row of `done` is its own."""

    url: str
    token: str
    name: str
    queue: str
    lease_ms: int
    ir: dict[str, Any]
    done: Any
    row: int


def main(task: Task) -> None:
    """Work until SIGTERM, or until the parent is gone."""
    stop, parent = threading.Event(), os.getppid()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    worker = Worker(task)
    while not stop.is_set() and os.getppid() == parent:
        worker.round()
    worker.leases.close()


class Leases:
    """The leases in hand, renewed in the background from a connection of their own until they are let go."""

    def __init__(self, client: Client, lease_ms: int) -> None:
        self.client, self.lease_ms = client, lease_ms
        self._held: dict[str, int] = {}
        self._changed = threading.Lock()
        self._end = threading.Event()
        threading.Thread(target=self._keep, daemon=True).start()

    def take(self, item: Any) -> None:
        """Keep an item from now on."""
        with self._changed:
            self._held[item["id"]] = item["epoch"]

    def drop(self, item: Any) -> None:
        """Let an item go: it is settled, or no longer ours."""
        with self._changed:
            self._held.pop(item["id"], None)

    def close(self) -> None:
        """Keep nothing any longer."""
        self._end.set()

    def _keep(self) -> None:
        while not self._end.wait(self.lease_ms / 3000):
            with self._changed:
                held = [{"id": id, "epoch": epoch} for id, epoch in self._held.items()]
            if held:
                self.client.post("/v1/leases:renew", held)  # what was lost meanwhile is told when it is settled


class Worker:
    """One worker's loop."""

    def __init__(self, task: Task) -> None:
        self.task, self.graph = task, Graph(task.ir)
        self.client = Client(task.url, task.token)
        self.leases = Leases(Client(task.url, task.token), task.lease_ms)

    def round(self) -> None:
        """Claim a few items and do them one after another."""
        asked = {"worker_id": self.task.name, "queues": [self.task.queue], "max_items": AT_ONCE}
        asked |= {"lease_ms": self.task.lease_ms, "wait_ms": 500}
        items = self.client.post("/v1/work-items:claim", asked)["items"]
        for item in items:
            self.leases.take(item)
        for item in items:
            self.attempt(item)

    def attempt(self, item: Any) -> None:
        """One item, as far as it goes: moved on, failed for a retry, or found to be another's by now."""
        try:
            self.move_on(item, self.work(item))
        except Failed as error:
            self.settle_failed(item, str(error))
        except Refused as refusal:
            if refusal.code not in LOST:
                raise
        finally:
            self.leases.drop(item)

    def work(self, item: Any) -> dict[str, Any]:
        """A node's work, pretended: what it merges into the state. Some orders are slow, some cards fail at first."""
        execution = self.client.get(f"/v1/executions/{item['execution_id']}")
        order, node = execution["input"] or {}, self.graph.nodes[item["node_id"]]
        kind = node["kind"]
        slow = order.get("slow") == item["node_id"]
        time.sleep(self.task.lease_ms * 1.25 / 1000 if slow else WORK_SECONDS)
        if kind.get("tool") == "card" and order.get("card_fails", 0) >= item["attempt"]:
            raise Failed("the card was declined; it may pass at the next attempt")
        if kind.get("output") == "risk":
            return {"risk": "high" if order.get("amount", 0) > 80 else "low"}
        name = kind.get("output") or kind.get("output_schema") or item["node_id"]
        return {name: {"by": self.task.name, "attempt": item["attempt"]}}

    def move_on(self, item: Any, output: dict[str, Any]) -> None:
        """One node, one transition: decided on the execution as read, and made only if it is still so.

        Two branches that end at once would both miss that they are the last: `expected_sequence` lets one of them win
        and the other read again.
        """
        while True:
            execution = self.client.get(f"/v1/executions/{item['execution_id']}")
            state = execution["state"] | output
            before: Position = state.get("_run") or {"running": [item["node_id"]], "waiting": []}
            after, enter = self.graph.advance(before, item["node_id"], self.graph.targets(item["node_id"], state))
            body = self.transition(item, output, after, enter, execution["sequence"])
            try:
                self.client.post(f"/v1/executions/{item['execution_id']}/transitions", body)
            except Refused as refusal:
                if refusal.code != "sequence/mismatch":
                    raise
            else:
                self.task.done[self.task.row] += 1
                return

    def transition(
        self, item: Any, output: dict[str, Any], after: Position, enter: list[str], sequence: int
    ) -> dict[str, Any]:
        """The changes of one node: event, state, what comes next, the item settled, at the end the status."""
        changes: list[dict[str, Any]] = [
            {"type": "append", "kind": "node.completed", "node_id": item["node_id"], "body": {"next": enter}},
            {"type": "merge_state", "patch": output | {"_run": after}},
        ]
        for node in enter:
            changes.append({"type": "enqueue", "queue": self.task.queue, "node_id": node} | self.graph.attempts(node))
        changes.append({"type": "settle", "outcome": "completed", "result": output})
        if not after["running"]:
            changes.append({"type": "set_status", "status": "completed", "result": {"last": item["node_id"]}})
        lease = {"work_item_id": item["id"], "epoch": item["epoch"]}
        return {"expected_sequence": sequence, "lease": lease, "changes": changes}

    def settle_failed(self, item: Any, message: str) -> None:
        """Hand an attempt back as failed; the service retries it by its policy."""
        error = {"type": "tool_failed", "message": message}
        self.client.post(f"/v1/work-items/{item['id']}/fail", {"epoch": item["epoch"], "error": error})


class Failed(Exception):
    """A node's work did not succeed this time."""


def counters(rows: int) -> Any:
    """A row for each worker to count its transitions in; without a lock, which a killed worker might hold for ever."""
    from multiprocessing.sharedctypes import RawArray

    return RawArray(ctypes.c_uint64, rows)
