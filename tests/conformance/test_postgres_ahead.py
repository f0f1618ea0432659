"""Transactions that are begun ahead, and connections that are kept at hand: nobody is to notice but by the speed."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from backends import connect
from backends.postgres import PostgresBackend
from backends.postgres_ahead import ahead_of
from backends.postgres_connections import Connections
from tests.conformance.jobs import adding, exists, job
from tests.conftest import new_database

OPEN = """
SELECT a.backend_xid, a.backend_xmin,
       (SELECT array_agg(l.locktype) FROM pg_locks l WHERE l.pid = a.pid)
  FROM pg_stat_activity a
 WHERE a.datname = current_database() AND a.state = 'idle in transaction'
"""
OURS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'holdfast%'"


@pytest.fixture
async def url(postgres_server: str) -> str:
    """A database of one's own."""
    return await new_database(postgres_server)


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresBackend]:
    """A migrated store that begins one transaction ahead."""
    backend = await connect(url, connections=4)
    assert isinstance(backend, PostgresBackend)
    await backend.migrate()
    yield backend
    await backend.close()


@pytest.fixture
async def operator(url: str) -> AsyncIterator[Any]:
    """Somebody who looks at the sessions."""
    db = await asyncpg.connect(url, server_settings={"application_name": "operator"})
    yield db
    await db.close()


async def begun(store: PostgresBackend, operator: Any) -> list[Any]:
    """The sessions in a transaction after a write, once there is one."""
    async with asyncio.timeout(20):
        while True:
            await store.write(lambda tx: tx.one("ping"))
            await asyncio.wait([one.task for one in store._ahead._begun])
            if found := await operator.fetch(OPEN):
                return list(found)


async def test_a_transaction_begun_ahead_holds_no_lock_and_no_snapshot(store: PostgresBackend, operator: Any) -> None:
    assert await begun(store, operator) == [(None, None, ["virtualxid"])]


async def test_one_that_nobody_takes_is_ended_and_its_connection_kept(store: PostgresBackend, operator: Any) -> None:
    await begun(store, operator)
    for _ in range(2):
        await store._ahead.retire()
    assert await operator.fetch(OPEN) == []
    await store.write(adding(job("t", "a")))
    assert await exists(store, "t", "a")


async def test_what_is_done_in_one_is_committed_or_gone_with_it(store: PostgresBackend) -> None:
    async def refused(tx: Any) -> None:
        await tx.many("insert_jobs", [job("t", "gone")])
        raise RuntimeError("no")

    for name in "abc":
        await store.write(adding(job("t", name)))
        with pytest.raises(RuntimeError):
            await store.write(refused)
        assert await exists(store, "t", name)
    assert not await exists(store, "t", "gone")


async def test_who_goes_away_while_it_begins_leaves_it_to_the_next(
    store: PostgresBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, plan_anew = asyncio.Event(), store._connections.plan_anew

    async def slowly(db: Any) -> None:
        await go.wait()
        await plan_anew(db)

    await store.write(lambda tx: tx.one("ping"))
    await store._ahead.forget()
    async with store._ahead.transaction(""):
        monkeypatch.setattr(store._connections, "plan_anew", slowly)
    impatient = asyncio.create_task(store.write(adding(job("t", "a"))))
    await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.wait([impatient])
    assert impatient.cancelled()
    go.set()
    [before] = store._ahead._begun
    await store.write(adding(job("t", "b")))
    [after] = store._ahead._begun
    assert after.db is before.db
    assert await exists(store, "t", "b")
    assert not await exists(store, "t", "a")


async def test_one_that_could_not_begin_is_replaced(store: PostgresBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(_db: Any) -> None:
        raise asyncpg.QueryCanceledError("in the way")

    with monkeypatch.context() as patched:
        async with store._ahead.transaction(""):
            patched.setattr(store._connections, "plan_anew", fails)
        await asyncio.wait([one.task for one in store._ahead._begun])
    await store.write(adding(job("t", "a")))
    assert await exists(store, "t", "a")


async def test_a_store_that_is_closed_leaves_no_session(url: str, operator: Any) -> None:
    store = await connect(url, connections=8)
    await store.migrate()
    await asyncio.gather(*(store.write(lambda tx: tx.one("ping")) for _ in range(8)))
    await store.close()
    async with asyncio.timeout(20):
        while await operator.fetchval(OURS):
            await asyncio.sleep(0.001)


def test_most_connections_are_for_who_reads() -> None:
    assert [ahead_of(2, connections) for connections in (1, 3, 4, 7, 8, 16)] == [0, 0, 1, 1, 2, 2]


async def test_who_waits_for_a_connection_gets_the_next_that_is_given_back(url: str) -> None:
    pool = await asyncpg.create_pool(url, min_size=0, max_size=1)
    try:
        connections = Connections(pool)
        first = await connections.take()
        waiting = asyncio.create_task(connections.take())
        await asyncio.sleep(0)
        await connections.give_back(first)
        await connections.give_back(await waiting)
        async with connections.one() as kept, asyncio.timeout(20):
            assert await kept.fetchval("SELECT 1") == 1
        await connections.close()
    finally:
        pool.terminate()
