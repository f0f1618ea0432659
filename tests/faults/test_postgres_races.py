"""A race that is always lost, and a database clock that is read unevenly or set back, harm nobody else."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from backends import connect, postgres
from backends.postgres import PostgresBackend
from service.errors import StateError
from service.executions.model import StartExecution
from service.kernel import run
from service.kernel.command import Request
from service.kernel.principal import internal
from tests.conftest import new_database, serving

LOSES = """
    CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN IF NEW.id = 'loser' THEN RAISE SQLSTATE '40001'; END IF; RETURN NEW; END $$;
    CREATE TRIGGER loses BEFORE INSERT ON executions FOR EACH ROW EXECUTE FUNCTION lose();
"""
SKEWED = """
    CREATE TABLE skew AS SELECT 0::float8 AS ms;
    CREATE FUNCTION skewed() RETURNS timestamptz LANGUAGE sql AS
    'SELECT clock_timestamp() + (SELECT ms FROM skew) * interval ''1 millisecond''';
"""
HOUR_MS = 3_600_000


@pytest.fixture
async def url(postgres_server: str) -> str:
    """A database of one's own."""
    return await new_database(postgres_server)


@pytest.fixture
async def operator(url: str) -> AsyncIterator[Any]:
    """A connection of somebody who may do anything to it."""
    db = await asyncpg.connect(url)
    yield db
    await db.close()


async def test_a_command_that_loses_every_race_fails_alone(
    url: str, operator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "ATTEMPTS", 2)
    monkeypatch.setattr(run, "CONFLICTS", 2)
    async with serving(url) as service:
        api = await service.tenant()
        await operator.execute(LOSES)
        names = ["a", "b", "c", "loser", "d", "e", "f"]
        batch = [Request(internal(api.tenant), StartExecution("wf", None, name, "main")) for name in names]
        outcomes = await service.services.kernel.execute(batch)
        refused = {
            name: outcome.code
            for name, outcome in zip(names, outcomes, strict=True)
            if isinstance(outcome, StateError)
        }  # fmt: skip
        assert refused == {"loser": "store/unavailable"}
        found = (await api.ok("GET", "/v1/executions"))["items"]
        assert sorted(one["execution_id"] for one in found) == ["a", "b", "c", "d", "e", "f"]


async def clock_read(store: PostgresBackend) -> None:
    """Have the database's clock read; a reading that took long is not taken."""
    while not await store._read_clock():
        pass


async def test_time_stands_where_it_would_step_back_and_follows_a_clock_that_was_set_back(
    url: str, operator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await operator.execute(SKEWED)
    monkeypatch.setattr(postgres, "TIME", postgres.TIME.replace("clock_timestamp()", "skewed()"))
    store = await connect(url, connections=2)
    assert isinstance(store, PostgresBackend)
    try:
        first = store.now()
        await operator.execute("UPDATE skew SET ms = -500")
        await clock_read(store)
        second = store.now()
        assert second >= first
        await operator.execute(f"UPDATE skew SET ms = {-HOUR_MS}")
        await clock_read(store)
        assert store.now() < second - HOUR_MS / 2
        await operator.execute(f"UPDATE skew SET ms = {HOUR_MS}")
        await clock_read(store)
        assert store.now() > second + HOUR_MS / 2
    finally:
        await store.close()
