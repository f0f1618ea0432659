"""Clients that never rest: each does one kind of thing until the server goes away."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from tests.faults.ledger import Gone, Ledger

Client = Callable[[httpx.AsyncClient, Ledger, str], Awaitable[None]]


async def starter(http: httpx.AsyncClient, ledger: Ledger, name: str) -> None:
    """Starts executions, each with its first item."""
    for n in range(1_000_000):
        run = f"run-{name}-{n}"
        body = {
            "workflow_id": "wf",
            "execution_id": run,
            "input": {"n": n},
            "start": {"queue": "work", "id": f"first-{run}"},
        }
        await ledger.send(http, "POST", "/v1/executions", body)


async def appender(http: httpx.AsyncClient, ledger: Ledger, name: str) -> None:
    """Appends to one log, always from the sequence that it knows."""
    run, at = f"log-{name}", 1
    await ledger.send(http, "POST", "/v1/executions", {"workflow_id": "wf", "execution_id": run, "input": None})
    while True:
        events = [{"kind": "said", "body": at + more} for more in range(1 + at % 3)]
        await ledger.send(http, "POST", f"/v1/executions/{run}/events", {"events": events, "expected_sequence": at})
        at += len(events)


async def enqueuer(http: httpx.AsyncClient, ledger: Ledger, name: str) -> None:
    """Enqueues items of no execution."""
    for n in range(1_000_000):
        body = {"queue": "work", "id": f"loose-{name}-{n}", "payload": n, "priority": n % 3}
        await ledger.send(http, "POST", "/v1/work-items", body)


async def worker(http: httpx.AsyncClient, ledger: Ledger, name: str) -> None:
    """Claims a few items and completes them."""
    for n in range(1_000_000):
        body = {"worker_id": name, "queues": ["work"], "max_items": 3, "lease_ms": 3_600_000}
        told = await ledger.send(http, "POST", "/v1/work-items:claim", body, key=f"claim-{name}-{n}")
        for item in told["items"]:
            done = {"epoch": item["epoch"], "result": item["id"]}
            await ledger.send(http, "POST", f"/v1/work-items/{item['id']}/complete", done)


async def stepper(http: httpx.AsyncClient, ledger: Ledger, name: str) -> None:
    """Drives one execution step by step: each transition settles an item, says so, and enqueues the next."""
    run, queue = f"chain-{name}", f"steps-{name}"
    first = {"queue": queue, "id": f"step-{name}-0"}
    await ledger.send(
        http, "POST", "/v1/executions", {"workflow_id": "wf", "execution_id": run, "input": None, "start": first}
    )
    for n in range(1_000_000):
        body = {"worker_id": name, "queues": [queue], "lease_ms": 3_600_000}
        [item] = (await ledger.send(http, "POST", "/v1/work-items:claim", body, key=f"step-{name}-{n}"))["items"]
        changes = [
            {"type": "settle", "outcome": "completed", "result": item["id"]},
            {"type": "append", "kind": "said", "body": n},
            {"type": "append_state", "path": "/done", "value": n},
            {"type": "enqueue", "queue": queue, "id": f"step-{name}-{n + 1}"},
        ]
        moved = {"lease": {"work_item_id": item["id"], "epoch": item["epoch"]}, "changes": changes}
        await ledger.send(http, "POST", f"/v1/executions/{run}/transitions", moved)


CLIENTS: list[Client] = [starter, appender, enqueuer, worker, stepper, appender, worker, stepper]


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
