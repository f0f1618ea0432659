"""A server is killed in the middle of an import: the file is sent on to the next one, or what had come goes."""

import asyncio
import random
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.portability.model import IMPORT_MS
from tests.conftest import serving
from tests.portability.steps import File, arrived, begin, export, lived
from tests.races.server import Server, http, prepared
from tests.tenants.test_behaviour import erased, rows_of

AWAY = (httpx.TransportError,)


@pytest.fixture
async def file(tmp_path: Path) -> File:
    """A tenant that has lived in another store."""
    async with serving(f"sqlite:///{tmp_path / 'home.db'}") as home:
        api = await home.tenant()
        await lived(api, runs=40)
        return await export(api.http, api.tenant)


async def sent_until_killed(server: Server, token: str, file: File, count: int, wait: float) -> None:
    """Send parts as long as the server answers; it is killed over one of those after `count`."""
    async with http(server.base, token) as client:
        began = await begin(client, file)
        killer: asyncio.Task[Any] | None = None
        try:
            for number, table, rows in file.parts:
                if number < began["next_part"]:
                    continue
                body = {"part": number, "table": table, "rows": rows}
                assert (await client.post(f"/v1/imports/{began['id']}/parts", json=body)).status_code == 200
                if number - began["next_part"] >= count and killer is None:
                    killer = asyncio.create_task(killed_after(server, wait))
        except AWAY:
            pass
        if killer is None:
            await server.kill()
        else:
            await killer


async def killed_after(server: Server, seconds: float) -> None:
    """Spreads the kills over what a server does with a part, its commit above all."""
    await asyncio.sleep(seconds)
    await server.kill()


async def test_an_import_goes_on_after_the_server_was_killed(fresh_url: str, tmp_path: Path, file: File) -> None:
    chance, admin = random.Random(7), await prepared(fresh_url)
    tenant = file.manifest["tenant_id"]
    server = Server(fresh_url, tmp_path / "server.log", sweep=True, sweep_interval_ms=10)
    for count in (0, 2, 4):
        await server.start()
        await sent_until_killed(server, admin, file, count, chance.uniform(0, 0.01))
    await server.start()
    try:
        async with http(server.base, admin) as client:
            began = await begin(client, file)
            assert not began["created"] and began["next_part"] > 4, "it goes on where it was"
            for number, table, rows in file.parts:
                if number >= began["next_part"]:
                    body = {"part": number, "table": table, "rows": rows}
                    assert (await client.post(f"/v1/imports/{began['id']}/parts", json=body)).status_code == 200
            finished = await client.post(f"/v1/imports/{began['id']}/finish")
            assert finished.status_code == 200, finished.text
    finally:
        await server.kill()
    async with serving(fresh_url) as service:
        there = await arrived(service, tenant)
        again = await export(there.http, tenant)
        assert {name: rows for name, (rows, _) in again.tables.items()} == {
            name: rows for name, (rows, _) in file.tables.items()
        }
        for table in ("executions", "events", "states", "snapshots", "definitions", "facets"):
            assert again.tables[table] == file.tables[table]


async def test_an_import_that_nobody_sends_on_leaves_not_one_row(fresh_url: str, tmp_path: Path, file: File) -> None:
    admin = await prepared(fresh_url)
    server = Server(fresh_url, tmp_path / "server.log", sweep=True, sweep_interval_ms=10)
    await server.start()
    await sent_until_killed(server, admin, file, 6, 0)
    tenant = file.manifest["tenant_id"]
    async with serving(fresh_url) as service:
        assert sum((await rows_of(service, tenant)).values()) > 1
        service.clock.advance(IMPORT_MS)
        await erased(service, service.clock)
        assert set((await rows_of(service, tenant)).values()) == {0}
