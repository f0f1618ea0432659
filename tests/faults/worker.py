"""A worker in a process of its own, to be stopped and killed. Arguments: URL, token, what it does, its name, a queue.

It says a line of JSON for everything it is told. `toil` claims and completes on and on. `hold` claims one item, keeps
its lease alive until a line comes in, and then says of it whatever a holder can say.
"""

import json
import sys
import threading
import time
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

LEASE_MS = 1_000
BEAT_SECONDS = 0.2


def say(line: Any) -> None:
    """Tell whoever listens."""
    print(json.dumps(line), flush=True)


class Api:
    """The service, as this worker sees it."""

    def __init__(self, base: str, token: str) -> None:
        self.base, self.headers = base, {"authorization": f"Bearer {token}", "content-type": "application/json"}

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        """Status and JSON of an answer."""
        request = Request(self.base + path, json.dumps(body).encode(), self.headers)
        try:
            with urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except HTTPError as refusal:
            with refusal:
                return refusal.code, json.load(refusal)

    def claim(self, name: str, queue: str, most: int) -> list[Any]:
        """Claim, and wait for something to claim."""
        body = {"worker_id": name, "queues": [queue], "max_items": most, "lease_ms": LEASE_MS, "wait_ms": 10_000}
        return list(self.post("/v1/work-items:claim", body)[1]["items"])


def toil(api: Api, name: str, queue: str) -> None:
    """Claim a few, complete each; say what was delivered and what was answered, and when."""
    while True:
        asked = time.monotonic()
        items = api.claim(name, queue, 5)
        when = [asked, time.monotonic(), time.time_ns() // 1_000_000]
        say({"deliveries": [[one["id"], one["epoch"], name, *when, one["expires_at"]] for one in items]})
        for one in items:
            asked = time.monotonic()
            status, _ = api.post(f"/v1/work-items/{one['id']}/complete", {"epoch": one["epoch"], "result": name})
            say({"word": [one["id"], one["epoch"], name, "complete", asked, time.monotonic(), status == 200]})


def hold(api: Api, name: str, queue: str) -> None:
    """Claim one item, hold on to it, and then say everything: the last to know that it was lost."""
    [item] = api.claim(name, queue, 1)
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT_SECONDS):
            api.post(f"/v1/work-items/{item['id']}/renew", {"epoch": item["epoch"], "lease_ms": LEASE_MS})

    beats = threading.Thread(target=beat)
    beats.start()
    say(item)
    sys.stdin.readline()
    over.set()
    beats.join()
    say([[verb, *refusal(api.post(path, body))] for verb, path, body in words(item)])


def words(item: Any) -> list[tuple[str, str, Any]]:
    """Everything that a holder can say: the verb, where, and what."""
    at, fence, error = f"/v1/work-items/{item['id']}", {"epoch": item["epoch"]}, {"error": {"type": "late"}}
    moved = {
        "lease": {"work_item_id": item["id"], **fence},
        "changes": [{"type": "append", "kind": "said", "body": 1}, {"type": "settle", "outcome": "completed"}],
    }
    return [
        ("renew", f"{at}/renew", fence),
        ("complete", f"{at}/complete", fence | {"result": "late"}),
        ("fail", f"{at}/fail", fence | error),
        ("release", f"{at}/release", fence),
        ("dead-letter", f"{at}/dead-letter", fence | error),
        ("transition", f"/v1/executions/{item['execution_id']}/transitions", moved),
    ]


def refusal(answer: tuple[int, Any]) -> list[Any]:
    """Status and code."""
    return [answer[0], answer[1].get("code")]


if __name__ == "__main__":
    _, base, token, does, name, queue = sys.argv
    {"toil": toil, "hold": hold}[does](Api(base, token), name, queue)
