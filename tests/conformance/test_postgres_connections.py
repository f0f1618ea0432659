"""Connections that Postgres refuses, and those that are given back meanwhile."""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from backends import connect, postgres_connections
from backends.errors import Unavailable
from backends.postgres import PostgresBackend
from backends.postgres_connections import Connections, drop
from tests.conftest import new_database

LIMIT = 2


@pytest.fixture
async def limited(postgres_server: str) -> AsyncIterator[str]:
    """A database of one's own, for a role that may have two connections."""
    url, login = await new_database(postgres_server), f"login_{uuid.uuid4().hex}"
    admin = await asyncpg.connect(url)
    await admin.execute(f"CREATE ROLE {login} LOGIN CONNECTION LIMIT {LIMIT}")
    yield re.sub(r"//[^@/]*@", f"//{login}@", url)
    await admin.execute(f"DROP ROLE {login}")
    await admin.close()


@pytest.fixture
async def store(limited: str) -> AsyncIterator[PostgresBackend]:
    """A store that would have more connections than it may."""
    backend = await connect(limited, connections=8)
    assert isinstance(backend, PostgresBackend)
    yield backend
    await backend.close()


@pytest.fixture
async def own(limited: str) -> AsyncIterator[Connections]:
    """As many connections as the role may have, and room for more."""
    pool = await asyncpg.create_pool(limited, min_size=0, max_size=LIMIT + 2)
    yield Connections(pool)
    pool.terminate()


async def standing(connections: Connections, count: int) -> list["asyncio.Task[Any]"]:
    """So many who find no connection, in line one after the other."""
    tasks: list[asyncio.Task[Any]] = []
    async with asyncio.timeout(20):
        while len(tasks) < count:
            tasks.append(asyncio.create_task(connections.take()))
            while len(connections._line) < len(tasks):
                await asyncio.sleep(0)
    return tasks


async def test_who_is_refused_a_connection_is_served_on_one_that_is_given_back(store: PostgresBackend) -> None:
    async with asyncio.timeout(20):
        asked = (store.read(lambda tx: tx.one("ping")) for _ in range(16))
        written = (store.write(lambda tx: tx.one("ping")) for _ in range(16))
        assert [row[0] for row in await asyncio.gather(*asked, *written) if row] == [1] * 32


async def test_they_are_served_in_the_order_in_which_they_came(own: Connections) -> None:
    held = [await own.take() for _ in range(LIMIT)]
    first, second, third = await standing(own, 3)
    second.cancel()
    await asyncio.wait([second])
    await own.give_back(held[0])
    await asyncio.wait([first])
    assert first.result() is held[0]
    await own.give_back(held[1])
    await asyncio.wait([third])
    assert third.result() is held[1]


async def test_one_that_came_as_its_taker_went_away_is_for_the_next(own: Connections) -> None:
    held = [await own.take() for _ in range(LIMIT)]
    first, second = await standing(own, 2)
    await own.give_back(held[0])
    first.cancel()
    await asyncio.wait([first, second])
    assert first.cancelled()
    assert second.result() is held[0]


async def test_a_connection_that_broke_makes_room_for_a_new_one(own: Connections, postgres_server: str) -> None:
    held = [await own.take() for _ in range(LIMIT)]
    pid = held[0].get_server_pid()
    waiting = await standing(own, 2)
    drop(held[0])
    await gone(postgres_server, pid)
    await own.give_back(held[0])
    async with asyncio.timeout(20):
        await asyncio.wait([*waiting], return_when=asyncio.FIRST_COMPLETED)
        assert await waiting[0].result().fetchval("SELECT 1") == 1
        await own.give_back(held[1])
        assert await waiting[1] is held[1]


async def gone(server: str, pid: int) -> None:
    """Back once Postgres has noticed that a connection was closed."""
    db = await asyncpg.connect(server)
    async with asyncio.timeout(20):
        while await db.fetchval("SELECT count(*) FROM pg_stat_activity WHERE pid = $1", pid):
            await asyncio.sleep(0.001)
    await db.close()


async def test_those_that_we_have_must_do_while_the_database_takes_no_more(
    own: Connections, limited: str, postgres_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_connections, "ACQUIRE_SECONDS", 0.5)
    held, admin = await own.take(), await asyncpg.connect(postgres_server)
    await admin.execute(f'ALTER DATABASE "{limited.partition("?")[0].rpartition("/")[2]}" ALLOW_CONNECTIONS false')
    await admin.close()
    with pytest.raises(Unavailable, match="takes no new connections"):
        await own.take()
    monkeypatch.undo()
    [waiting] = await standing(own, 1)
    await own.give_back(held)
    assert await waiting is held


async def test_none_that_is_given_back_in_time_is_unavailable_and_says_why(
    own: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_connections, "ACQUIRE_SECONDS", 0.5)
    held = [await own.take() for _ in range(LIMIT)]
    with pytest.raises(Unavailable, match="no connection left"):
        await own.take()
    await own.give_back(held[0])
    assert await own.take() is held[0]


async def test_that_all_of_ours_are_in_use_is_said(limited: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = await asyncpg.create_pool(limited, min_size=0, max_size=1)
    monkeypatch.setattr(postgres_connections, "ACQUIRE_SECONDS", 0.5)
    own = Connections(pool)
    await own.take()
    with pytest.raises(Unavailable, match="raise postgres_connections_max"):
        await own.take()
    pool.terminate()


async def test_with_none_of_ours_to_wait_for_a_refusal_is_told_at_once(
    own: Connections, limited: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_connections, "ACQUIRE_SECONDS", 60)
    others = [await asyncpg.connect(limited) for _ in range(LIMIT)]
    async with asyncio.timeout(20):
        asked = await asyncio.gather(*(own.take() for _ in range(6)), return_exceptions=True)
        assert all(isinstance(one, Unavailable) and "no connection left" in str(one) for one in asked)
        for other in others:
            await other.close()
    assert not own._line


async def make_room(server: str, url: str) -> None:
    """Let the role of `url` have two connections more."""
    admin = await asyncpg.connect(server)
    await admin.execute(f"ALTER ROLE {url.partition('//')[2].partition('@')[0]} CONNECTION LIMIT {LIMIT + 2}")
    await admin.close()


async def test_who_stands_in_line_is_served_once_postgres_has_room_again(
    own: Connections, postgres_server: str, limited: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_connections, "ACQUIRE_SECONDS", 60)
    monkeypatch.setattr(postgres_connections, "AGAIN_SECONDS", 0.01)
    held = [await own.take() for _ in range(LIMIT)]
    waiting = await standing(own, 3)
    await make_room(postgres_server, limited)
    async with asyncio.timeout(20):
        while sum(task.done() for task in waiting) < 2:
            await asyncio.wait([task for task in waiting if not task.done()], return_when=asyncio.FIRST_COMPLETED)
        assert not {task.result() for task in waiting if task.done()} & {*held}
        [last] = [task for task in waiting if not task.done()]
        await own.give_back(held[0])
        assert await last is held[0]


async def test_of_those_that_were_refused_one_asks_again_and_keeps_its_place(
    own: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = [await own.take() for _ in range(LIMIT)]
    asked, make = list[None](), own._make

    async def counted() -> Any:
        asked.append(None)
        return await make()

    async def all_in_line() -> None:
        async with asyncio.timeout(20):
            while len(own._line) < 3:
                await asyncio.sleep(0)

    monkeypatch.setattr(own, "_make", counted)
    *refused, first = [asyncio.create_task(own.take()) for _ in range(3)]
    await all_in_line()
    assert len(asked) == 2, "as many as there seemed to be room for"
    assert own._asks is not None
    own._asks.cancel()
    own._ask_again()  # a second later
    await all_in_line()
    assert (len(asked), own._asks is None) == (3, False)
    await own.give_back(held[0])
    await asyncio.wait([first])
    assert first.result() is held[0]
    for task in refused:
        task.cancel()
    await asyncio.wait(refused)


async def test_once_postgres_has_room_again_there_are_more(
    own: Connections, postgres_server: str, limited: str
) -> None:
    held = [await own.take() for _ in range(LIMIT)]
    [waiting] = await standing(own, 1)
    await make_room(postgres_server, limited)
    own._again_at = 0.0  # a second later
    assert await own.take() not in held
    waiting.cancel()
    await asyncio.wait([waiting])
