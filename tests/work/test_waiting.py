"""Claims that wait: answered by the commit that brings work, one for each item, and sent home when the server goes.

A test lets a claim park, then does what must wake it, and awaits the answer. A wake-up that went missing would show
only as the wait for the next look, so each test forbids looking.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from service.kernel import wake
from service.kernel.wake import Wakes
from service.work import sweeps
from tests.conftest import Api, Clock
from tests.runs.engine import started, tasks
from tests.work.steps import QUICK, enqueue, fail, settle


@pytest.fixture(autouse=True)
def no_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks by himself: only a wake-up is an answer."""
    monkeypatch.setattr(wake, "LOOK_SECONDS", 3_600.0)


def parked(api: Api) -> int:
    """How many claims of the tenant are parked and not yet woken."""
    line = api.service.services.wakes._parked.get(f"work/{api.tenant}", {})
    return sum(not one.woken.done() for one in line)


async def turns(count: int = 50) -> None:
    """Let everything that is ready to run do so."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(holds: Callable[[], bool]) -> None:
    """Let others run until something holds."""
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def waiting(api: Api, *claims: Any) -> AsyncIterator[list["asyncio.Task[list[Any]]"]]:
    """Tasks of claims that have all looked once, found nothing, and wait."""
    tasks = []
    for queues, body in claims:
        tasks.append(asyncio.create_task(api.claim(*queues, wait_ms=60_000, **body)))
        await until(lambda: parked(api) == len(tasks) and not api.service.services.kernel._tasks)
        await turns()
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def first(tasks: list["asyncio.Task[list[Any]]"]) -> list[Any]:
    """The hand of the first of the tasks that is answered."""
    async with asyncio.timeout(10):
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    return done.pop().result()


async def test_a_waiting_claim_is_answered_by_the_commit_that_enqueues(api: Api) -> None:
    async with waiting(api, (["q"], {})) as tasks:
        item = await enqueue(api)
        assert [got["id"] for got in await first(tasks)] == [item]


async def test_a_claim_that_finds_something_does_not_wait(api: Api) -> None:
    item = await enqueue(api)
    assert [got["id"] for got in await api.claim("q", wait_ms=60_000)] == [item]


async def test_a_claim_by_pattern_waits_for_every_queue_that_fits(api: Api) -> None:
    async with waiting(api, (["mail-*"], {})) as tasks:
        await enqueue(api, "sms")
        await turns()
        assert parked(api) == 1
        item = await enqueue(api, "mail-7")
        assert [got["id"] for got in await first(tasks)] == [item]


async def test_one_item_wakes_one_claim(api: Api) -> None:
    async with waiting(api, *[(["q"], {})] * 3) as tasks:
        await enqueue(api)
        assert len(await first(tasks)) == 1
        assert (sum(task.done() for task in tasks), parked(api)) == (1, 2)


async def test_as_many_claims_are_woken_as_there_are_items(api: Api) -> None:
    async with waiting(api, *[(["q"], {})] * 4) as tasks:
        await api.ok("POST", "/v1/work-items:batch", json=[{"queue": "q"}] * 3)
        await until(lambda: sum(task.done() for task in tasks) == 3)
        assert [len(task.result()) for task in tasks if task.done()] == [1, 1, 1]
        assert parked(api) == 1


async def test_items_that_come_one_after_another_find_their_claims(api: Api) -> None:
    """The second item may come while the first claim is on its way out: its wake-up goes on to the next in line."""
    async with waiting(api, *[(["q"], {})] * 3) as tasks:
        await asyncio.gather(*(enqueue(api) for _ in range(3)))
        async with asyncio.timeout(10):
            hands = await asyncio.gather(*tasks)
        assert [len(hand) for hand in hands] == [1, 1, 1]


async def test_an_item_wakes_a_claim_that_can_take_it(api: Api) -> None:
    async with waiting(api, (["q"], {}), (["p"], {}), (["q"], {"capabilities": ["gpu"]})) as tasks:
        await enqueue(api, required_capabilities=["gpu"])
        async with asyncio.timeout(10):
            assert len(await tasks[2]) == 1
        assert parked(api) == 2


async def test_a_task_of_a_workflow_wakes_a_worker_that_knows_its_type(api: Api) -> None:
    async with waiting(api, (["flows"], {"capabilities": ["workflow:other"]})):
        claim = asyncio.create_task(tasks(api, wait_ms=60_000))
        await until(lambda: parked(api) == 2 and not api.service.services.kernel._tasks)
        run = await started(api)
        async with asyncio.timeout(10):
            assert [task["execution_id"] for task in await claim] == [run]
        assert parked(api) == 1


async def test_an_item_put_off_wakes_a_claim_when_the_sweep_finds_it_due(api: Api, clock: Clock) -> None:
    async with waiting(api, (["q"], {})) as tasks:
        item = await enqueue(api, delay_ms=5_000)
        await turns()
        assert parked(api) == 1
        clock.advance(5_000)
        await sweeps.promote(api.service.services)
        assert [got["id"] for got in await first(tasks)] == [item]


@pytest.mark.parametrize("company", [[], [{"queue": "other"}]], ids=["alone", "in company"])
async def test_who_is_woken_for_one_item_and_takes_another_that_is_due_leaves_it_to_the_next(
    api: Api, clock: Clock, company: list[Any]
) -> None:
    """No sweep has told of the other one yet, and none will: it is leased."""
    async with waiting(api, *[(["q"], {})] * 3) as tasks:
        await enqueue(api, delay_ms=1_000)
        clock.advance(1_000)
        await api.ok("POST", "/v1/work-items:batch", json=[{"queue": "q"}, *company])
        await until(lambda: sum(task.done() for task in tasks) == 2)
        await turns()
        assert [len(task.result()) for task in tasks if task.done()] == [1, 1]


@pytest.mark.parametrize("end", ["complete", "release", "fail", "expire"])
async def test_what_is_handed_back_or_freed_wakes_a_claim(api: Api, clock: Clock, end: str) -> None:
    """A completed item frees its concurrency key; the others come back themselves."""
    await enqueue(api, concurrency_key="k", retry=QUICK)
    await enqueue(api, concurrency_key="k", retry=QUICK)
    [held] = await api.claim("q", lease_ms=1_000)
    async with waiting(api, (["q"], {})) as tasks:
        if end == "fail":
            await fail(api, held)
        elif end == "expire":
            clock.advance(1_000)
            await sweeps.reclaim(api.service.services)
        else:
            await settle(api, held, end)
        assert len(await first(tasks)) == 1


async def test_a_requeued_dead_letter_wakes_a_claim(api: Api) -> None:
    await enqueue(api, max_attempts=1)
    [item] = await api.claim("q")
    await fail(api, item)
    async with waiting(api, (["q"], {})) as tasks:
        await api.ok("POST", f"/v1/dead-letters/{item['id']}/requeue", json={})
        assert [got["id"] for got in await first(tasks)] == [item["id"]]


async def test_resuming_a_queue_wakes_every_claim_of_the_tenant_and_of_no_other(api: Api, other: Api) -> None:
    await api.ok("POST", "/v1/queues/q/pause")
    for _ in range(2):
        await enqueue(api)
    async with waiting(api, *[(["q"], {})] * 2) as tasks, waiting(other, (["q"], {})):
        await api.ok("POST", "/v1/queues/q/resume")
        async with asyncio.timeout(10):
            assert [len(hand) for hand in await asyncio.gather(*tasks)] == [1, 1]
        assert parked(other) == 1


async def test_a_claim_that_waited_in_vain_is_answered_empty(api: Api) -> None:
    assert await api.claim("q", wait_ms=1) == []


async def test_a_draining_server_answers_every_waiting_claim(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    services = api.service.services
    own = Wakes()
    monkeypatch.setattr(services, "wakes", own)
    async with waiting(api, *[(["q"], {})] * 3) as tasks:
        own.close()
        async with asyncio.timeout(10):
            assert await asyncio.gather(*tasks) == [[], [], []]
    assert await api.claim("q", wait_ms=60_000) == []


async def test_nothing_is_leased_to_a_caller_that_has_hung_up(api: Api) -> None:
    hung_up, sent = asyncio.Event(), []
    body = b'{"worker_id":"gone","queues":["q"],"wait_ms":60000}'
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Any:
        for message in messages:
            return message
        await hung_up.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    token = f"Bearer {api.owner_token}".encode()
    headers = [
        (b"host", b"holdfast"),
        (b"authorization", token),
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
    ]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": "/v1/work-items:claim", "raw_path": b"/v1/work-items:claim", "query_string": b"", "root_path": "",
        "headers": headers, "client": ("127.0.0.1", 1), "server": ("holdfast", 80), "extensions": {},
    }  # fmt: skip
    poll = asyncio.create_task(api.service.app(scope, receive, send))  # type: ignore[arg-type]
    async with asyncio.timeout(10):
        await until(lambda: parked(api) == 1)
        hung_up.set()
        await poll
    item = await enqueue(api)
    assert [got["id"] for got in await api.claim("q")] == [item]


async def test_a_token_revoked_meanwhile_gets_nothing(api: Api) -> None:
    minted = await api.ok("POST", "/v1/tokens", json={"name": "w", "role": "worker"})
    worker = api.service.client(minted["secret"])
    body = {"worker_id": "w", "queues": ["q"], "wait_ms": 60_000}
    poll = asyncio.create_task(worker.post("/v1/work-items:claim", json=body))
    async with asyncio.timeout(10):
        await until(lambda: parked(api) == 1)
        await turns()
        await api.ok("DELETE", f"/v1/tokens/{minted['token']['id']}")
        await enqueue(api)
        assert (await poll).json()["code"] == "auth/revoked"
    assert len(await api.claim("q")) == 1


async def test_a_wake_up_for_a_claim_that_is_refused_goes_to_the_next_in_line(api: Api) -> None:
    minted = await api.ok("POST", "/v1/tokens", json={"name": "w", "role": "worker"})
    worker = api.service.client(minted["secret"])
    body = {"worker_id": "w", "queues": ["q"], "wait_ms": 60_000}
    poll = asyncio.create_task(worker.post("/v1/work-items:claim", json=body))
    await until(lambda: parked(api) == 1)
    task = asyncio.create_task(api.claim("q", wait_ms=60_000))
    async with asyncio.timeout(10):
        await until(lambda: parked(api) == 2 and not api.service.services.kernel._tasks)
        await turns()
        await api.ok("DELETE", f"/v1/tokens/{minted['token']['id']}")
        await api.ok("POST", "/v1/work-items:batch", json=[{"queue": "q"}, {"queue": "other"}])
        assert (await poll).json()["code"] == "auth/revoked"
        assert len(await task) == 1


async def test_a_waiting_claim_under_an_idempotency_key_is_repeated_with_the_same_items(api: Api) -> None:
    body = {"worker_id": "w", "queues": ["q"], "wait_ms": 1}
    headers = {"idempotency-key": "poll-1"}
    assert (await api.ok("POST", "/v1/work-items:claim", json=body, headers=headers))["items"] == []
    item = await enqueue(api, id="a")
    await enqueue(api, id="b")
    for _ in range(2):
        hand = (await api.ok("POST", "/v1/work-items:claim", json=body, headers=headers))["items"]
        assert [got["id"] for got in hand] == [item]
