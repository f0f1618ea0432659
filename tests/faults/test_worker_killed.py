"""A worker dies with its leases: the sweep takes them back, and the dead one's word no longer counts."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from tests.conftest import new_database
from tests.races.server import ROOT, Server, http, new_tenant, prepared, serving_process

PATIENCE = 40.0
COUNT = 40
WORKER = """
import sys, httpx, time
http = httpx.Client(base_url=sys.argv[1], headers={"authorization": "Bearer " + sys.argv[2]})
body = {"worker_id": "doomed", "queues": ["q"], "max_items": 1000, "lease_ms": 1000}
print(len(http.post("/v1/work-items:claim", json=body).json()["items"]), flush=True)
time.sleep(3600)
"""


async def claim_and_die(server: Server, token: str) -> int:
    """A worker process claims everything and is killed; how many items it held."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WORKER, server.base, token, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE):
            return int(await process.stdout.readline())
    finally:
        process.kill()
        await process.wait()
        transport: Any = process._transport  # type: ignore[attr-defined]
        transport.close()


async def enqueue(client: httpx.AsyncClient) -> list[str]:
    """Items that are tried again at once."""
    retry = {"initial_delay_ms": 0, "jitter": False}
    bodies = [{"queue": "q", "id": f"i{n:03}", "retry": retry} for n in range(COUNT)]
    answer = await client.post("/v1/work-items:batch", json=bodies)
    assert all("ok" in one for one in answer.json()["results"]), answer.text
    return [body["id"] for body in bodies]  # type: ignore[misc]


async def recovered(client: httpx.AsyncClient, ids: list[str]) -> None:
    """Claim until every item was delivered again: once, as its second attempt, with the reason kept."""
    body = {"worker_id": "heir", "queues": ["q"], "max_items": 1000, "wait_ms": 1_000, "lease_ms": 60_000}
    got: list[Any] = []
    async with asyncio.timeout(PATIENCE):
        while len(got) < len(ids):
            answer = await client.post("/v1/work-items:claim", json=body)
            assert answer.status_code == 200, answer.text
            got += answer.json()["items"]
    assert sorted(item["id"] for item in got) == ids
    assert {(item["epoch"], item["attempt"]) for item in got} == {(2, 2)}
    late = await client.post(f"/v1/work-items/{ids[0]}/complete", json={"epoch": 1})
    assert (late.status_code, late.json()["code"]) == (409, "lease/stale")
    shown = (await client.get(f"/v1/work-items/{ids[0]}")).json()
    assert [error["type"] for error in shown["errors"]] == ["lease_expired"]


@contextlib.asynccontextmanager
async def sweeping(url: str, folder: Path, name: str) -> AsyncIterator[Server]:
    """A server that sweeps often."""
    async with serving_process(url, folder / f"{name}.log", sweep=True, sweep_interval_ms=50) as server:
        yield server


async def test_the_leases_of_a_killed_worker_are_recovered_by_the_sweep(fresh_url: str, tmp_path: Path) -> None:
    admin = await prepared(fresh_url)
    async with sweeping(fresh_url, tmp_path, "one") as server:
        async with http(server.base, admin) as system:
            token = await new_tenant(system, "acme")
        async with http(server.base, token) as client:
            ids = await enqueue(client)
            assert await claim_and_die(server, token) == COUNT
            await recovered(client, ids)


async def test_when_worker_and_server_are_killed_the_other_server_recovers_the_leases(
    postgres_server: str, tmp_path: Path
) -> None:
    url = await new_database(postgres_server)
    admin = await prepared(url)
    async with sweeping(url, tmp_path, "one") as first, sweeping(url, tmp_path, "two") as second:
        async with http(first.base, admin) as system:
            token = await new_tenant(system, "acme")
        async with http(second.base, token) as client:
            ids = await enqueue(client)
            assert await claim_and_die(first, token) == COUNT
            await first.kill()
            await recovered(client, ids)
