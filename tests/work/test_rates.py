"""Queues tell how fast they move: what was done to their items in the last minute, counted as commits pass."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from backends.errors import Conflict
from backends.protocol import EVERY, Tx
from service.kernel.command import Request
from service.kernel.principal import internal
from service.main import running
from service.work import throughput
from service.work.model import BUCKET_MS, RATES_MS, SETTLED_MS, EnqueueWork, ReclaimLeases, WorkItem
from service.work.store import happened
from service.work.sweeps import RATES_KEPT_MS, forget_rates
from tests.conftest import Api, Clock, Service, serving, settings_for
from tests.namespaces.test_deletion import count
from tests.runs.engine import started, submit, tasks
from tests.work.steps import QUICK, bury, enqueue, fail, settle

STILL = {"enqueued": 0.0, "claimed": 0.0, "completed": 0.0, "failed": 0.0}


def next_bucket(clock: Clock) -> None:
    """Let the next ten seconds begin."""
    clock.advance(BUCKET_MS - clock.now % BUCKET_MS)


async def told(api: Api, *, flushed: bool = True) -> dict[str, dict[str, float]]:
    """The rates of each queue."""
    if flushed:
        await api.service.services.throughput.flush()
    return {queue["name"]: queue["per_second"] for queue in (await api.ok("GET", "/v1/queues"))["items"]}


def a_second(**counts: int) -> dict[str, float]:
    """What so many things in a minute are as rates."""
    return STILL | {name: round(number / 60, 3) for name, number in counts.items()}


@contextlib.asynccontextmanager
async def serving_again(url: str, now: int) -> AsyncIterator[Service]:
    """A service over a store that has been served before, at a time."""
    clock = Clock()
    clock.now = now
    async with running(settings_for(url), clock) as services:
        yield Service(services, clock, "")


async def test_each_queue_tells_what_was_done_a_second(api: Api, other: Api, clock: Clock) -> None:
    next_bucket(clock)
    for _ in range(6):
        await enqueue(api, "a", retry=QUICK)
    await enqueue(api, "a", delay_ms=1_000_000)
    await enqueue(api, "b")
    await enqueue(other, "a")
    done, tried, held, given = await api.claim("a", max_items=4)
    await settle(api, held, "renew")
    await settle(api, done, "complete")
    await settle(api, done, "complete")  # the same answer again, and nothing done
    assert (await fail(api, tried))["outcome"] == "retry_scheduled"
    await settle(api, given, "release")
    await fail(api, held, retryable=False)
    clock.advance(BUCKET_MS + SETTLED_MS)
    assert await told(api) == {"a": a_second(enqueued=7, claimed=4, completed=1, failed=2), "b": a_second(enqueued=1)}
    assert await told(other) == {"a": a_second(enqueued=1)}


async def test_rates_are_of_whole_ten_seconds_that_ended_in_the_last_minute(api: Api, clock: Clock) -> None:
    next_bucket(clock)
    await enqueue(api, "a")
    clock.advance(BUCKET_MS + SETTLED_MS - 1)
    assert await told(api) == {"a": STILL}, "other processes may not have said yet what they did"
    await enqueue(api, "a")
    clock.advance(1)
    assert await told(api) == {"a": a_second(enqueued=1)}
    clock.advance(BUCKET_MS)
    assert await told(api) == {"a": a_second(enqueued=2)}
    clock.advance(RATES_MS - 2 * BUCKET_MS)
    assert await told(api) == {"a": a_second(enqueued=2)}
    clock.advance(BUCKET_MS)
    assert await told(api) == {"a": a_second(enqueued=1)}
    clock.advance(BUCKET_MS)
    assert await told(api) == {"a": STILL}


async def test_leases_that_run_out_dead_letters_and_their_other_lives_are_counted(api: Api, clock: Clock) -> None:
    next_bucket(clock)
    letter = await bury(api, "a")
    await api.ok("POST", f"/v1/dead-letters/{letter}/requeue", json={})
    await api.claim("a", lease_ms=1_000)
    clock.advance(1_000)
    await api.service.services.kernel.run(internal(api.tenant), ReclaimLeases())
    await enqueue(api, "b", id="given-up")
    await api.ok("POST", "/v1/work-items/given-up/dead-letter", json={"error": {"type": "bad"}})
    clock.advance(BUCKET_MS + SETTLED_MS)
    wanted = {"a": a_second(enqueued=2, claimed=2, failed=2), "b": a_second(enqueued=1, failed=1)}
    assert await told(api) == wanted


async def test_tasks_of_workflows_are_counted_on_their_queues(api: Api, clock: Clock) -> None:
    next_bucket(clock)
    await started(api)
    (task,) = await tasks(api)
    await submit(api, task, {"type": "CompleteWorkflow", "result": 1})
    clock.advance(BUCKET_MS + SETTLED_MS)
    assert await told(api) == {"flows": a_second(enqueued=1, claimed=1, completed=1)}


async def test_what_is_refused_or_undone_is_not_counted(api: Api, clock: Clock, monkeypatch: Any) -> None:
    next_bucket(clock)
    services = api.service.services
    await enqueue(api, "a", id="i")
    [item] = await api.claim("a")
    await api.refused("POST", "/v1/work-items/i/complete", "lease/stale", json={"epoch": 9})
    whole, tries = services.backend.write, itertools.count(1)

    async def undone_at_first(work: Any, *, tenants: Any = EVERY) -> Any:
        async def tried(tx: Tx) -> Any:
            found = await work(tx)
            if next(tries) == 1:
                raise Conflict("lost")
            return found

        return await whole(tried, tenants=tenants)

    with monkeypatch.context() as patched:
        patched.setattr(services.backend, "write", undone_at_first)
        pair = [Request(internal(api.tenant), EnqueueWork("b")) for _ in range(2)]
        await services.kernel.execute(pair)
    assert next(tries) == 4, "the batch was tried, and each of its halves"
    clock.advance(BUCKET_MS + SETTLED_MS)
    assert await told(api) == {"a": a_second(enqueued=1, claimed=1), "b": a_second(enqueued=2)}
    assert item["epoch"] == 1


async def test_processes_add_up(engine: str, fresh_url: str) -> None:
    """On SQLite there is one process."""
    async with contextlib.AsyncExitStack() as stack:
        services = [await stack.enter_async_context(serving(fresh_url)) for _ in range(1 if engine == "sqlite" else 2)]
        api = await services[0].tenant()
        apis = [Api(service, api.tenant, await service.token(api.tenant, "owner")) for service in services]
        next_bucket(services[0].clock)
        for one in apis:
            one.clock.now = api.clock.now
            for _ in range(30):
                await enqueue(one, "a")
        await asyncio.gather(*(one.service.services.throughput.flush() for one in apis * 2))
        for one in apis:
            one.clock.advance(BUCKET_MS + SETTLED_MS)
        for one in apis:
            assert await told(one) == {"a": a_second(enqueued=30 * len(apis))}


async def test_a_server_that_stops_writes_what_it_has_counted(fresh_url: str) -> None:
    async with serving(fresh_url) as service:
        api = await service.tenant()
        next_bucket(api.clock)
        await enqueue(api, "a")
        tenant, owner, now = api.tenant, api.owner_token, api.clock.now
    async with serving_again(fresh_url, now + BUCKET_MS + SETTLED_MS) as service:
        assert await told(Api(service, tenant, owner)) == {"a": a_second(enqueued=1)}


async def test_what_a_killed_server_had_not_written_is_missing_from_the_rates_alone(
    fresh_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def killed(_self: throughput.Throughput) -> None:
        """Nothing is written any more."""

    async with serving(fresh_url) as service:
        api = await service.tenant()
        next_bucket(api.clock)
        await enqueue(api, "a")
        tenant, owner, now = api.tenant, api.owner_token, api.clock.now
        monkeypatch.setattr(throughput.Throughput, "close", killed)
    async with serving_again(fresh_url, now + BUCKET_MS + SETTLED_MS) as service:
        again = Api(service, tenant, owner)
        assert await told(again) == {"a": STILL}
        assert [queue["ready"] for queue in (await again.ok("GET", "/v1/queues"))["items"]] == [1]


async def test_what_no_rate_tells_of_any_more_is_forgotten(api: Api, clock: Clock) -> None:
    next_bucket(clock)
    services, mine = api.service.services, f"queue_rates WHERE tenant_id = '{api.tenant}'"
    for queue in ("a", "b"):
        await enqueue(api, queue)
    await services.throughput.flush()
    clock.advance(RATES_KEPT_MS)
    await enqueue(api, "a")
    await services.throughput.flush()
    while await forget_rates(services):  # what other tests left
        pass
    assert await count(api.service, mine) == 3
    clock.advance(1)
    assert not await forget_rates(services)
    assert await count(api.service, mine) == 1


async def test_nothing_is_written_for_a_tenant_that_is_leaving(api: Api) -> None:
    services = api.service.services
    await enqueue(api, "a")
    assert (await api.admin.delete(f"/v1/tenants/{api.tenant}")).status_code == 202
    await services.throughput.flush()
    assert await count(api.service, f"queue_rates WHERE tenant_id = '{api.tenant}'") == 0


async def test_what_the_store_does_not_take_is_left_out_and_nobody_hears_of_it(
    api: Api, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any, **__: Any) -> Any:
        raise Conflict("away")

    next_bucket(clock)
    await enqueue(api, "a")
    with monkeypatch.context() as patched:
        patched.setattr(api.service.services.backend, "write", away)
        await api.service.services.throughput.flush()
    await enqueue(api, "a")
    clock.advance(BUCKET_MS + SETTLED_MS)
    assert await told(api) == {"a": a_second(enqueued=1)}


STATUSES = ("ready", "delayed", "leased", "completed", "dead", "cancelled", "discarded")
COUNTED = {
    **{(None, status): "enqueued" for status in STATUSES},
    ("dead", "ready"): "enqueued",
    ("dead", "delayed"): "enqueued",
    ("ready", "leased"): "claimed",
    ("delayed", "leased"): "claimed",
    ("leased", "completed"): "completed",
    ("leased", "ready"): "failed",
    ("leased", "delayed"): "failed",
    ("leased", "dead"): "failed",
    ("ready", "dead"): "failed",
    ("delayed", "dead"): "failed",
}
"""What becomes of an item, of those ways that it may go, and what it is counted as."""
PASSED_OVER = {
    ("ready", "cancelled"), ("delayed", "cancelled"), ("leased", "cancelled"), ("delayed", "ready"),
    ("dead", "discarded"), *((status, status) for status in STATUSES),
}  # fmt: skip


def item(status: str, attempt: int) -> WorkItem:
    """An item."""
    rest = dict.fromkeys(WorkItem.__struct_fields__)
    return WorkItem(**rest | {"tenant_id": "t", "queue": "q", "status": status, "attempt": attempt})  # type: ignore[arg-type]


@pytest.mark.parametrize(("way", "what"), [*COUNTED.items(), *((way, None) for way in PASSED_OVER)])
def test_a_step_of_an_item_counts_as_one_thing(way: tuple[str | None, str], what: str | None) -> None:
    before, after = way
    found = happened(None if before is None else item(before, 2), item(after, 2))
    assert found == (None if what is None else ("t", "q", what))


def test_a_release_is_no_failure_and_a_row_that_goes_is_nothing() -> None:
    assert happened(item("leased", 2), item("ready", 1)) is None
    assert happened(item("completed", 2), None) is None
