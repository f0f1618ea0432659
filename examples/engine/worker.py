"""A worker: claims workflow tasks and activities, keeps their leases, replays, does, and says what came of it."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any

from workflow.client import Client, Refused
from workflow.worker import LOST, Leases

from engine.replay import Flow, Nondeterminism, Run

RUNS_KEPT, TASKS_AT_ONCE, WAIT_MS = 1_000, 10, 500


class Stopped(Exception):
    """Raised in an activity at a sign of life: nobody wants it any more."""


class GivenUp(Exception):
    """Raised by an activity that would fail at every attempt."""


class Attempt:
    """One attempt at an activity. `details` are the last that an attempt before had told."""

    def __init__(self, client: Client, item: Any) -> None:
        self.number, self.details, self.execution_id = item["attempt"], item["details"], item["execution_id"]
        self.client, self._item = client, item

    def beat(self, details: Any) -> None:
        """A sign of life; what it says is handed to the next attempt, should this one die."""
        body = {"epoch": self._item["epoch"], "details": details}
        if self.client.post(f"/v1/activities/{self._item['id']}/heartbeat", body)["cancel_requested"]:
            raise Stopped("cancelled by the workflow")


class Worker:
    """Works on some queues. `connect` gives a client; each thread has one of its own."""

    def __init__(
        self,
        connect: Callable[[], Client],
        name: str,
        queues: list[str],
        flows: Mapping[str, Flow],
        activities: Mapping[str, Callable[[Attempt, Any], Any]],
        lease_ms: int = 2_000,
    ) -> None:
        self.connect, self.flows, self.activities = connect, flows, activities
        self.runs: OrderedDict[str, Run] = OrderedDict()
        self.leases = Leases(connect(), lease_ms)
        self._asked = {"worker_id": name, "queues": queues, "lease_ms": lease_ms}

    def work(self, stop: threading.Event, hands: int = 2) -> None:
        """Until `stop` is set: one thread decides, so many do. What is under way then is still finished."""

        def forever(once: Callable[[Client, int], int]) -> None:
            client = self.connect()
            while not stop.is_set():
                once(client, WAIT_MS)
            client.close()

        with ThreadPoolExecutor(hands + 1) as threads:
            under_way = [threads.submit(forever, once) for once in (self.decide, *[self.act] * hands)]
            done = wait(under_way, return_when=FIRST_EXCEPTION).done
            stop.set()
        self.leases.close()
        for one in done:
            one.result()

    # ── workflow tasks ─────────────────────────────────────────────────────────────────────────────────────────────

    def decide(self, client: Client, wait_ms: int) -> int:
        """Claim workflow tasks, telling how far the logs are known here; submit what the workflows want next."""
        asked = self._asked | {"types": list(self.flows), "max_items": TASKS_AT_ONCE, "wait_ms": wait_ms}
        asked["since"] = {id: run.sequence for id, run in self.runs.items()}
        asked["since_at"] = {id: run.now for id, run in self.runs.items()}
        tasks = client.post("/v1/workflow-tasks:claim", asked)["items"]
        leases = [{"id": task["task_id"], "epoch": task["epoch"]} for task in tasks]
        for lease in leases:
            self.leases.take(lease)
        for task, lease in zip(tasks, leases, strict=True):
            try:
                self.settle(client, task)
            finally:
                self.leases.drop(lease)
        return len(tasks)

    def settle(self, client: Client, task: Any) -> None:
        """One task. A run is kept for its next one only once the service has taken what it said."""
        id = task["execution_id"]
        run = self.runs.pop(id, None)
        if run is None or run.sequence != task["history_after"]:  # unknown here, or remembered of another log
            run = Run(self.flows[task["workflow_type"]], task["task_queue"])
        try:
            commands = run.read(whole(client, task))
            body = {"epoch": task["epoch"], "history_sequence": run.sequence, "commands": commands}
            status = client.post(f"/v1/workflow-tasks/{task['task_id']}/commands", body)["status"]
        except Nondeterminism as error:
            print(f"{id}: {error}; its task comes back when its lease is over", flush=True)
        except Refused as refusal:
            if refusal.code not in LOST:
                raise
        else:
            if status == "running":
                self.runs[id] = run
            while len(self.runs) > RUNS_KEPT:
                self.runs.popitem(last=False)

    # ── activities ─────────────────────────────────────────────────────────────────────────────────────────────────

    def act(self, client: Client, wait_ms: int) -> int:
        """Claim an activity and do it."""
        asked = self._asked | {"activities": list(self.activities), "wait_ms": wait_ms}
        items = client.post("/v1/activities:claim", asked)["items"]
        for item in items:
            self.leases.take(item)
            try:
                verb, body = self.attempt(client, item)
                client.post(f"/v1/activities/{item['id']}/{verb}", {"epoch": item["epoch"]} | body)
            except Refused as refusal:
                if refusal.code not in LOST:
                    raise
            finally:
                self.leases.drop(item)
        return len(items)

    def attempt(self, client: Client, item: Any) -> tuple[str, dict[str, Any]]:
        """Do it: what there is to say of it, `complete` or `fail`."""
        try:
            return "complete", {"result": self.activities[item["name"]](Attempt(client, item), item["input"])}
        except Refused:
            raise
        except Exception as error:
            final = isinstance(error, Stopped | GivenUp)
            said = {"type": type(error).__name__, "message": str(error)}
            return "fail", {"error": said, "retryable": not final}


def whole(client: Client, task: Any) -> list[Any]:
    """The events of a task, those that did not fit into it read after."""
    events: list[Any] = list(task["history"])
    after, complete = task["history_sequence"], task["history_complete"]
    while not complete:
        page = client.get(f"/v1/executions/{task['execution_id']}/events", after=after, limit=1_000)
        events += page["items"]
        after = page["next_after"]
        complete = after is None
    return events
