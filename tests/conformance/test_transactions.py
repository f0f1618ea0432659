"""All or nothing, seen at once, never by halves."""

import asyncio
import random

import pytest

from backends import connect
from backends.errors import Conflict, StoreError
from backends.protocol import Row, StateBackend, Tx
from tests.conformance.conftest import Says
from tests.conformance.jobs import adding, exists, finding, job


class Refused(Exception):
    """What a handler raises to undo its transaction."""


async def test_an_exception_leaves_no_trace(store: StateBackend, tenant: str) -> None:
    async def work(tx: Tx) -> None:
        await tx.many("insert_jobs", [job(tenant, "a")])
        tx.wake("never")
        raise Refused

    heard: list[str] = []
    store.subscribe(lambda channel, _count: heard.append(channel))
    with pytest.raises(Refused):
        await store.write(work)
    assert not await exists(store, tenant, "a")
    assert "never" not in heard


async def test_a_unique_violation_is_a_conflict_and_leaves_no_trace(store: StateBackend, tenant: str) -> None:
    await store.write(adding(job(tenant, "taken")))
    with pytest.raises(Conflict):
        await store.write(adding(job(tenant, "new"), job(tenant, "taken")))
    assert not await exists(store, tenant, "new")


async def test_a_check_that_fails_is_a_conflict(store: StateBackend, tenant: str) -> None:
    bad = job(tenant, "bad")
    bad[3] = "no such status"
    with pytest.raises(Conflict):
        await store.write(adding(bad))


async def test_a_missing_parent_is_a_conflict(store: StateBackend, tenant: str) -> None:
    async def work(tx: Tx) -> int:
        return await tx.many("insert_snapshots", [[tenant, "nowhere", 1, b"{}", 1]])

    with pytest.raises(Conflict):
        await store.write(work)


async def test_an_error_that_a_handler_swallows_is_never_a_silent_loss(store: StateBackend, tenant: str) -> None:
    """A statement fails, the handler goes on: what `write` then returns as done must be there."""
    await store.write(adding(job(tenant, "taken")))

    async def work(tx: Tx) -> None:
        await tx.many("insert_jobs", [job(tenant, "kept")])
        try:
            await tx.many("insert_jobs", [job(tenant, "taken")])
        except Exception:  # the driver's own error: what kind it is does not matter here
            return

    try:
        await store.write(work)
        acknowledged = True
    except StoreError:
        acknowledged = False
    assert await exists(store, tenant, "kept") == acknowledged


async def test_a_write_is_seen_by_the_next_read(store: StateBackend, tenant: str) -> None:
    for n in range(20):
        await store.write(adding(job(tenant, f"j{n}")))
        assert await exists(store, tenant, f"j{n}")
        assert await store.read(finding(tenant, f"j{n}"), scan=True) is not None


async def test_a_handler_sees_its_own_writes(store: StateBackend, tenant: str) -> None:
    async def work(tx: Tx) -> Row | None:
        await tx.many("insert_jobs", [job(tenant, "a")])
        return await tx.one("read_job", tenant_id=tenant, id="a")

    assert await store.write(work) is not None


async def test_an_open_write_is_invisible_to_readers(store: StateBackend, tenant: str) -> None:
    async def work(tx: Tx) -> bool:
        await tx.many("insert_jobs", [job(tenant, "a")])
        return await exists(store, tenant, "a")

    assert await store.write(work) is False
    assert await exists(store, tenant, "a")


async def test_a_scan_is_one_snapshot_whatever_is_committed_meanwhile(store: StateBackend, tenant: str) -> None:
    await store.write(adding(job(tenant, "before")))

    async def scan(tx: Tx) -> tuple[Row | None, Row | None]:
        first = await finding(tenant, "before")(tx)
        await store.write(adding(job(tenant, "meanwhile")))
        return first, await finding(tenant, "meanwhile")(tx)

    first, second = await store.read(scan, scan=True)
    assert first is not None
    assert second is None
    assert await store.read(finding(tenant, "meanwhile"), scan=True) is not None


async def test_a_scan_that_fails_or_is_given_up_does_not_hold_up_the_next(store: StateBackend, tenant: str) -> None:
    async def broken(tx: Tx) -> None:
        await tx.one("ping")
        raise Refused

    with pytest.raises(Refused):
        await store.read(broken, scan=True)
    chance = random.Random(5)
    for _ in range(60):
        task = asyncio.ensure_future(store.read(finding(tenant, "x"), scan=True))
        for _ in range(chance.randrange(8)):
            await asyncio.sleep(0)
        task.cancel()
        if chance.random() < 0.5:
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await store.write(adding(job(tenant, "x")))
    for _ in range(4):  # whichever reader it is, none looks at what was
        assert await store.read(finding(tenant, "x"), scan=True) is not None


async def test_a_scan_cannot_write(store: StateBackend, tenant: str) -> None:
    with pytest.raises((StoreError, AttributeError)):
        await store.read(lambda tx: tx.many("insert_jobs", [job(tenant, "a")]), scan=True)
    assert not await exists(store, tenant, "a")


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_cancelled_caller_leaves_all_or_nothing_and_the_next_writer_unharmed(
    store: StateBackend, tenant: str, seed: int
) -> None:
    chance = random.Random(seed)
    for n in range(120):
        task = asyncio.ensure_future(store.write(adding(job(tenant, f"a{n}"), job(tenant, f"b{n}"))))
        for _ in range(chance.randrange(14)):
            await asyncio.sleep(0)
        task.cancel()
        await store.write(adding(job(tenant, f"next{n}")))
        await asyncio.gather(task, return_exceptions=True)
        assert await exists(store, tenant, f"next{n}")
    for n in range(120):
        assert await exists(store, tenant, f"a{n}") == await exists(store, tenant, f"b{n}"), n


async def test_a_refusal_cancelled_while_it_is_undone_leaves_no_trace(store: StateBackend, tenant: str) -> None:
    chance = random.Random(3)

    async def refused(n: int) -> None:
        async def work(tx: Tx) -> None:
            await tx.many("insert_jobs", [job(tenant, f"r{n}")])
            raise Refused

        await store.write(work)

    for n in range(120):
        task = asyncio.ensure_future(refused(n))
        for _ in range(chance.randrange(14)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.write(adding(job(tenant, f"next{n}")))
    for n in range(120):
        assert not await exists(store, tenant, f"r{n}"), n
        assert await exists(store, tenant, f"next{n}"), n


async def test_writers_at_once_lose_nothing(store: StateBackend, tenant: str, says: Says) -> None:
    says("bump", "UPDATE jobs SET done = done + 1 WHERE tenant_id = :tenant_id AND id = 'counter'")
    await store.write(adding(job(tenant, "counter")))
    await asyncio.gather(*(store.write(lambda tx: tx.run("bump", tenant_id=tenant)) for _ in range(100)))
    row = await store.read(finding(tenant, "counter"))
    assert row is not None
    assert row[6] == 100


async def test_what_was_written_is_there_after_the_store_was_closed_and_opened(fresh_url: str) -> None:
    first = await connect(fresh_url)
    await first.migrate()
    await first.write(adding(job("t", "a", detail=b"\x00kept")))
    await first.close()
    second = await connect(fresh_url)
    try:
        row = await second.read(finding("t", "a"))
        assert row is not None
        assert row[4] == b"\x00kept"
    finally:
        await second.close()


async def test_the_clock_of_a_transaction_stands(fresh_url: str) -> None:
    ticks = iter(range(1_000, 2_000))
    store = await connect(fresh_url, clock=lambda: next(ticks))
    try:
        await store.migrate()

        async def work(tx: Tx) -> tuple[int, int]:
            first = tx.now
            await tx.one("ping")
            return first, tx.now

        first, second = await store.write(work)
        assert first == second
        assert store.now() > first
    finally:
        await store.close()
