"""A read that takes too long is cut off and told so; nothing hangs, and nobody else notices."""

import contextlib
from collections.abc import AsyncIterator

import asyncpg
import pytest

from backends import sqlite
from service.kernel.jobs import due
from service.work.model import REDRIVE_JOB
from tests.conftest import Api, Service

PATHS = ("/v1/executions?filter=attr.a = 'b'", "/v1/work-items?filter=queue = 'q'", "/v1/dead-letters", "/v1/queues",
         "/v1/events?kinds=a", "/v1/workers/w", "/v1/namespaces/main/stats")  # fmt: skip
TABLES = "executions, work_items, queues, shelves, events"


@contextlib.asynccontextmanager
async def slow(service: Service) -> AsyncIterator[None]:
    """Scans take longer than they may: on SQLite there is no time at all, on Postgres they stand before a lock."""
    backend = service.services.backend
    before = backend.scan_seconds
    if backend.name == "sqlite":
        backend.scan_seconds = -1
        try:
            yield
        finally:
            backend.scan_seconds = before
        return
    backend.scan_seconds = 0.05
    db = await asyncpg.connect(backend._dsn)
    try:
        async with db.transaction():
            await db.execute(f"LOCK TABLE {TABLES} IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        backend.scan_seconds = before
        await db.close()


@pytest.fixture
async def every_step(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite looks at the time at every step: a test's tables are small."""
    monkeypatch.setattr(sqlite, "LOOK_EVERY", 1)
    if service.services.backend.name == "sqlite":
        service.services.backend._idle.clear()  # those to come look so often; all are closed at the end


@pytest.mark.parametrize("path", PATHS)
async def test_a_list_that_takes_too_long_is_cut_off(api: Api, path: str, every_step: None) -> None:
    await api.start(attributes={"a": "b"}, start={"queue": "q"})
    await api.ok("PUT", "/v1/workers/w", json={"queues": ["q"]})
    before = await api.ok("GET", path)
    async with slow(api.service):
        problem = await api.refused("GET", path, "request/too-slow")
    assert problem["status"] == 422
    assert await api.ok("GET", path) == before, "the next read is none the worse"


async def test_a_redrive_whose_filter_takes_too_long_begins_no_job(api: Api, every_step: None) -> None:
    async with slow(api.service):
        await api.refused("POST", "/v1/dead-letters:redrive", "request/too-slow", json={"filter": "attempt > 1"})
    jobs = await due(api.service.services.backend, REDRIVE_JOB)
    assert [job for job in jobs if job.tenant_id == api.tenant] == []


async def test_a_scan_within_its_time_is_whole(api: Api) -> None:
    for _ in range(20):
        await api.ok("POST", "/v1/work-items", json={"queue": "q"})
    assert api.service.services.backend.scan_seconds == 10
    assert len((await api.ok("GET", "/v1/work-items?limit=1000"))["items"]) == 20


async def test_a_write_goes_on_while_a_scan_takes_its_time(api: Api, other: Api, every_step: None) -> None:
    async with slow(api.service):
        if api.service.services.backend.name == "sqlite":  # on Postgres the lock that makes it slow stops writes, too
            await api.refused("GET", "/v1/queues", "request/too-slow")
        await other.ok("GET", "/v1/tokens")
    await other.start()
