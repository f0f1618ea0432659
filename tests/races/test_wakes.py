"""A wake-up between two services on Postgres is enough: nobody has to look by himself."""

import asyncio
from typing import Any

import httpx
import pytest

from service.kernel import wake
from tests.conftest import new_store
from tests.races.conftest import PATIENCE, Pair, two_services
from tests.races.test_work import claim, enqueue

ITEMS = 40


@pytest.fixture(autouse=True)
def nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits is woken or waits in vain."""
    monkeypatch.setattr(wake, "LOOK_SECONDS", 3_600.0)


async def known(pair: Pair, services: Any, of: str = "work") -> None:
    """Wait until the service has heard that somebody waits for the tenant's work at the other door."""
    peers = services.backend._listener._peers
    async with asyncio.timeout(PATIENCE):
        while not any(f"{of}/{pair.tenant}" in topics for _, topics in peers.values()):
            await asyncio.sleep(0.005)
            peers = services.backend._listener._peers


async def test_work_at_one_service_wakes_a_claim_at_the_other(postgres_server: str) -> None:
    async with two_services(await new_store(postgres_server)) as ways:
        pair = await ways.tenant()
        body = {"worker_id": "w", "queues": ["q"], "wait_ms": 60_000}
        waiting = asyncio.ensure_future(pair.first.post("/v1/work-items:claim", json=body))
        await known(pair, ways.services[1])
        await pair.last.post("/v1/work-items", json={"queue": "q", "id": "it"})
        async with asyncio.timeout(PATIENCE):
            answer = await waiting
        assert [item["id"] for item in answer.json()["items"]] == ["it"]


async def test_a_queue_resumed_at_one_service_wakes_a_claim_at_the_other(postgres_server: str) -> None:
    async with two_services(await new_store(postgres_server)) as ways:
        pair = await ways.tenant()
        await pair.first.post("/v1/queues/q/pause", json={})
        assert await enqueue(pair, 1) == ["i0000"]
        assert await claim(pair.first, "w", 1) == []
        body = {"worker_id": "w", "queues": ["q"], "wait_ms": 60_000}
        waiting = asyncio.ensure_future(pair.first.post("/v1/work-items:claim", json=body))
        await known(pair, ways.services[1])
        await pair.last.post("/v1/queues/q/resume", json={})
        async with asyncio.timeout(PATIENCE):
            answer = await waiting
        assert [item["id"] for item in answer.json()["items"]] == ["i0000"]


async def test_the_end_of_an_execution_at_one_service_is_told_to_who_waits_at_the_other(postgres_server: str) -> None:
    async with two_services(await new_store(postgres_server)) as ways:
        pair = await ways.tenant()
        run = (await pair.last.post("/v1/executions", json={"workflow_id": "w"})).json()["execution_id"]
        waiting = asyncio.ensure_future(pair.first.get(f"/v1/executions/{run}/outcome?wait_ms=60000"))
        await known(pair, ways.services[1], "end")
        await pair.last.post(f"/v1/executions/{run}/status", json={"status": "completed", "result": 7})
        async with asyncio.timeout(PATIENCE):
            answer = await waiting
        assert (answer.json()["ended"], answer.json()["result"]) == (True, 7)


async def test_workers_that_wait_at_two_services_get_each_item_once(postgres_server: str) -> None:
    """Some are served by the commit that enqueues, others are woken: nobody twice, nothing is left over."""
    async with two_services(await new_store(postgres_server)) as ways:
        pair = await ways.tenant()
        got: list[tuple[str, int]] = []

        async def work(door: httpx.AsyncClient) -> None:
            while len(got) < ITEMS:
                body = {"worker_id": "w", "queues": ["q"], "wait_ms": 60_000}
                items = (await door.post("/v1/work-items:claim", json=body)).json()["items"]
                got.extend((item["id"], item["epoch"]) for item in items)

        workers = [asyncio.create_task(work(door)) for door in pair.clients for _ in range(4)]
        await known(pair, ways.services[1])
        for number in range(ITEMS):
            await pair.ok("POST", "/v1/work-items", json={"queue": "q", "id": f"i{number}"})
        async with asyncio.timeout(PATIENCE):
            while len(got) < ITEMS:
                await asyncio.sleep(0.005)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        assert sorted(got) == sorted((f"i{number}", 1) for number in range(ITEMS))
