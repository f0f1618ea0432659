"""Clients that never rest: each does one kind of thing until the server goes away."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from tests.faults.ledger import Gone, Ledger

Client = Callable[[httpx.AsyncClient, Ledger, str], Awaitable[None]]
LEASE_MS = 3_600_000
MANY = 20


def start(run: str, queue: str, item: str, told: Any) -> dict[str, Any]:
    """An execution with its first item."""
    return {"workflow_id": "wf", "execution_id": run, "input": told, "start": {"queue": queue, "id": item}}


async def starter(http: httpx.AsyncClient, ledger: Ledger, name: str) -> None:
    """Starts executions, each with its first item."""
    for n in itertools.count():
        run = f"run-{name}-{n}"
        await ledger.send(http, "POST", "/v1/executions", start(run, "work", f"first-{run}", {"n": n}))


async def starters(http: httpx.AsyncClient, ledger: Ledger, name: str) -> None:
    """Starts executions, many at a time."""
    for n in itertools.count():
        runs = [f"run-{name}-{n}-{one}" for one in range(MANY)]
        await ledger.send(
            http, "POST", "/v1/executions:batch", [start(run, "work", f"first-{run}", {"n": n}) for run in runs]
        )


async def appender(http: httpx.AsyncClient, ledger: Ledger, name: str) -> None:
    """Appends to one log, always from the sequence that it knows."""
    run, at = f"log-{name}", 1
    await ledger.send(http, "POST", "/v1/executions", {"workflow_id": "wf", "execution_id": run, "input": None})
    while True:
        events = [{"kind": "said", "body": at + more} for more in range(1 + at % 3)]
        await ledger.send(http, "POST", f"/v1/executions/{run}/events", {"events": events, "expected_sequence": at})
        at += len(events)


def loose(name: str, n: int) -> dict[str, Any]:
    """An item of no execution."""
    return {"queue": "work", "id": f"loose-{name}-{n}", "payload": n, "priority": n % 3}


async def enqueuer(http: httpx.AsyncClient, ledger: Ledger, name: str) -> None:
    """Enqueues items of no execution."""
    for n in itertools.count():
        await ledger.send(http, "POST", "/v1/work-items", loose(name, n))


async def enqueuers(http: httpx.AsyncClient, ledger: Ledger, name: str) -> None:
    """Enqueues items, many at a time."""
    for n in itertools.count(0, MANY):
        await ledger.send(http, "POST", "/v1/work-items:batch", [loose(name, n + one) for one in range(MANY)])


async def claimed(
    http: httpx.AsyncClient, ledger: Ledger, name: str, queue: str, most: int, n: int
) -> list[dict[str, Any]]:
    """The items of a client's claim number `n`, which can be repeated."""
    body = {"worker_id": name, "queues": [queue], "max_items": most, "lease_ms": LEASE_MS}
    told = await ledger.send(http, "POST", "/v1/work-items:claim", body, key=f"claim-{name}-{n}")
    return list(told["items"])


async def worker(http: httpx.AsyncClient, ledger: Ledger, name: str) -> None:
    """Claims a few items and completes them."""
    for n in itertools.count():
        for item in await claimed(http, ledger, name, "work", 3, n):
            done = {"epoch": item["epoch"], "result": item["id"]}
            await ledger.send(http, "POST", f"/v1/work-items/{item['id']}/complete", done)


async def workers(http: httpx.AsyncClient, ledger: Ledger, name: str) -> None:
    """Claims many items and completes them at once."""
    for n in itertools.count():
        items = await claimed(http, ledger, name, "work", 2 * MANY, n)
        done = [{"id": item["id"], "epoch": item["epoch"], "result": item["id"]} for item in items]
        if done:
            await ledger.send(http, "POST", "/v1/work-items:complete", done)


def step(item: dict[str, Any], n: int) -> dict[str, Any]:
    """The transition that settles an item, says so, and enqueues the next of its execution."""
    changes = [
        {"type": "settle", "outcome": "completed", "result": item["id"]},
        {"type": "append", "kind": "said", "body": n},
        {"type": "append_state", "path": "/done", "value": n},
        {"type": "enqueue", "queue": item["queue"], "id": f"{item['execution_id']}-{n + 1}"},
    ]
    return {"lease": {"work_item_id": item["id"], "epoch": item["epoch"]}, "changes": changes}


async def stepper(http: httpx.AsyncClient, ledger: Ledger, name: str) -> None:
    """Drives one execution step by step."""
    run, queue = f"chain-{name}", f"steps-{name}"
    await ledger.send(http, "POST", "/v1/executions", start(run, queue, f"{run}-0", None))
    for n in itertools.count():
        [item] = await claimed(http, ledger, name, queue, 1, n)
        await ledger.send(http, "POST", f"/v1/executions/{run}/transitions", step(item, n))


async def steppers(http: httpx.AsyncClient, ledger: Ledger, name: str) -> None:
    """Drives many executions at once, all by one step."""
    queue, runs = f"steps-{name}", [f"chain-{name}-{one}" for one in range(MANY)]
    await ledger.send(http, "POST", "/v1/executions:batch", [start(run, queue, f"{run}-0", None) for run in runs])
    for n in itertools.count():
        items = await claimed(http, ledger, name, queue, MANY, n)
        assert len(items) == MANY, [item["id"] for item in items]
        await ledger.send(http, "POST", "/v1/transitions:batch", [step(item, n) for item in items])


CLIENTS: list[Client] = [
    starter, appender, enqueuer, worker, stepper, appender, worker, stepper, starters, enqueuers, workers, steppers,
]  # fmt: skip


async def until_gone(client: Client, http: httpx.AsyncClient, ledger: Ledger, name: str) -> None:
    """Run a client until the server goes away; its own complaints are the test's."""
    try:
        await client(http, ledger, name)
    except Gone:
        return


def loaded(http: httpx.AsyncClient, ledger: Ledger, round_: int) -> list[asyncio.Task[Any]]:
    """All clients, started."""
    return [
        asyncio.ensure_future(until_gone(client, http, ledger, f"r{round_}c{n}")) for n, client in enumerate(CLIENTS)
    ]
