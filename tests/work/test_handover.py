"""Handed over: a claim that waits is served by the very commit that brings work, and nobody suffers by it.

Nobody looks by himself: what is not handed over shows as a second transaction, what is lost as a test that ends late.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from backends.errors import Conflict, OutcomeUnknown, StoreError
from backends.protocol import Tenants, Work
from service.kernel.command import Request
from service.kernel.run import Kernel
from service.work import sweeps
from service.work.model import ClaimWork
from tests.conftest import Api, Clock
from tests.work.steps import QUICK, enqueue, settle
from tests.work.test_waiting import first, no_looking, parked, turns, until, waiting

__all__ = ["no_looking"]


@pytest.fixture
def commits(api: Api, monkeypatch: pytest.MonkeyPatch) -> list[Tenants]:
    """Every transaction that writes."""
    backend, made = api.service.services.backend, list[Tenants]()
    write = backend.write

    async def counted(work: Work[Any], *, tenants: Tenants = None) -> Any:
        made.append(tenants)
        return await write(work, tenants=tenants)

    monkeypatch.setattr(backend, "write", counted)
    return made


async def test_a_waiting_claim_is_leased_by_the_commit_that_enqueues(api: Api, commits: list[Tenants]) -> None:
    async with waiting(api, (["q"], {})) as tasks:
        commits.clear()
        item = await enqueue(api)
        [got] = await first(tasks)
        assert (got["id"], got["epoch"], got["attempt"], len(commits)) == (item, 1, 1, 1)
    assert (await settle(api, got, "complete"))["status"] == "completed"


async def test_as_many_go_along_as_there_is_work_for_and_the_others_are_left_alone(
    api: Api, clock: Clock, commits: list[Tenants]
) -> None:
    for _ in range(3):
        await enqueue(api, delay_ms=1_000)
    async with waiting(api, (["q"], {"max_items": 2}), *[(["q"], {})] * 3) as tasks:
        clock.advance(1_000)
        commits.clear()
        await sweeps.promote(api.service.services)
        await until(lambda: sum(task.done() for task in tasks) == 2)
        await turns()
        assert [len(task.result()) for task in tasks[:2]] == [2, 1]
        assert (any(commits), parked(api)) == (False, 2)


async def test_what_comes_in_company_wakes_who_waits_and_those_look_together(api: Api, commits: list[Tenants]) -> None:
    async with waiting(api, *[(["q"], {})] * 3) as tasks:
        commits.clear()
        await api.ok("POST", "/v1/work-items:batch", json=[{"queue": "q"}] * 3)
        async with asyncio.timeout(10):
            assert [len(hand) for hand in await asyncio.gather(*tasks)] == [1, 1, 1]
        assert len(commits) >= 2


async def test_what_comes_back_is_handed_over_too(api: Api, clock: Clock, commits: list[Tenants]) -> None:
    item = await enqueue(api, retry=QUICK)
    await api.claim("q", worker_id="dies", lease_ms=1_000)
    async with waiting(api, (["q"], {"worker_id": "waits"})) as tasks:
        clock.advance(1_000)
        commits.clear()
        await sweeps.reclaim(api.service.services)
        [got] = await first(tasks)
        assert (got["id"], got["epoch"], got["attempt"]) == (item, 2, 2)
        assert commits and not any(commits), "it is the sweep's, which is of all tenants"


async def test_of_two_items_with_one_key_one_is_handed_over_and_the_other_when_the_key_is_free(api: Api) -> None:
    async with waiting(api, *[(["q"], {})] * 2) as tasks:
        await api.ok("POST", "/v1/work-items:batch", json=[{"queue": "q", "concurrency_key": "k"}] * 2)
        [got] = await first(tasks)
        await until(lambda: parked(api) == 1 and not api.service.services.kernel._tasks)
        assert sum(task.done() for task in tasks) == 1
        await settle(api, got, "complete")
        async with asyncio.timeout(10):
            assert [len(hand) for hand in await asyncio.gather(*tasks)] == [1, 1]


async def test_a_queue_that_is_paused_hands_nothing_over(api: Api) -> None:
    await api.ok("POST", "/v1/queues/q/pause")
    async with waiting(api, (["q"], {})) as tasks:
        await enqueue(api)
        await until(lambda: parked(api) == 1 and not api.service.services.kernel._tasks)
        assert not tasks[0].done()
        await api.ok("POST", "/v1/queues/q/resume")
        assert len(await first(tasks)) == 1


async def test_a_claim_under_an_idempotency_key_that_was_handed_over_is_repeated(api: Api) -> None:
    headers, body = {"idempotency-key": "k"}, {"worker_id": "w", "queues": ["q"], "wait_ms": 60_000}
    poll = asyncio.create_task(api.ok("POST", "/v1/work-items:claim", json=body, headers=headers))
    await until(lambda: parked(api) == 1 and not api.service.services.kernel._tasks)
    await turns()
    item = await enqueue(api)
    async with asyncio.timeout(10):
        found = await poll
    assert [got["id"] for got in found["items"]] == [item]
    assert await api.ok("POST", "/v1/work-items:claim", json=body, headers=headers) == found


Decided = Callable[[Any, Sequence[Request]], Any]


def failing(kernel: Kernel, monkeypatch: pytest.MonkeyPatch, error: Exception) -> Counter[str]:
    """The first claim to go along with a batch fails; how often what was decided."""
    decide, told = kernel._decided, Counter[str]()

    async def once(tx: Any, batch: Sequence[Request]) -> Any:
        kinds = {type(request.command) for request in batch}
        told.update(kind.__name__ for kind in kinds)
        if kinds == {ClaimWork} and told["ClaimWork"] == 1:
            raise error
        return await decide(tx, batch)

    monkeypatch.setattr(kernel, "_decided", once)
    return told


@pytest.mark.parametrize("error", [Conflict("no"), StoreError("no"), RuntimeError("no")], ids=repr)
async def test_a_claim_that_cannot_go_along_costs_the_enqueue_nothing_and_looks_by_itself(
    api: Api, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async with waiting(api, (["q"], {})) as tasks:
        told = failing(api.service.services.kernel, monkeypatch, error)
        item = await enqueue(api)
        assert [got["id"] for got in await first(tasks)] == [item]
        assert told == {"EnqueueWork": 2, "ClaimWork": 2}, "without company, and a look"
        assert (await api.ok("GET", f"/v1/work-items/{item}"))["attempt"] == 1


async def test_when_nobody_knows_whether_it_was_committed_it_is_not_done_again(
    api: Api, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the answer to the claim had been lost: its lease ends, and it is handed out again."""
    backend = api.service.services.backend
    write = backend.write

    async def unknown(work: Work[Any], *, tenants: Tenants = None) -> Any:
        await write(work, tenants=tenants)
        monkeypatch.setattr(backend, "write", write)
        raise OutcomeUnknown("the connection was lost")

    async with waiting(api, (["q"], {"lease_ms": 1_000})) as tasks:
        monkeypatch.setattr(backend, "write", unknown)
        item = {"queue": "q", "id": "a", "retry": QUICK}
        await api.refused("POST", "/v1/work-items", "store/outcome-unknown", json=item)
        await until(lambda: parked(api) == 1 and not api.service.services.kernel._tasks)
        assert (await api.ok("GET", "/v1/work-items/a"))["status"] == "leased"
        clock.advance(1_000)
        await sweeps.reclaim(api.service.services)
        [got] = await first(tasks)
        assert (got["id"], got["epoch"]) == ("a", 2)


async def test_a_tenant_with_limits_is_served_alike_and_its_items_are_counted(api: Api, commits: list[Tenants]) -> None:
    admin = api.service.client(api.service.admin)
    await admin.patch(f"/v1/tenants/{api.tenant}", json={"limits": {"ready_work_items": 1}})
    for _ in range(2):
        async with waiting(api, (["q"], {})) as tasks:
            commits.clear()
            await enqueue(api)
            assert (len(await first(tasks)), len(commits)) == (1, 1)
    await enqueue(api)
    await api.refused("POST", "/v1/work-items", "limit/ready-work-items", json={"queue": "q"})


async def test_another_tenants_waiter_is_given_nothing(api: Api, other: Api, commits: list[Tenants]) -> None:
    async with waiting(other, (["q"], {})) as theirs, waiting(api, (["q"], {})) as ours:
        commits.clear()
        item = await enqueue(api)
        assert [got["id"] for got in await first(ours)] == [item]
        assert (len(commits), theirs[0].done(), parked(other)) == (1, False, 1)


async def test_a_worker_whose_queues_were_named_gets_nothing_else(api: Api) -> None:
    minted = await api.ok("POST", "/v1/tokens", json={"name": "w", "role": "worker", "queues": ["mail-*"]})
    worker = api.service.client(minted["secret"])
    body = {"worker_id": "w", "queues": ["mail-*"], "wait_ms": 60_000}
    poll = asyncio.create_task(worker.post("/v1/work-items:claim", json=body))
    await until(lambda: parked(api) == 1 and not api.service.services.kernel._tasks)
    await turns()
    await enqueue(api, "sms")
    assert parked(api) == 1
    item = await enqueue(api, "mail-1")
    async with asyncio.timeout(10):
        assert [got["id"] for got in (await poll).json()["items"]] == [item]
