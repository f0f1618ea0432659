"""Many workers on one queue: whatever lapses, is handed back or comes late, an item has one holder at a time."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from service.main import running
from service.tokens.bootstrap import bootstrap
from tests.conftest import Clock, Service, settings_for
from tests.faults.audit import every
from tests.faults.claimants import Job, fill, work
from tests.faults.evidence import record
from tests.faults.histories import check, whole
from tests.faults.size import size
from tests.races.server import http, new_tenant, prepared, serving_process

WORKERS = 64
TICK_MS = 100


async def hold(client: httpx.AsyncClient, job: Job) -> None:
    """The history holds, every item was completed, and the store says of each what its worker was told."""
    check(job.history)
    whole(job.ids, job.history)
    assert len(job.history.deliveries) >= job.rounds * len(job.ids)
    for verb in ("renew", "complete"):
        assert job.history.count(verb, accepted=False), f"no late {verb} was refused: nothing was put to the test"
    completed = {word.item: word.worker for word in job.history.words if word.verb == "complete" and word.accepted}
    items = await every(client, "/v1/work-items")
    assert {one["id"]: (one["status"], one["result"]) for one in items} == {
        item: ("completed", worker) for item, worker in completed.items()
    }


@contextlib.asynccontextmanager
async def services(url: str, count: int, clock: Clock) -> AsyncIterator[list[Service]]:
    """So many services over one store, under one clock."""
    async with contextlib.AsyncExitStack() as stack:
        made = [await stack.enter_async_context(running(settings_for(url), clock)) for _ in range(count)]
        admin = await bootstrap(made[0])
        houses = [Service(one, clock, admin) for one in made]
        for house in houses:
            stack.push_async_callback(house.close)
        yield houses


async def time_passes(clock: Clock, admin: httpx.AsyncClient) -> None:
    """Moves the clock and takes back what ran out, on and on."""
    while True:
        clock.advance(TICK_MS)
        answer = await admin.post("/v1/leases:reclaim", json={"limit": 500})
        assert answer.status_code == 200, answer.text


async def test_an_item_has_one_holder_at_a_time(engine: str, fresh_url: str) -> None:
    """Two services on Postgres: their claims meet in the database."""
    clock = Clock()
    async with services(fresh_url, 2 if engine == "postgres" else 1, clock) as houses:
        owner = await new_tenant(houses[0].client(houses[0].admin), "acme")
        clients = [house.client(owner) for house in houses]
        job = Job(await fill(clients[0], 1_000), rounds=2, clock=clock)
        passing = asyncio.create_task(time_passes(clock, houses[0].client(houses[0].admin)))
        try:
            await work(clients, job, WORKERS)
        finally:
            passing.cancel()
            await asyncio.gather(passing, return_exceptions=True)
        await hold(clients[0], job)


@pytest.mark.slow
async def test_an_item_has_one_holder_at_a_time_by_the_clocks_of_servers(
    engine: str, fresh_url: str, tmp_path: Path
) -> None:
    """Server processes that sweep; leases run out by themselves."""
    items = size("claim_items", 100_000)
    admin = await prepared(fresh_url)
    async with contextlib.AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(
                serving_process(fresh_url, tmp_path / f"log{n}", sweep=True, sweep_interval_ms=50)
            )
            for n in range(2 if engine == "postgres" else 1)
        ]
        async with http(servers[0].base, admin) as system:
            owner = await new_tenant(system, "acme")
        clients = [await stack.enter_async_context(http(server.base, owner)) for server in servers]
        job = Job(await fill(clients[0], items), rounds=5, lease_ms=5_000)
        began = time.monotonic()
        await work(clients, job, WORKERS)
        took = time.monotonic() - began
        await hold(clients[0], job)
    told = job.history
    record(
        "an item has one holder at a time, epochs strictly rise", engine, workers=WORKERS, servers=len(servers),
        items=items, deliveries=len(told.deliveries), accepted_words=sum(word.accepted for word in told.words),
        refused_late_words=sum(not word.accepted for word in told.words), two_holders=0, seconds=took,
    )  # fmt: skip
