"""Several set-based writes at once: in as few round trips as the store allows, and as if each had come alone."""

import pytest

from backends.errors import Conflict
from backends.protocol import StateBackend, Tx
from tests.conformance.jobs import adding, exists, finding, job, step


async def test_each_write_tells_how_many_rows_it_touched(store: StateBackend, tenant: str) -> None:
    async def work(tx: Tx) -> list[int]:
        return await tx.save(
            [
                ("insert_jobs", [job(tenant, "a"), job(tenant, "b")]),
                ("insert_shelves", [[tenant, "q", ""]]),
                ("insert_queues", [[tenant, name, None, None, 1] for name in ("q", "r", "s")]),
            ]
        )

    assert await store.write(work) == [2, 1, 3]
    assert await exists(store, tenant, "b")


async def test_nothing_to_save_is_nothing(store: StateBackend) -> None:
    async def work(tx: Tx) -> list[int]:
        return await tx.save([])

    assert await store.write(work) == []


async def test_a_guard_that_holds_a_row_back_shows_in_its_own_count(store: StateBackend, tenant: str) -> None:
    await store.write(adding(job(tenant, "a"), job(tenant, "b", done=7)))

    async def work(tx: Tx) -> list[int]:
        rows = [step(job(tenant, "a"), 1, was=0), step(job(tenant, "b"), 1, was=0)]
        return await tx.save([("insert_shelves", [[tenant, "q", ""]]), ("update_jobs", rows)])

    assert await store.write(work) == [1, 1]


async def test_a_table_may_be_written_twice_as_long_as_no_row_is(store: StateBackend, tenant: str) -> None:
    await store.write(adding(job(tenant, "a")))

    async def work(tx: Tx) -> list[int]:
        return await tx.save(
            [
                ("update_jobs", [step(job(tenant, "a"), 5, was=0)]),
                ("insert_shelves", [[tenant, "q", ""]]),
                ("insert_jobs", [job(tenant, "b")]),
            ]
        )

    assert await store.write(work) == [1, 1, 1]
    found = await store.read(finding(tenant, "a"))
    assert found is not None
    assert 5 in list(found)
    assert await exists(store, tenant, "b")


async def test_one_refused_write_undoes_those_beside_it(store: StateBackend, tenant: str) -> None:
    await store.write(adding(job(tenant, "taken")))

    async def work(tx: Tx) -> list[int]:
        return await tx.save([("insert_shelves", [[tenant, "lost", ""]]), ("insert_jobs", [job(tenant, "taken")])])

    with pytest.raises(Conflict):
        await store.write(work)

    async def shelves(tx: Tx) -> int:
        return len(await tx.all("load_shelves", rows=[[tenant, "lost", ""]]))

    assert await store.read(shelves) == 0
