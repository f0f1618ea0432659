"""Workers that write down what they are given and what they say, and that by chance let leases run out.

A delivery before an item's last round is failed, released or left to lapse; from its last round on it is completed, at
once or too late. Of a lapsed lease its worker speaks once more when its end has passed: whether that word counts is for
the store to say, and for `histories` to judge.
"""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

import httpx

from tests.faults.histories import Delivery, History, Word

LEASE_MS = 1_000
WAIT_MS = 50
CLAIM_MAX = 100
LATE_MS = 20
HANDED_BACK, LEFT = 0.05, 0.1
"""The part of deliveries that is failed or released, and of last deliveries that is left to lapse."""


def wall() -> int:
    """The clock of this machine, milliseconds: that of a store on it."""
    return time.time_ns() // 1_000_000


class Job:
    """Items to be completed, each in its `rounds`-th delivery or later, by the store's clock."""

    def __init__(self, ids: list[str], rounds: int, lease_ms: int = LEASE_MS, clock: Callable[[], int] = wall) -> None:
        self.ids, self.rounds, self.lease_ms, self.clock, self.open = ids, rounds, lease_ms, clock, len(ids)
        self.history = History()


class Claimant:
    """One worker."""

    def __init__(self, name: str, http: httpx.AsyncClient, job: Job) -> None:
        self.name, self.http, self.job = name, http, job
        self.chance = random.Random(name)
        self.lapsed: list[Delivery] = []

    async def run(self) -> None:
        """Work until every item is complete."""
        while self.job.open:
            done: list[Delivery] = []
            for delivery in await self.claim():
                if not self.is_last(delivery) and self.chance.random() < HANDED_BACK:
                    await self.hand_back(delivery)
                elif not self.is_last(delivery) or self.chance.random() < LEFT:
                    self.lapsed.append(delivery)
                else:
                    done.append(delivery)
            await self.say("complete", done)
            await self.speak_late()

    def is_last(self, delivery: Delivery) -> bool:
        """Whether the item may be completed."""
        return delivery.epoch >= self.job.rounds

    async def claim(self) -> list[Delivery]:
        """Some items."""
        most, lease_ms = self.chance.randint(1, CLAIM_MAX), self.job.lease_ms
        body = {"worker_id": self.name, "queues": ["q"], "max_items": most, "lease_ms": lease_ms, "wait_ms": WAIT_MS}
        asked = time.monotonic()
        items = (await self.ok("/v1/work-items:claim", body))["items"]
        when = asked, time.monotonic(), self.job.clock()
        told = [Delivery(one["id"], one["epoch"], self.name, *when, one["expires_at"]) for one in items]
        self.job.history.deliveries += told
        return told

    async def speak_late(self) -> None:
        """Of leases that have run out: complete the last ones, renew half of the others."""
        past = self.job.clock() - LATE_MS
        due = [one for one in self.lapsed if one.until <= past]
        self.lapsed = [one for one in self.lapsed if one.until > past]
        await self.say("complete", [one for one in due if self.is_last(one)])
        await self.say("renew", [one for one in due if not self.is_last(one) and self.chance.random() < 0.5])

    async def say(self, verb: str, of: list[Delivery]) -> None:
        """One word of many deliveries."""
        if not of:
            return
        path = "/v1/work-items:complete" if verb == "complete" else "/v1/leases:renew"
        extra = {"result": self.name} if verb == "complete" else {}
        asked = time.monotonic()
        told = await self.ok(path, [{"id": one.item, "epoch": one.epoch} | extra for one in of])
        for one, result in zip(of, told["results"], strict=True):
            assert "ok" in result or result["error"]["code"].startswith("lease/"), result
            self.note(verb, one, asked, result.get("ok"))

    async def hand_back(self, delivery: Delivery) -> None:
        """Fail or release one item."""
        verb, body = self.chance.choice([("fail", {"error": {"type": "tried"}}), ("release", {})])
        asked = time.monotonic()
        answer = await self.http.post(f"/v1/work-items/{delivery.item}/{verb}", json={"epoch": delivery.epoch} | body)
        assert answer.status_code in (200, 409), answer.text
        self.note(verb, delivery, asked, answer.json() if answer.status_code == 200 else None)

    def note(self, verb: str, delivery: Delivery, asked: float, told: Any) -> None:
        """Write a word down; `told` is None where it was refused."""
        until = told["expires_at"] if told and verb == "renew" else 0
        word = Word(delivery.item, delivery.epoch, self.name, verb, asked, time.monotonic(), told is not None, until)
        self.job.history.words.append(word)
        self.job.open -= verb == "complete" and told is not None

    async def ok(self, path: str, body: Any) -> Any:
        """The JSON of a request that must succeed."""
        answer = await self.http.post(path, json=body)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
        return answer.json()


async def fill(http: httpx.AsyncClient, count: int) -> list[str]:
    """Enqueue so many items, tried again at once whenever a lease is lost; their ids."""
    retry = {"initial_delay_ms": 0, "jitter": False}
    ids = [f"i{n:06}" for n in range(count)]
    for first in range(0, count, 1_000):
        bodies = [
            {"queue": "q", "id": name, "priority": n % 5, "max_attempts": 1_000, "retry": retry}
            for n, name in enumerate(ids[first : first + 1_000])
        ]
        answer = await http.post("/v1/work-items:batch", json=bodies)
        assert all("ok" in one for one in answer.json()["results"]), answer.text
    return ids


async def work(clients: list[httpx.AsyncClient], job: Job, workers: int) -> None:
    """Have a job done by so many workers, dealt out over the clients."""
    async with asyncio.TaskGroup() as group:
        for n in range(workers):
            group.create_task(Claimant(f"w{n}", clients[n % len(clients)], job).run())
