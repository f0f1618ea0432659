"""A steady mixed load in which tenants come and go, and a server whose clock runs fast, so that what is kept for hours
is forgotten within the run."""

import asyncio
import itertools
import time
from pathlib import Path
from typing import Any

import httpx

from tests.races.server import Server, http, new_tenant

STREETS, RUNS, STANDING = 4, 10, 20
LEASE_MS, SHORT_LEASE_MS = 3_600_000, 60_000
PROGRAM = """
import sys, time, functools, msgspec, structlog
from service import main
from service.settings import Settings
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
began = time.time_ns() // 1_000_000
clock = lambda: began + (time.time_ns() // 1_000_000 - began) * SPEED
main.running = functools.partial(main.running, clock=clock)
settings = msgspec.json.decode(sys.argv[1], type=Settings)
settings = msgspec.structs.replace(settings, sweep_lease_ms=settings.sweep_lease_ms * SPEED)
main.run(settings, lambda services, port: print(port, flush=True))
"""


def hurried(url: str, log: Path, speed: int) -> Server:
    """A server for which time passes `speed` times as fast; it keeps idempotency keys for an hour of it."""
    server = Server(url, log, sweep=True, sweep_interval_ms=50, idempotency_hours=1)
    server.program = PROGRAM.replace("SPEED", str(speed))
    return server


class Soak:
    """The load on one server. `pace` is the least number of seconds from one cycle of a client to its next."""

    def __init__(self, server: Server, admin: str, pace: float, cycles: int) -> None:
        self.server, self.admin, self.pace, self.cycles = server, admin, pace, cycles
        self.requests = self.tenants = 0
        self.over = False

    async def ask(self, client: httpx.AsyncClient, method: str, path: str, body: Any = None, key: str = "") -> Any:
        """The JSON of a request; a lease may have been lost meanwhile, and nothing else may be refused."""
        headers = {"idempotency-key": key} if key else {}
        answer = await client.request(method, path, json=body, headers=headers)
        self.requests += 1
        told = answer.json()
        assert answer.status_code < 300 or told["code"].startswith("lease/"), f"{method} {path}: {answer.text}"
        return told

    async def run(self) -> None:
        """All of it, until it is `over`."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.resident())
            for n in range(STREETS):
                group.create_task(self.street(f"street{n}", self.cycles * (n + 1) // STREETS))

    async def street(self, name: str, first: int) -> None:
        """Tenants one after another: each is made, used for so many cycles (the `first` for fewer, so that the streets
        are not in step), and deleted."""
        async with http(self.server.base, self.admin) as system:
            for n in itertools.count():
                owner = await new_tenant(system, f"{name}-{n}")
                async with http(self.server.base, owner) as client:
                    for cycle in range(self.cycles if n else first):
                        await self.paced(self.cycle(client, cycle))
                await self.ask(system, "DELETE", f"/v1/tenants/{name}-{n}")
                self.tenants += 1
                if self.over:
                    return

    async def paced(self, cycle: Any) -> None:
        """One cycle, and rest until the next is due."""
        began = time.monotonic()
        await cycle
        await asyncio.sleep(max(0.0, self.pace - (time.monotonic() - began)))

    async def cycle(self, client: httpx.AsyncClient, n: int) -> None:
        """A bit of everything: runs started, stepped, ended; items that fail, die and lapse; reads of all kinds."""
        retry = {"initial_delay_ms": 0, "jitter": False}
        runs = [
            {
                "workflow_id": "wf", "execution_id": f"run-{n}-{one}", "input": {"n": n}, "attributes": {"n": n},
                "start": {"queue": "q", "payload": "x" * 500, "max_attempts": 1 + one % 2, "retry": retry},
            }
            for one in range(RUNS)
        ]  # fmt: skip
        await self.ask(client, "POST", "/v1/executions:batch", runs, key=f"start-{n}")
        events = {"events": [{"kind": "said", "body": {"n": n}}] * 3}
        await self.ask(client, "POST", f"/v1/executions/run-{n}-0/events", events, key=f"said-{n}")
        await self.ask(client, "PUT", f"/v1/executions/run-{n}-0/snapshots/2")
        claim = {"worker_id": "w", "queues": ["q"], "max_items": RUNS, "lease_ms": LEASE_MS, "wait_ms": 100}
        items = (await self.ask(client, "POST", "/v1/work-items:claim", claim, key=f"claim-{n}"))["items"]
        await self.settle(client, items)
        claim |= {"lease_ms": SHORT_LEASE_MS, "max_items": 1}
        await self.ask(client, "POST", "/v1/work-items:claim", claim)
        for path in ("executions?filter=attr.n%20%3D%201", f"executions/run-{n}-0/events", "events", "dead-letters"):
            await self.ask(client, "GET", f"/v1/{path}")

    async def settle(self, client: httpx.AsyncClient, items: list[Any]) -> None:
        """Fail one item, complete one, end the executions of the others."""
        for verb, body, item in zip(("fail", "complete"), ({"error": {"type": "x"}}, {}), items, strict=False):
            await self.ask(client, "POST", f"/v1/work-items/{item['id']}/{verb}", {"epoch": item["epoch"]} | body)
        ends = [
            {
                "lease": {"work_item_id": item["id"], "epoch": item["epoch"]},
                "changes": [
                    {"type": "merge_state", "patch": {"done": True}},
                    {"type": "settle", "outcome": "completed"},
                    {"type": "set_status", "status": "completed"},
                ],
            }
            for item in items[2:]
        ]
        if ends:
            await self.ask(client, "POST", "/v1/transitions:batch", ends)

    async def resident(self) -> None:
        """A tenant that stays, whose items are claimed under keys and handed back, on and on: only keys are left of it,
        and they are forgotten."""
        async with http(self.server.base, self.admin) as system:
            owner = await new_tenant(system, "resident")
        async with http(self.server.base, owner) as client:
            items = [{"queue": "standing", "id": f"s{n}"} for n in range(STANDING)]
            await self.ask(client, "POST", "/v1/work-items:batch", items)
            for n in itertools.count():
                await self.paced(self.turn(client, n))
                if self.over:
                    return

    async def turn(self, client: httpx.AsyncClient, n: int) -> None:
        """Claim some, hand them back."""
        body = {"worker_id": "w", "queues": ["standing"], "max_items": 4, "lease_ms": LEASE_MS}
        for item in (await self.ask(client, "POST", "/v1/work-items:claim", body, key=f"turn-{n}"))["items"]:
            path = f"/v1/work-items/{item['id']}/release"
            await self.ask(client, "POST", path, {"epoch": item["epoch"]}, key=f"release-{n}-{item['id']}")
