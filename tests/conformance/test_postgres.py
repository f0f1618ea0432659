"""What holds on Postgres alone: lost races, lost connections, several processes."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from asyncpg.protocol import protocol

from backends import connect, postgres
from backends.errors import Full, OutcomeUnknown, StoreError, Unavailable
from backends.postgres import PostgresBackend
from backends.postgres_arrays import ARRAYS
from backends.postgres_connections import Connections
from backends.protocol import Tx
from backends.statements import Statement, load
from tests.conformance.jobs import adding, exists, finding, job
from tests.conftest import new_database


@pytest.fixture
async def url(postgres_server: str) -> str:
    """A database of one's own."""
    return await new_database(postgres_server)


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresBackend]:
    """A migrated store over it."""
    backend = await connect(url, connections=4)
    assert isinstance(backend, PostgresBackend)
    await backend.migrate()
    yield backend
    await backend.close()


@pytest.fixture
async def killer(url: str) -> AsyncIterator[Any]:
    """A connection of an operator who ends others."""
    db = await asyncpg.connect(url, server_settings={"application_name": "operator"})
    yield db
    await db.close()


def locking(tenant: str, *ids: str) -> Any:
    """Work that takes two rows one after the other, and at its first try meets another that does the reverse."""

    def make(order: tuple[str, ...], met: asyncio.Event, other: asyncio.Event) -> Any:
        async def work(tx: Tx) -> None:
            await tx.all("load_jobs", rows=[[tenant, order[0]]])
            met.set()
            await other.wait()
            await tx.all("load_jobs", rows=[[tenant, order[1]]])
            await tx.run("bump", tenant_id=tenant)

        return work

    one, two = asyncio.Event(), asyncio.Event()
    return make(ids, one, two), make(ids[::-1], two, one)


async def test_a_deadlock_is_tried_again_and_both_commit(
    store: PostgresBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "UPDATE jobs SET done = done + 1 WHERE tenant_id = :tenant_id"
    monkeypatch.setitem(load("postgres"), "bump", Statement("bump", text, "postgres"))
    await store.write(adding(job("t", "a"), job("t", "b")))
    await asyncio.gather(*(store.write(work) for work in locking("t", "a", "b")))
    row = await store.read(finding("t", "a"))
    assert row is not None
    assert row[6] == 2


async def test_another_process_reads_what_was_committed(store: PostgresBackend, url: str) -> None:
    other = await connect(url, connections=2)
    try:
        await store.write(adding(job("t", "a")))
        assert await exists(other, "t", "a")
    finally:
        await other.close()


async def end(killer: Any) -> None:
    """End every connection of the pool; those that are there now are gone when this returns."""
    ours = await killer.fetch(
        "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'holdfast'"
    )
    pids = [row[0] for row in ours]
    async with asyncio.timeout(20):
        while await killer.fetchval("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY($1)", pids):
            await asyncio.sleep(0.001)


async def test_a_connection_lost_before_the_commit_is_unavailable_and_leaves_no_trace(
    store: PostgresBackend, killer: Any
) -> None:
    async def work(tx: Tx) -> None:
        await tx.many("insert_jobs", [job("t", "a")])
        await end(killer)
        await tx.one("ping")

    with pytest.raises(Unavailable):
        await store.write(work)
    assert not await exists(store, "t", "a")
    await store.write(adding(job("t", "b")))
    assert await exists(store, "t", "b")


async def test_a_connection_lost_at_the_commit_leaves_the_outcome_unknown(store: PostgresBackend, killer: Any) -> None:
    async def work(tx: Tx) -> None:
        await tx.many("insert_jobs", [job("t", "a")])
        await end(killer)

    with pytest.raises(OutcomeUnknown):
        await store.write(work)
    await store.write(adding(job("t", "b")))
    assert await exists(store, "t", "b")


async def test_connections_lost_while_idle_are_not_noticed_by_reads(store: PostgresBackend, killer: Any) -> None:
    await store.write(adding(job("t", "a")))
    for _ in range(3):
        await end(killer)
        assert await exists(store, "t", "a")


async def test_connections_lost_while_idle_are_not_noticed_by_writes(store: PostgresBackend, killer: Any) -> None:
    for name in "abcdef":
        await store.write(adding(job("t", name)))
        await end(killer)
    assert await exists(store, "t", "f")


async def test_connections_that_are_forgotten_are_not_said_farewell(
    store: PostgresBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(_db: Any, **_how: Any) -> None:
        raise ConnectionResetError("for the test")

    await asyncio.gather(*(store.write(lambda tx: tx.one("ping")) for _ in range(4)))
    with monkeypatch.context() as patched:
        patched.setattr(asyncpg.Connection, "close", gone)
        await store._connections.forget()
    await store.write(adding(job("t", "a")))
    assert await exists(store, "t", "a")


async def test_a_store_that_is_closed_leaves_no_session(url: str, killer: Any) -> None:
    store = await connect(url, connections=8)
    await store.migrate()
    await asyncio.gather(*(store.write(lambda tx: tx.one("ping")) for _ in range(8)))
    await store.close()
    ours = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name <> 'operator'"
    async with asyncio.timeout(20):
        while await killer.fetchval(ours):
            await asyncio.sleep(0.001)


async def test_who_waits_for_a_connection_gets_the_next_that_is_given_back(url: str) -> None:
    pool = await asyncpg.create_pool(url, min_size=0, max_size=1)
    try:
        connections = Connections(pool)
        first = await connections.take()
        waiting = asyncio.create_task(connections.take())
        await asyncio.sleep(0)
        await connections.give_back(first)
        async with asyncio.timeout(20):
            await connections.give_back(await waiting)
            async with connections.one() as kept:
                assert await kept.fetchval("SELECT 1") == 1
            await connections.close()
    finally:
        pool.terminate()


async def test_a_statement_the_driver_refuses_is_not_taken_for_a_lost_connection(
    store: PostgresBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    statement = Statement("two", "SELECT :a || :b", "postgres")
    monkeypatch.setattr(statement, "order", ["a"])  # a parameter too few
    monkeypatch.setitem(load("postgres"), "two", statement)
    with pytest.raises(StoreError) as refused:
        await store.write(lambda tx: tx.one("two", a="x"))
    assert type(refused.value) is StoreError


async def test_a_number_that_does_not_fit_is_refused_and_the_connection_goes_on(store: PostgresBackend) -> None:
    with pytest.raises(StoreError):
        await store.write(adding(job("t", "a", total=2**63)))
    await store.write(adding(job("t", "b")))
    assert not await exists(store, "t", "a")


async def test_a_full_disk_is_full(store: PostgresBackend) -> None:
    assert isinstance(postgres.translate(asyncpg.DiskFullError("no space left on device")), Full)


async def test_a_store_that_does_not_answer_is_unavailable(
    store: PostgresBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "PING_SECONDS", 0.05)
    monkeypatch.setitem(load("postgres"), "ping", Statement("ping", "SELECT pg_sleep(60)", "postgres"))
    with pytest.raises(Unavailable):
        await store.ping()


async def test_a_cancelled_reader_ends_at_once_and_is_not_tried_again(
    store: PostgresBackend, killer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(load("postgres"), "ping", Statement("ping", "SELECT pg_sleep(600)", "postgres"))
    asleep = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
    for scan in (False, True):
        reader = asyncio.ensure_future(store.read(lambda tx: tx.one("ping"), scan=scan))
        async with asyncio.timeout(20):
            while not await killer.fetchval(asleep):
                await asyncio.sleep(0.001)
            reader.cancel()
            await asyncio.wait([reader])
        assert reader.cancelled()


@pytest.mark.parametrize(("connections", "lanes"), [(2, 1), (3, 2), (5, 2)])
async def test_scans_leave_to_batches_as_many_connections_as_there_are_lanes(
    url: str, killer: Any, monkeypatch: pytest.MonkeyPatch, connections: int, lanes: int
) -> None:
    monkeypatch.setitem(load("postgres"), "ping", Statement("ping", "SELECT pg_sleep(600)", "postgres"))
    asleep = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
    store = await connect(url, connections=connections, lanes=lanes)
    await store.migrate()
    scans = [asyncio.ensure_future(store.read(lambda tx: tx.one("ping"), scan=True)) for _ in range(connections)]
    try:
        async with asyncio.timeout(20):
            while await killer.fetchval(asleep) < connections - lanes:
                await asyncio.sleep(0.001)
        await asyncio.gather(*(store.write(adding(job("t", f"j{n}"))) for n in range(4)))
        assert await exists(store, "t", "j3")
        assert 1 <= store.scan_lanes <= connections - lanes
    finally:
        for scan in scans:
            scan.cancel()
        await asyncio.gather(*scans, return_exceptions=True)
        await store.close()


@pytest.mark.parametrize("seconds", [None, 3_600])
async def test_a_scan_is_waited_for_as_long_as_it_may_take(
    store: PostgresBackend, monkeypatch: pytest.MonkeyPatch, seconds: float | None
) -> None:
    """Also past the time after which any other statement counts as lost: a doctor reads every log there is."""
    ask, usual, takes = asyncpg.Connection.fetch, 60, 120

    async def ask_for_long(*asked: Any, **more: Any) -> Any:
        if (more.get("timeout") or usual) < takes:
            raise TimeoutError
        return await ask(*asked, **more)

    monkeypatch.setattr(asyncpg.Connection, "fetch", ask_for_long)
    monkeypatch.setattr(store, "scan_seconds", seconds)
    assert len(await store.read(lambda tx: tx.all("engine_version"), scan=True)) == 1
    with pytest.raises(Unavailable):
        await store.read(lambda tx: tx.all("engine_version"))


async def test_a_database_that_is_not_there_is_unavailable(url: str) -> None:
    with pytest.raises(Unavailable):
        await connect(url.replace("/t_", "/missing_"))


async def test_two_stores_share_one_clock(store: PostgresBackend, url: str) -> None:
    other = await connect(url, connections=2)
    try:
        assert abs(other.now() - store.now()) < 60_000
    finally:
        await other.close()


async def test_arrays_are_encoded_without_asking_each_element_what_it_is(store: PostgresBackend) -> None:
    assert protocol.IterableABC is ARRAYS, "asyncpg has changed: see docs/decisions/0017"
    async with store._connections.one() as db:
        sent = [["a", None, "{}"], [b"\0\xff", None], [1, None, -(2**63)], [["a", "b"], ["c", None]]]
        assert await db.fetchrow("SELECT $1::text[], $2::bytea[], $3::bigint[], $4::text[]", *sent) == tuple(sent)
