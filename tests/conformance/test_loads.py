"""Several set-based reads at once: in as few round trips as the store allows, and as if each had come alone."""

import asyncio
from typing import Any

import asyncpg
import pytest

from backends import connect
from backends.protocol import Row, StateBackend, Tx
from tests.conformance.jobs import adding, job, step
from tests.conftest import new_database

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


async def test_each_read_has_its_own_rows_in_its_own_order(store: StateBackend, tenant: str) -> None:
    await store.write(adding(job(tenant, "a"), job(tenant, "b", done=7), job(tenant, "c")))

    async def work(tx: Tx) -> list[list[Row]]:
        await tx.many("insert_shelves", [[tenant, "q", "gpu"]])
        return await tx.load(
            [
                ("load_jobs", [[tenant, "c"], [tenant, "b"], [tenant, "nobody's"]]),
                ("load_queues", [[tenant, "q"]]),
                ("load_shelves", [[tenant, "q", "gpu"]]),
                ("load_jobs", [[tenant, "a"]]),
            ]
        )

    jobs, queues, shelves, more = await store.write(work)
    assert [(row[1], row[6]) for row in jobs] == [("b", 7), ("c", 0)]
    assert (list(queues), [tuple(row) for row in shelves]) == ([], [(tenant, "q", "gpu")])
    assert [row[1] for row in more] == ["a"]


async def test_every_type_comes_back_from_a_load_as_it_went_in(store: StateBackend, tenant: str) -> None:
    kept = job(tenant, "a")
    await store.write(adding(kept, job(tenant, "b")))

    async def both(tx: Tx) -> list[list[Row]]:
        return await tx.load([("load_jobs", [[tenant, "a"]]), ("load_jobs", [[tenant, "a"], [tenant, "b"]])])

    first, second = await store.write(both)
    assert tuple(first[0]) == tuple(second[0]) == tuple(kept)


async def test_nothing_to_load_is_nothing(store: StateBackend, tenant: str) -> None:
    async def work(tx: Tx) -> list[list[Row]]:
        return await tx.load([("load_jobs", [[tenant, "nobody's"]]), ("load_queues", [[tenant, "nobody's"]])])

    assert [list(rows) for rows in await store.write(work)] == [[], []]


@pytest.mark.parametrize("held_too", [False, True], ids=["one", "both"])
@pytest.mark.parametrize("place", [0, 1], ids=["first", "second"])
async def test_a_locked_row_is_read_as_whoever_held_it_has_left_it(
    postgres_server: str, place: int, held_too: bool
) -> None:
    """Postgres: both reads are of one moment, but one that locks waits for the other's commit and sees what it did; and
    so does the one after it, though nobody holds its row any more by then."""
    url = await new_database(postgres_server)
    store, watcher = await connect(url, connections=4), await asyncpg.connect(url)
    await store.migrate()
    await store.write(adding(job("default", "a"), job("default", "b")))
    held, let_go = asyncio.Event(), asyncio.Event()

    async def holding(tx: Tx) -> None:
        await tx.many("update_jobs", [step(job("default", name), 5, was=0) for name in ("ab" if held_too else "a")])
        held.set()
        await let_go.wait()

    async def loading(tx: Tx) -> Any:
        reads = [("load_jobs", [["default", "a"]]), ("load_jobs", [["default", "b"]])]
        return await tx.load(reads if place == 0 else reads[::-1])

    first = asyncio.create_task(store.write(holding))
    await held.wait()
    second = asyncio.create_task(store.write(loading))
    while not await watcher.fetchval(WAITING):
        await asyncio.sleep(0)
    let_go.set()
    await first
    found = [rows[0][6] for rows in await second]
    assert found == ([5, 5] if held_too else [5, 0] if place == 0 else [0, 5])
    await watcher.close()
    await store.close()
