"""A server is killed in the middle of a tenant's deletion, again and again: the next one goes on, to the last row."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx

from service.kernel.tallies import fold
from service.tenants import sweeps
from service.work.sweeps import forget_rates
from service.workers.sweeps import reap
from tests.conftest import Service, serving
from tests.races.server import Server, http, new_tenant, prepared
from tests.tenants.test_behaviour import fill, rows_of

ITEMS, BESIDE = 20_000, 1_000


async def furnished(url: str, tenant: str, items: int) -> None:
    """Something in every table of a tenant that no sweep will touch, and much in one."""
    async with serving(url) as service:
        api = await owned(service, tenant)
        await fill(api)
        for _ in range(items // 1_000):
            await api.ok("POST", "/v1/work-items:batch", json=[{"queue": "q", "payload": "p" * 100}] * 1_000)
        await fold(service.services.backend)
        await reap(service.services)
        await forget_rates(service.services)


async def owned(service: Service, tenant: str) -> Any:
    """A tenant by name, made if it is not there, as an owner."""
    from tests.conftest import Api

    await service.client(service.admin).post("/v1/tenants", json={"id": tenant})
    return Api(service, tenant, await service.token(tenant, "owner"))


async def done_of(admin: httpx.AsyncClient, job_id: str) -> tuple[int, int]:
    """How far the deletion is, and how far it has to go."""
    answer = await admin.get(f"/v1/jobs/{job_id}")
    assert answer.status_code == 200, answer.text
    return answer.json()["done"], answer.json()["total"]


async def killed_within(server: Server, token: str, job_id: str, at_least: int) -> int:
    """Let the server delete some rows, and kill it over the next; how many it said are gone."""
    async with http(server.base, token) as admin:
        async with asyncio.timeout(60):
            while (done := await done_of(admin, job_id))[0] < at_least:
                await asyncio.sleep(0)
        await server.kill()
    return done[0]


async def killed_time_and_again(
    server: Server, token: str, job_id: str, left: Callable[[], Awaitable[int]], kills: int = 3
) -> int:
    """Kill the server and start another one while there are rows `left`; how many it said are gone. With none left the
    next one would only wait for the quiet minute to pass."""
    gone = await killed_within(server, token, job_id, 1)
    assert await left(), "it was through before it was killed"
    for _ in range(kills - 1):
        await server.start()
        gone = await killed_within(server, token, job_id, gone + 1)
        if not await left():
            break
    return gone


async def test_a_deletion_survives_kills_and_leaves_not_one_row(fresh_url: str, tmp_path: Path) -> None:
    admin = await prepared(fresh_url)
    for tenant, items in (("going", ITEMS), ("staying", BESIDE)):
        await furnished(fresh_url, tenant, items)
    async with serving(fresh_url) as service:
        before = {tenant: await rows_of(service, tenant) for tenant in ("going", "staying")}

    async def left() -> int:
        async with serving(fresh_url) as service:
            return sum((await rows_of(service, "going")).values()) - 1

    server = Server(fresh_url, tmp_path / "server.log", sweep=True, sweep_interval_ms=10)
    await server.start()
    try:
        async with http(server.base, admin) as client:
            await new_tenant(client, "elsewhere")
            job_id = (await client.delete("/v1/tenants/going")).json()["job_id"]
        gone, total = await killed_time_and_again(server, admin, job_id, left), sum(before["going"].values()) - 1
    finally:
        await server.kill()
    assert 0 <= await left() <= total - gone
    async with serving(fresh_url) as service:
        while (await service.client(service.admin).get(f"/v1/jobs/{job_id}")).json()["status"] == "running":
            await sweeps.erase(service.services)
            service.clock.advance(sweeps.QUIET_MS // 2)
        after = await rows_of(service, "going")
        assert len(after) > 15, "every table that has a tenant_id"
        assert set(after.values()) == {0}
        assert await rows_of(service, "staying") == before["staying"]
        job = (await service.client(service.admin).get(f"/v1/jobs/{job_id}")).json()
        assert (job["status"], job["done"]) == ("completed", total), "every row was counted once"
