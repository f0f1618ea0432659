"""The schema moves forward once, and a store that is not ours to move is refused."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest

from backends import connect, migrate, postgres_locks
from backends.errors import SchemaMismatch, Unavailable
from backends.migrate import known
from backends.protocol import Row, StateBackend, Tx
from backends.sqlite_file import opened
from tests.conformance.conftest import Says
from tests.conftest import new_database


@pytest.fixture
async def fresh(empty_url: str) -> AsyncIterator[StateBackend]:
    """An empty store."""
    backend = await connect(empty_url, connections=4, roles=None)  # whose statements may forge the ledger
    yield backend
    await backend.close()


async def test_migrating_twice_applies_nothing_the_second_time(fresh: StateBackend) -> None:
    assert await fresh.migrate() == len(known())
    assert await fresh.migrate() == 0
    await fresh.check()


async def test_an_empty_store_does_not_pass_the_check(fresh: StateBackend) -> None:
    with pytest.raises(SchemaMismatch):
        await fresh.check()
    assert await fresh.migrate() == len(known())


async def test_a_newer_schema_is_refused(fresh: StateBackend, says: Says) -> None:
    says(
        "from_the_future",
        "INSERT INTO schema_migrations (number, name, checksum, applied_at) VALUES (9999, 'later', 'x', 0)",
    )
    await fresh.migrate()
    await fresh.write(lambda tx: tx.run("from_the_future"))
    for refused in (fresh.migrate, fresh.check):
        with pytest.raises(SchemaMismatch, match="9999"):
            await refused()


async def test_an_edited_migration_is_refused_and_its_restored_text_is_not(fresh: StateBackend, says: Says) -> None:
    says("set_checksum", "UPDATE schema_migrations SET checksum = :checksum WHERE number = 1")
    await fresh.migrate()
    await fresh.write(lambda tx: tx.run("set_checksum", checksum="edited"))
    for refused in (fresh.migrate, fresh.check):
        with pytest.raises(SchemaMismatch, match="0001_core"):
            await refused()
    await fresh.write(lambda tx: tx.run("set_checksum", checksum=known()[0].checksum))
    await fresh.check()


async def test_a_refused_migration_leaves_the_store_writable(fresh: StateBackend, says: Says) -> None:
    says("set_checksum", "UPDATE schema_migrations SET checksum = :checksum WHERE number = 1")
    await fresh.migrate()
    await fresh.write(lambda tx: tx.run("set_checksum", checksum="edited"))
    with pytest.raises(SchemaMismatch):
        await fresh.migrate()
    assert await fresh.write(lambda tx: tx.run("set_checksum", checksum="again")) == 1


async def test_the_first_tenants_are_there_after_migration(fresh: StateBackend) -> None:
    await fresh.migrate()

    async def read(tx: Tx) -> list[Row]:
        return await tx.all("load_tenants", rows=[[""], ["default"]])

    assert [row[0] for row in await fresh.read(read)] == ["", "default"]


async def test_migrators_at_once_apply_each_migration_once(postgres_server: str) -> None:
    url = await new_database(postgres_server)
    stores = [await connect(url, connections=2) for _ in range(3)]
    try:
        applied = await asyncio.gather(*(store.migrate() for store in stores))
        assert sorted(applied) == [0, 0, len(known())]
        for store in stores:
            await store.check()
    finally:
        for store in stores:
            await store.close()


@pytest.fixture
async def behind(postgres_server: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[StateBackend, Any]]:
    """A store that lacks its newest migration, which has little patience; and a stranger's connection."""
    url, every = await new_database(postgres_server), known()
    store = await connect(url, connections=2)
    stranger = await asyncpg.connect(url, server_settings={"application_name": "report"})
    monkeypatch.setattr(migrate, "known", lambda: every[:-1])
    await store.migrate()
    monkeypatch.setattr(migrate, "known", lambda: every)
    for what, value in (("LOCK_MS", 50), ("TRIES", 2), ("PAUSE_SECONDS", 0.0)):
        monkeypatch.setattr(postgres_locks, what, value)
    monkeypatch.setattr(migrate, "MIGRATOR_MS", 50)
    yield store, stranger
    await stranger.close()
    await store.close()


async def test_whoever_reads_for_ever_holds_up_a_migration_for_a_while_and_is_named(
    behind: tuple[StateBackend, Any],
) -> None:
    store, stranger = behind
    async with stranger.transaction():
        await stranger.execute("SELECT count(*) FROM tokens")
        with pytest.raises(Unavailable, match=rf"session {stranger.get_server_pid()} \(report\).*; have that"):
            await store.migrate()
    with pytest.raises(SchemaMismatch, match=known()[-1].name):
        await store.check()
    assert await store.migrate() == 1
    await store.check()


async def test_another_migrator_is_waited_for_only_so_long_and_only_where_something_is_missing(
    behind: tuple[StateBackend, Any],
) -> None:
    store, stranger = behind
    await stranger.execute("SELECT pg_advisory_lock($1)", migrate.ADVISORY_LOCK)
    with pytest.raises(Unavailable, match="another process brings the schema up to date"):
        await store.migrate()
    await stranger.execute("SELECT pg_advisory_unlock_all()")
    assert await store.migrate() == 1
    await stranger.execute("SELECT pg_advisory_lock($1)", migrate.ADVISORY_LOCK)
    assert await store.migrate() == 0


async def test_a_migration_whose_connection_is_cut_left_no_trace_and_can_be_tried_again(
    behind: tuple[StateBackend, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, stranger = behind
    whole = known()[-1]
    asleep = msgspec.structs.replace(whole, text=whole.text + "SELECT pg_sleep(600);")
    every = [*known()[:-1], asleep]
    monkeypatch.setattr(migrate, "known", lambda: every)
    cut = asyncio.ensure_future(store.migrate())
    async with asyncio.timeout(20):
        while not await stranger.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event = 'PgSleep'"
        ):
            await asyncio.sleep(0.001)
    with pytest.raises(Unavailable):
        await cut
    monkeypatch.setattr(migrate, "known", lambda: [*every[:-1], whole])
    assert await store.migrate() == 1
    await store.check()


class Pooled:
    """Sessions as a pooler in transaction mode gives them: each transaction in another than the one before."""

    def __init__(self, *sessions: Any) -> None:
        self._sessions, self._turn = sessions, itertools.cycle(sessions)

    def __getattr__(self, name: str) -> Any:
        busy = [one for one in self._sessions if one.is_in_transaction()]
        return getattr(busy[0] if busy else next(self._turn), name)


async def test_behind_a_pooler_no_session_keeps_the_lock_of_migrators(postgres_server: str) -> None:
    url = await new_database(postgres_server)
    sessions = [await asyncpg.connect(url) for _ in range(3)]
    try:
        pooled = Pooled(*sessions)
        assert await migrate.on_postgres(pooled, sessions=False) == len(known())
        assert await migrate.on_postgres(pooled, sessions=False) == 0
        held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = ANY($1)"
        assert await sessions[0].fetchval(held, [one.get_server_pid() for one in sessions]) == 0
    finally:
        for one in sessions:
            await one.close()


def test_a_file_that_another_program_writes_is_not_migrated_and_it_is_said_why(tmp_path: Path) -> None:
    stranger, db = (opened(str(tmp_path / "holdfast.db")) for _ in range(2))
    db.set_busy_timeout(1)
    stranger.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="another program is writing to the file; have it finish"):
        migrate.on_sqlite(db, 0)
    stranger.execute("ROLLBACK")
    assert migrate.on_sqlite(db, 0) == len(known())
    stranger.close()
    db.close()
