"""The schema moves forward once, and a store that is not ours to move is refused."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from backends import connect
from backends.errors import SchemaMismatch
from backends.migrate import known
from backends.protocol import Row, StateBackend, Tx
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
