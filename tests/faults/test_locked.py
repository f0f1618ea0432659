"""Somebody else holds a lock that a write needs: the write is undone and told to come again, and all else goes on."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import apsw
import asyncpg
import pytest

from backends import connect
from backends.errors import Unavailable
from backends.sqlite import SqliteBackend
from service.alarms import sweeps as alarms
from service.alarms.model import RingAlarms
from service.errors import StateError
from service.kernel.principal import SYSTEM, internal
from service.kernel.sweeps import Sweep, Sweeper
from service.work import sweeps as work
from service.work.model import PromoteDue
from tests.conformance.jobs import adding, exists, job
from tests.conftest import Api, Service, new_database, new_store, serving
from tests.races.server import http, new_tenant, prepared, serving_process
from tests.timers.test_behaviour import kinds, timer, waiting
from tests.work.steps import QUICK, enqueue, shown
from tests.work.test_waiting import parked, turns, until

LOCK_MS = 100
AT_THE_COMMIT = """
    CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM 1 FROM waited FOR UPDATE; RETURN NULL; END $$;
    CREATE TABLE waited AS SELECT 1 AS one;
    GRANT ALL ON waited TO PUBLIC;
    CREATE CONSTRAINT TRIGGER waits AFTER INSERT ON jobs DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION wait();
"""


@pytest.fixture
async def own(fresh_url: str) -> AsyncIterator[Service]:
    """A service of one's own that has little patience."""
    async with serving(fresh_url, postgres_lock_ms_max=LOCK_MS) as service:
        backend = service.services.backend
        if isinstance(backend, SqliteBackend):
            backend._db.execute(f"PRAGMA busy_timeout = {LOCK_MS}")
        yield service


@contextlib.asynccontextmanager
async def held(url: str, tenant: str, table: str) -> AsyncIterator[None]:
    """Meanwhile a stranger holds the tenant's rows of a table; on SQLite, the file."""
    if url.startswith("sqlite"):
        file = apsw.Connection(url.removeprefix("sqlite:///"))
        try:
            file.execute("BEGIN IMMEDIATE")
            yield
        finally:
            file.close()
        return
    db = await asyncpg.connect(url)
    try:
        async with db.transaction():
            assert await db.fetch(f"SELECT 1 FROM {table} WHERE tenant_id = $1 FOR UPDATE", tenant)
            yield
    finally:
        await db.close()


async def started(api: Api, status: str = "running") -> str:
    """An execution's id."""
    made = await api.start()
    assert made["status"] == status
    return str(made["execution_id"])


async def test_a_command_that_waits_too_long_for_a_lock_is_undone_and_may_be_repeated(
    own: Service, fresh_url: str
) -> None:
    api, beside = await own.tenant(), await own.tenant()
    run = await started(api)
    change = {"expected_sequence": 1, "events": [{"kind": "x"}]}
    async with held(fresh_url, api.tenant, "executions"):
        answer = await api.http.post(f"/v1/executions/{run}/events", json=change)
        assert (answer.status_code, answer.json()["code"]) == (503, "store/unavailable")
        assert answer.headers["retry-after"] == "1"
        assert len(await api.events(run)) == 1, "a reader does not wait, and nothing was changed"
        if own.services.backend.name == "postgres":
            await started(beside)
    await api.ok("POST", f"/v1/executions/{run}/events", json=change)
    assert [event["sequence"] for event in await api.events(run)] == [1, 2]


async def test_every_lane_goes_on_behind_those_that_waited_too_long(own: Service, fresh_url: str) -> None:
    api = await own.tenant()
    run = await started(api)
    async with held(fresh_url, api.tenant, "executions"):
        sent = [api.http.post(f"/v1/executions/{run}/events", json={"events": [{"kind": "x"}]}) for _ in range(8)]
        answers = await asyncio.gather(*sent)
        assert {answer.json()["code"] for answer in answers} == {"store/unavailable"}
    assert await asyncio.gather(*(started(api) for _ in range(8)))
    assert len(await api.events(run)) == 1


async def test_an_enqueue_is_done_though_the_claim_that_it_would_serve_waits_too_long_for_a_lock(
    own: Service, fresh_url: str
) -> None:
    """A stranger is about to write under the claim's Idempotency-Key, as another process of ours that was paused."""
    if own.services.backend.name == "sqlite":
        return  # it has no locks but that of the whole file
    api = await own.tenant()
    body = {"worker_id": "w", "queues": ["q"], "wait_ms": 60_000}
    poll = asyncio.create_task(api.http.post("/v1/work-items:claim", json=body, headers={"idempotency-key": "k"}))
    await until(lambda: parked(api) == 1 and not own.services.kernel._tasks)
    await turns()
    stranger = await asyncpg.connect(fresh_url)
    try:
        async with stranger.transaction():
            await stranger.execute("INSERT INTO idempotency_keys VALUES ($1, 'k', '', 200, '', 0)", api.tenant)
            item = await enqueue(api)
            assert (await poll).json()["code"] == "store/unavailable", "it has looked by itself"
    finally:
        await stranger.close()
    assert (await shown(api, item))["status"] == "ready"


@contextlib.asynccontextmanager
async def run_held(url: str, run: str) -> AsyncIterator[None]:
    """Meanwhile a stranger holds one execution, on Postgres."""
    db = await asyncpg.connect(url)
    try:
        async with db.transaction():
            assert await db.fetch("SELECT 1 FROM executions WHERE id = $1 FOR UPDATE", run)
            yield
    finally:
        await db.close()


def event(api: Api, run: str) -> Any:
    """An append, on its way."""
    return api.http.post(f"/v1/executions/{run}/events", json={"events": [{"kind": "x"}]})


async def test_of_a_batch_only_what_needs_the_held_row_is_refused(own: Service, fresh_url: str) -> None:
    if own.services.backend.name == "sqlite":
        return  # it has no locks but that of the whole file
    api, beside = await own.tenant(), [await own.tenant() for _ in range(5)]
    held_up, own_runs = await started(api), [await started(api) for _ in range(5)]
    runs = [(one, await started(one)) for one in beside]
    async with run_held(fresh_url, held_up):
        first = asyncio.ensure_future(event(api, held_up))  # while it waits, the others gather
        asked = [event(api, held_up), *(event(one, run) for one, run in runs), *(event(api, run) for run in own_runs)]
        refused, *done = await asyncio.gather(*asked)
        assert [answer.status_code for answer in done] == [201] * 10
        assert [one.json()["code"] for one in (await first, refused)] == ["store/unavailable"] * 2
    assert (await event(api, held_up)).status_code == 201
    assert len(await api.events(held_up)) == 2


async def test_who_meets_a_held_row_again_and_again_holds_nobody_up(
    own: Service, fresh_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if own.services.backend.name == "sqlite":
        return  # it has no locks but that of the whole file
    api, beside = await own.tenant(), [await own.tenant() for _ in range(3)]
    held_up, at_large = await started(api), await started(api)
    runs = [(one, await started(one)) for one in beside]
    kernel, together, side_by_side, over = own.services.kernel, list[set[str]](), list[int](), asyncio.Event()
    try_one = kernel._tried

    async def noted(batch: Any, haste: Any) -> Any:
        together.append({one.who.tenant_id for one in batch})
        side_by_side.append(kernel._flying_apart)
        return await try_one(batch, haste)

    async def again() -> set[int]:
        answers = set()
        while not over.is_set():
            answers.add((await event(api, held_up)).status_code)
        return answers

    async with run_held(fresh_url, held_up):
        assert (await event(api, held_up)).status_code == 503
        monkeypatch.setattr(kernel, "_tried", noted)
        callers = [asyncio.create_task(again()) for _ in range(20)]
        for _ in range(10):
            assert {(await event(one, run)).status_code for one, run in runs} == {201}
        assert (await event(api, at_large)).status_code == 201
        over.set()
        assert await asyncio.gather(*callers) == [{503}] * 20
    assert all(len(tenants) == 1 for tenants in together if api.tenant in tenants)
    assert max(side_by_side) == 1, "the other lane is left to the others"
    assert len(await api.events(held_up)) == 1


async def test_a_sweep_that_waits_too_long_for_a_lock_is_put_off_and_others_have_their_turn(
    own: Service, fresh_url: str
) -> None:
    api = await own.tenant()
    item = await enqueue(api, retry=QUICK)
    await api.claim("q", lease_ms=1_000)
    own.clock.advance(1_000)
    rounds = list[str]()

    async def next_one(_: Any) -> None:
        rounds.append("next")

    sweeps = [Sweep("work.reclaim", 0, work.reclaim), Sweep("next", 0, next_one)]
    sweeper = Sweeper(own.services.backend, own.services, sweeps, 1_000, 60_000)
    await sweeper.lease.keep()
    async with held(fresh_url, api.tenant, "work_items"):
        assert not await sweeper.round()
        assert rounds == ["next"]
    assert (await api.ok("GET", "/v1/queues"))["items"][0]["leased"] == 1
    own.clock.advance(1)
    await sweeper.round()
    queue = (await api.ok("GET", "/v1/queues"))["items"][0]
    assert (queue["ready"], queue["leased"]) == (1, 0)
    assert (await shown(api, item))["status"] == "ready"
    await sweeper.lease.release()


async def test_timers_fire_beside_one_whose_run_is_locked(
    own: Service, fresh_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was paused in a transaction holds it, or an operator."""
    if own.services.backend.name == "sqlite":
        return  # it has no locks but that of the whole file
    api, beside = await own.tenant(), await own.tenant()
    held_up = await waiting(api, *(timer(seq, duration_ms=10) for seq in range(1, 6)))
    runs = [await waiting(beside, timer(1, duration_ms=20)) for _ in range(3)]
    own.clock.advance(1_000)
    batches = list[list[int]]()
    try_one = own.services.kernel._tried

    async def noted(batch: Any, haste: Any) -> Any:
        batches.append([len(one.command.names) for one in batch if isinstance(one.command, RingAlarms)])
        return await try_one(batch, haste)

    monkeypatch.setattr(own.services.kernel, "_tried", noted)
    async with held(fresh_url, api.tenant, "executions"):
        await alarms.ring(own.services)
        assert batches == [[5, 1, 1, 1], [5], [1, 1, 1], [5]], "its timers are not tried one by one"
        assert [(await kinds(beside, one))[-1] for one in runs] == ["timer.fired"] * 3
        beside = await own.tenant()
        runs = [await waiting(beside, timer(1, duration_ms=20)) for _ in range(3)]
        own.clock.advance(1_000)
        batches.clear()
        await alarms.ring(own.services)
        assert batches == [[1, 1, 1], [5]], "it goes behind all others, in a commit of its own"
        assert [(await kinds(beside, one))[-1] for one in runs] == ["timer.fired"] * 3
    await alarms.ring(own.services)
    assert (await kinds(api, held_up)).count("timer.fired") == 5
    assert not own.services.lines["alarms"].apart


async def test_an_item_that_is_locked_while_it_becomes_due_holds_up_nothing_else(own: Service, fresh_url: str) -> None:
    """Nor does a page of them."""
    if own.services.backend.name == "sqlite":
        return  # it has no locks but that of the whole file
    api, beside = await own.tenant(), await own.tenant()
    for _ in range(2):
        await enqueue(api, "held", delay_ms=500)
    await api.ok("GET", "/v1/queues")
    async with held(fresh_url, api.tenant, "work_items"):
        mine, other = await enqueue(api, delay_ms=1_000), await enqueue(beside, delay_ms=1_000)
        own.clock.advance(1_000)
        for tenant in (SYSTEM, api.tenant):
            await own.services.kernel.run(internal(tenant), PromoteDue(2))
        queues = (await api.ok("GET", "/v1/queues"))["items"]
        assert [(queue["name"], queue["ready"], queue["delayed"]) for queue in queues] == [("held", 0, 2), ("q", 1, 0)]
        assert [got["id"] for got in await api.claim("held", "q", max_items=9)] == [mine]
        assert [got["id"] for got in await beside.claim("q", max_items=9)] == [other]
        await work.promote(own.services)
    await work.promote(own.services)
    assert (await api.ok("GET", "/v1/queues"))["items"][0]["ready"] == 2


async def test_a_row_of_one_tenant_that_is_locked_holds_up_no_sweep_of_others(own: Service, fresh_url: str) -> None:
    if own.services.backend.name == "sqlite":
        return  # it has no locks but that of the whole file
    crowd = sorted([await own.tenant() for _ in range(3)], key=lambda api: api.tenant)
    for api in crowd:
        await enqueue(api)
        await api.ok("POST", "/v1/work-items:claim", json={"worker_id": "w", "queues": ["q"], "lease_ms": 1_000})
    own.clock.advance(1_000)
    async with held(fresh_url, crowd[1].tenant, "work_items"):
        for _ in range(2):  # who comes behind it in the line has its turn in the next round
            with pytest.raises(StateError, match="away or busy"):
                await work.reclaim(own.services)
        queues = [(await api.ok("GET", "/v1/queues"))["items"][0] for api in crowd]
        assert [queue["leased"] for queue in queues] == [0, 1, 0]
    await work.reclaim(own.services)
    own.clock.advance(60_000)
    await work.promote(own.services)
    assert [(await api.ok("GET", "/v1/queues"))["items"][0]["ready"] for api in crowd] == [1, 1, 1]


async def test_a_lock_that_is_missed_at_the_commit_leaves_no_doubt(postgres_server: str) -> None:
    url = await new_database(postgres_server)
    store, stranger = await connect(url, connections=2, lock_ms=LOCK_MS), await asyncpg.connect(url)
    try:
        await store.migrate()
        await stranger.execute(AT_THE_COMMIT)
        async with stranger.transaction():
            await stranger.execute("SELECT 1 FROM waited FOR UPDATE")
            with pytest.raises(Unavailable):
                await store.write(adding(job("t", "a")))
        assert not await exists(store, "t", "a")
        await store.write(adding(job("t", "a")))
        assert await exists(store, "t", "a")
    finally:
        await stranger.close()
        await store.close()


async def test_a_server_that_ends_does_not_wait_for_a_lock(postgres_server: str, tmp_path: Path) -> None:
    """Nor for a database that has stopped answering: for it that is the same."""
    url = await new_store(postgres_server)
    token, stranger = await prepared(url), await asyncpg.connect(url)
    changes = {"postgres_lock_ms_max": 50_000, "drain_seconds": 0}
    try:
        async with serving_process(url, tmp_path / "log", **changes) as server, http(server.base, token) as admin:
            await new_tenant(admin, "held")
            async with stranger.transaction():
                assert await stranger.fetch("SELECT 1 FROM tenants WHERE tenant_id = 'held' FOR UPDATE")
                asked = asyncio.ensure_future(admin.patch("/v1/tenants/held", json={"status": "suspended"}))
                async with asyncio.timeout(20):
                    while not await stranger.fetch("SELECT 1 FROM pg_locks WHERE NOT granted"):
                        await asyncio.sleep(0.01)
                assert await server.terminate() == 0
            assert (await asked).json()["code"] == "server/draining"
    finally:
        await stranger.close()


async def test_no_write_waits_longer_than_its_setting_says(postgres_server: str) -> None:
    """It comes with BEGIN, and ends with the transaction."""
    url = await new_database(postgres_server)
    async with serving(url, postgres_lock_ms_max=4_321) as service:
        backend = service.services.backend

        async def shown_by(tx: Any) -> list[str]:
            return [row[0] for row in await tx._db.fetch("SHOW lock_timeout")]

        assert await backend.write(shown_by) == ["4321ms"]
        assert await backend.read(shown_by) == ["0"]
