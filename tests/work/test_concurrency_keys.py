"""Of the items with one concurrency key at most one is leased at a time, whoever claims; it hides nothing else."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import pytest

from backends.protocol import Tenants
from service.kernel.command import Request
from service.kernel.principal import internal
from service.kernel.working_set import HEIRS_MAX
from service.work import sweeps
from service.work.model import ClaimWork, CompleteWork
from tests.conftest import Api, Clock, serving
from tests.work.steps import QUICK, enqueue, fail, settle, shown
from tests.work.test_handover import commits
from tests.work.test_settle_and_claim import CLAIM, asking, completed
from tests.work.test_waiting import first, no_looking, parked, turns, until, waiting

__all__ = ["commits", "no_looking"]


async def keyed(api: Api, key: str, *names: str, queue: str = "q", **body: object) -> None:
    """Enqueue items with a key."""
    for name in names:
        await enqueue(api, queue, id=name, concurrency_key=key, retry=QUICK, **body)


async def got(api: Api, *queues: str, max_items: int = 9) -> list[str]:
    """The ids that a claim gets."""
    return [item["id"] for item in await api.claim(*(queues or ("q",)), max_items=max_items)]


async def test_one_claim_gets_the_first_item_of_each_key_and_all_without(api: Api) -> None:
    await keyed(api, "a", "a1", "a2", "a3")
    await enqueue(api, id="free1")
    await keyed(api, "b", "b1", "b2")
    await enqueue(api, id="free2")
    assert sorted(await got(api)) == ["a1", "b1", "free1", "free2"]
    assert await got(api) == []


async def test_who_holds_a_key_is_found_by_it_in_whichever_queue(api: Api) -> None:
    await keyed(api, "a", "a1", queue="elsewhere")
    await keyed(api, "a", "a2", "a3")
    await keyed(api, "b", "b1")
    assert await got(api, "elsewhere") == ["a1"] and await got(api) == ["b1"]
    params = {"filter": "concurrency_key = 'a' AND status = 'leased'"}
    [holding] = (await api.ok("GET", "/v1/work-items", params=params))["items"]
    assert (holding["id"], holding["queue"], holding["lease"]["worker_id"]) == ("a1", "elsewhere", "w1")
    waiting = await api.ok("GET", "/v1/work-items", params={"filter": "concurrency_key = 'a' AND status = 'ready'"})
    assert sorted(item["id"] for item in waiting["items"]) == ["a2", "a3"]


@pytest.mark.parametrize("delay_ms", [0, 1_000])
async def test_a_busy_key_at_the_head_hides_nothing_behind_it(api: Api, clock: Clock, delay_ms: int) -> None:
    """Also where it was put off, and no sweep has seen that its time has come."""
    await keyed(api, "a", *(f"a{n}" for n in range(8)), priority=9, delay_ms=delay_ms)
    clock.advance(delay_ms)
    assert await got(api, max_items=1) == ["a0"]
    await enqueue(api, id="free")
    assert await got(api, max_items=1) == ["free"]


async def test_many_items_of_one_key_do_not_fill_a_claim(api: Api) -> None:
    await keyed(api, "a", *(f"a{n}" for n in range(6)), priority=9)
    await keyed(api, "b", *(f"b{n}" for n in range(6)), priority=8)
    await enqueue(api, id="free")
    assert await got(api, max_items=3) == ["a0", "b0", "free"]


@pytest.mark.parametrize(("queue", "delay_ms"), [("elsewhere", 0), ("q", 10)])
async def test_what_lies_behind_a_key_that_fills_a_claim_comes_before_what_is_less_urgent(
    api: Api, clock: Clock, queue: str, delay_ms: int
) -> None:
    """Also of another queue, or put off until now."""
    await enqueue(api, queue, id="cold", delay_ms=delay_ms)
    clock.advance(delay_ms)
    await keyed(api, "a", "a1", "a2", "a3", priority=9)
    await enqueue(api, id="hot", priority=8)
    assert await got(api, "q", "elsewhere", max_items=2) == ["a1", "hot"]
    assert await got(api, "q", "elsewhere", max_items=2) == ["cold"]


async def test_of_a_key_in_two_queues_the_more_urgent_item_comes_first_though_it_is_further_behind(api: Api) -> None:
    await keyed(api, "b", "b1", queue="elsewhere")
    await keyed(api, "a", "a1", "a2", "a3", priority=9)
    await keyed(api, "b", "b2", priority=8)
    assert await got(api, "q", "elsewhere", max_items=2) == ["a1", "b2"]


async def test_a_claim_hides_nothing_of_what_it_leaves_from_the_next_one_of_its_transaction(api: Api) -> None:
    await keyed(api, "a", *(f"a{n}" for n in range(5)), priority=9)
    for name in ("hot", "warm"):
        await enqueue(api, id=name, priority=8)
    await keyed(api, "b", "b1", queue="elsewhere")
    kernel, who = api.service.services.kernel, internal(api.tenant)
    claims = ClaimWork("w", ["q", "elsewhere"], 3), ClaimWork("w", ["elsewhere"])
    hands, _ = await kernel.backend.write(lambda tx: kernel._decided(tx, [Request(who, claim) for claim in claims]))
    assert [[item.id for item in hand.items] for hand in hands] == [["a0", "hot", "warm"], ["b1"]]


@pytest.mark.parametrize("seed", range(3))
async def test_claims_get_what_is_first_of_all_that_is_free_however_keys_lie(api: Api, clock: Clock, seed: int) -> None:
    """Up to as many items as a batch takes looks."""
    random = Random(seed)
    ready: dict[str, Waits] = {}
    for n in range(50):
        priority, delay, name, queue = random.randint(0, 3), random.randint(0, 1), f"i{n:02}", random.choice("pqr")
        key = random.choice((None, "a", "b", "c", "d"))
        ready[name] = -priority, delay, name, queue, key
        await enqueue(api, queue, id=name, priority=priority, delay_ms=delay, concurrency_key=key)
    clock.advance(1)
    held: set[str | None] = set()
    for _ in range(16):
        queues, most = random.sample("pqr", random.randint(1, 3)), random.randint(1, 8)
        items = await api.claim(*queues, max_items=most)
        assert [item["id"] for item in items] == first_free(ready, queues, most, held), queues
        for item in items:
            key = ready.pop(item["id"])[4]
            if random.random() < 0.5:
                await settle(api, item, "complete")
                held.discard(key)


Waits = tuple[int, int, str, str, str | None]
"""An item in the order of claims: priority, turned round; how late it became ready; id; then its queue and its key."""


def first_free(ready: dict[str, Waits], queues: list[str], most: int, held: set[str | None]) -> list[str]:
    """What a claim should get of `ready`, whose keys are held from then on."""
    found = list[str]()
    for _, _, name, queue, key in sorted(ready.values()):
        if len(found) < most and queue in queues and key not in held:
            found.append(name)
            held.update([key] if key else [])
    return found


async def test_a_key_is_free_again_once_its_item_is_settled_however_that_is(api: Api, clock: Clock) -> None:
    await keyed(api, "k", "i1", "i2", "i3", "i4", "i5", max_attempts=9)
    [first] = await api.claim("q")
    await settle(api, first, "complete")
    [second] = await api.claim("q")
    await settle(api, second, "fail", error={"type": "x"}, retryable=False)
    [third] = await api.claim("q")
    await settle(api, third, "release", delay_ms=60_000)
    [fourth] = await api.claim("q", lease_ms=1_000)
    assert fourth["id"] == "i4"
    clock.advance(1_000)
    assert await got(api) == []  # it ran out, but nobody took it back: it may still be at work
    await sweeps.reclaim(api.service.services)
    [fifth] = await api.claim("q")
    assert fifth["id"] in ("i4", "i5")
    await api.ok("POST", f"/v1/work-items/{fifth['id']}/dead-letter", json={"error": {"type": "unwanted"}})
    assert len(await got(api)) == 1


async def test_cancelling_an_execution_frees_its_keys(api: Api) -> None:
    run = (await api.start(start={"queue": "q", "concurrency_key": "k"}))["execution_id"]
    await keyed(api, "k", "next")
    assert len(await got(api)) == 1
    await api.ok("POST", f"/v1/executions/{run}/status", json={"status": "cancelled"})
    assert await got(api) == ["next"]


async def test_a_key_holds_over_queues_and_capabilities_and_within_one_tenant(api: Api, other: Api) -> None:
    await keyed(api, "k", "a", queue="a")
    await keyed(api, "k", "b", queue="b", required_capabilities=["gpu"])
    await keyed(other, "k", "theirs", queue="a")
    assert [item["id"] for item in await api.claim("a", "b", max_items=9, capabilities=["gpu"])] == ["a"]
    assert await got(other, "a") == ["theirs"]


async def test_claims_at_once_never_lease_two_items_of_a_key(api: Api) -> None:
    for key in "abc":
        await keyed(api, key, *(f"{key}{n}" for n in range(6)))
        await keyed(api, key, *(f"{key}{n}p" for n in range(6)), queue="p")
    await enqueue(api, id="free")
    claims = [got(api, queues, max_items=1 + n % 3) for n, queues in enumerate(["q", "p", "*"] * 6)]
    hands = await asyncio.gather(*claims)
    counted = Counter(name[0] for hand in hands for name in hand)
    assert counted == {"a": 1, "b": 1, "c": 1, "f": 1}


async def test_claims_in_one_transaction_do_not_choose_one_key_twice(api: Api) -> None:
    """Otherwise the unique index would undo the batch."""
    await keyed(api, "k", "a", queue="a")
    await keyed(api, "k", "b", queue="b")
    kernel, who = api.service.services.kernel, internal(api.tenant)
    batch = [Request(who, ClaimWork("w", [queue])) for queue in ("a", "b")]
    hands, _ = await kernel.backend.write(lambda tx: kernel._decided(tx, batch))
    assert [len(hand.items) for hand in hands] == [1, 0]


async def test_settling_and_claiming_at_once_every_item_of_a_key_is_done_once_and_alone(api: Api) -> None:
    names = {f"i{n}" for n in range(12)}
    await keyed(api, "k", *names)
    done: list[str] = []

    async def work() -> None:
        while len(done) < len(names):
            for item in await api.claim("q", max_items=2):
                await settle(api, item, "complete")
                done.append(item["id"])

    await asyncio.gather(*(work() for _ in range(4)))
    assert sorted(done) == sorted(names)


async def test_a_retry_of_a_keyed_item_waits_its_turn_like_any_other(api: Api) -> None:
    await keyed(api, "k", "one", "two")
    [first] = await api.claim("q")
    await fail(api, first)
    assert len(await got(api)) == 1


async def test_of_two_processes_that_claim_at_once_one_gets_the_key(engine: str, fresh_url: str) -> None:
    """On SQLite there is no second process; two services over one database stand for them on Postgres."""
    async with contextlib.AsyncExitStack() as stack:
        services = [await stack.enter_async_context(serving(fresh_url)) for _ in range(1 if engine == "sqlite" else 2)]
        api = await services[0].tenant()
        apis = [Api(service, api.tenant, await service.token(api.tenant, "owner")) for service in services]
        for key in "abcd":
            await keyed(api, key, *(f"{key}{n}" for n in range(5)))
        for turn in range(1, 6):
            hands = await asyncio.gather(*(one.claim("q", max_items=2) for one in apis * 3))
            items = [item for hand in hands for item in hand]
            assert sorted(item["id"][0] for item in items) == list("abcd"), turn
            await asyncio.gather(*(settle(apis[n % len(apis)], item, "complete") for n, item in enumerate(items)))
        assert await got(api) == []


# ── a key that becomes free, and who waits for it elsewhere ────────────────────────────────────────────────────────

Frees = Callable[[Api, Clock, Any], Awaitable[Any]]
DEATH = {"type": "x", "message": ""}


async def transit(api: Api, item: Any, *changes: Any) -> None:
    """Changes to the execution of an item, under its lease."""
    body = {"lease": {"work_item_id": item["id"], "epoch": item["epoch"]}, "changes": list(changes)}
    await api.ok("POST", f"/v1/executions/{item['execution_id']}/transitions", json=body)


async def expire(api: Api, clock: Clock, _item: Any) -> None:
    """Its lease is taken back."""
    clock.advance(1_000)
    await sweeps.reclaim(api.service.services)


FREES: dict[str, Frees] = {
    "completed": lambda api, _, item: settle(api, item, "complete"),
    "failed, to be tried again at once": lambda api, _, item: fail(api, item),
    "failed for good": lambda api, _, item: fail(api, item, retryable=False),
    "released for later": lambda api, _, item: settle(api, item, "release", delay_ms=60_000),
    "given up by its holder": lambda api, _, item: settle(api, item, "dead-letter", error=DEATH),
    "given up by an operator": lambda api, _, item: api.ok(
        "POST", f"/v1/work-items/{item['id']}/dead-letter", json={"error": DEATH}
    ),
    "lost": expire,
    "settled by a transition": lambda api, _, item: transit(api, item, {"type": "settle", "outcome": "completed"}),
    "cancelled with its execution": lambda api, _, item: api.ok(
        "POST", f"/v1/executions/{item['execution_id']}/status", json={"status": "cancelled"}
    ),
}


async def keyed_run(api: Api) -> Any:
    """An item with the key `k` on the queue `q` that somebody holds, of an execution of its own."""
    run = (await api.start())["execution_id"]
    body = {"execution_id": run, "concurrency_key": "k", "retry": QUICK, "required_capabilities": ["cpu"]}
    await enqueue(api, "q", **body)
    [item] = await api.claim("q", lease_ms=1_000, capabilities=["cpu"])
    return item


@pytest.mark.parametrize(("queue", "capability"), [("other", "cpu"), ("q", "gpu")], ids=["queue", "capabilities"])
@pytest.mark.parametrize("frees", FREES.values(), ids=FREES)
async def test_who_waits_elsewhere_for_a_key_is_served_by_the_commit_that_frees_it(
    api: Api, clock: Clock, commits: list[Tenants], frees: Frees, queue: str, capability: str
) -> None:
    held = await keyed_run(api)
    await keyed(api, "k", "next", queue=queue, required_capabilities=[capability])
    async with waiting(api, ([queue], {"capabilities": [capability]})) as tasks:
        commits.clear()
        await frees(api, clock, held)
        assert [got["id"] for got in await first(tasks)] == ["next"]
        assert len(commits) == 1 or frees is expire  # a sweep notes where it has come to


async def test_a_key_that_is_freed_in_company_wakes_who_waits_elsewhere(api: Api) -> None:
    for key in "abc":
        await keyed(api, key, f"{key}1")
        await keyed(api, key, f"{key}2", queue=f"of-{key}")
    items = await api.claim("q", max_items=3)
    async with waiting(api, *[([f"of-{key}"], {}) for key in "abc"]) as tasks:
        await asyncio.gather(*(settle(api, item, "complete") for item in items))
        async with asyncio.timeout(10):
            assert [hand[0]["id"] for hand in await asyncio.gather(*tasks)] == ["a2", "b2", "c2"]


async def test_of_those_who_wait_elsewhere_the_one_for_the_most_urgent_item_is_served(api: Api) -> None:
    await keyed(api, "k", "held")
    await keyed(api, "k", "late", "later", queue="a", priority=1)
    await keyed(api, "k", "first", queue="z", priority=9)
    [held] = await api.claim("q")
    async with waiting(api, (["a"], {}), (["z"], {})) as tasks:
        await settle(api, held, "complete")
        assert [got["id"] for got in await first(tasks)] == ["first"]
        await until(lambda: parked(api) == 1 and not api.service.services.kernel._tasks)


@pytest.mark.parametrize("paused", [False, True])
async def test_an_urgent_item_that_nobody_asks_for_keeps_the_key_from_nobody(api: Api, paused: bool) -> None:
    await keyed(api, "k", "held")
    await keyed(api, "k", "urgent", queue="unserved", priority=9)
    await keyed(api, "k", "next", queue="served")
    if paused:
        await api.ok("POST", "/v1/queues/unserved/pause")
    [held] = await api.claim("q")
    async with waiting(api, (["served"], {})) as tasks:
        await settle(api, held, "complete")
        assert [got["id"] for got in await first(tasks)] == ["next"]


async def test_a_thousand_items_of_a_key_wake_one_who_waits_for_them(api: Api, commits: list[Tenants]) -> None:
    """Each time that it is free."""
    await keyed(api, "k", "held")
    many = [{"queue": "other", "concurrency_key": "k"}] * 100
    for _ in range(10):
        await api.ok("POST", "/v1/work-items:batch", json=many)
    [held] = await api.claim("q")
    async with waiting(api, *[(["other"], {})] * 4) as tasks:
        for turn in range(3):
            commits.clear()
            await settle(api, held, "complete")
            [held] = await first(tasks[turn:])
            await turns()
            assert (len(commits), parked(api)) == (1, 3 - turn)
            tasks.sort(key=lambda task: not task.done())


async def test_of_very_many_shelves_that_wait_for_a_key_few_are_looked_at_and_told(api: Api) -> None:
    await keyed(api, "k", "held")
    for n in range(20):
        await keyed(api, "k", f"i{n}", queue=f"q{n:02}", priority=n)
    [held] = await api.claim("q")
    kernel, who = api.service.services.kernel, internal(api.tenant)
    settled = [Request(who, CompleteWork(held["epoch"], id=held["id"]))]
    _, done = await kernel.backend.write(lambda tx: kernel._decided(tx, settled))
    told = [f"work/{api.tenant}/q{n:02}/" for n in range(15, 15 - HEIRS_MAX, -1)]
    assert done.heirs == {(api.tenant, "k"): [*told, f"work/{api.tenant}/q/"]}


async def test_a_key_that_its_holder_takes_again_in_the_same_commit_wakes_nobody_elsewhere(
    api: Api, commits: list[Tenants]
) -> None:
    """A worker whose loop is one request would wake them for nothing each time."""
    await keyed(api, "k", "one", "two")
    await keyed(api, "k", "elsewhere", queue="other")
    [held] = await api.claim("q")
    async with waiting(api, (["other"], {})) as tasks:
        commits.clear()
        found = await api.ok("POST", CLAIM, json=asking(completed(held)))
        await turns()
        assert [item["id"] for item in found["items"]] == ["two"]
        assert (len(commits), parked(api)) == (1, 1)
        await settle(api, found["items"][0], "complete")
        assert [got["id"] for got in await first(tasks)] == ["elsewhere"]


async def test_what_is_put_on_a_shelf_by_the_commit_that_frees_a_key_is_told_of_though_the_key_is_taken_again(
    api: Api,
) -> None:
    """The wake-up of the one is not spared for the other."""
    run = (await api.start())["execution_id"]
    await enqueue(api, "q", execution_id=run, concurrency_key="k")
    await keyed(api, "k", "next", priority=9)
    [held] = await api.claim("q", max_items=1)
    assert held["id"] == "next"
    await settle(api, held, "complete")
    [held] = await api.claim("q")
    await keyed(api, "k", "again", priority=9)
    async with waiting(api, *[(["q"], {})] * 2) as tasks:
        change = {"type": "enqueue", "queue": "q", "id": "made"}
        await transit(api, held, {"type": "settle", "outcome": "completed"}, change)
        async with asyncio.timeout(10):
            assert sorted([hand[0]["id"] for hand in await asyncio.gather(*tasks)]) == ["again", "made"]


async def test_another_tenants_key_of_the_same_name_wakes_nobody(api: Api, other: Api) -> None:
    for one in (api, other):
        await keyed(one, "k", "held")
        await keyed(one, "k", "next", queue="other")
    [held] = await api.claim("q")
    await other.claim("q")
    async with waiting(other, (["other"], {})), waiting(api, (["other"], {})) as ours:
        await settle(api, held, "complete")
        assert [got["id"] for got in await first(ours)] == ["next"]
        assert parked(other) == 1


async def test_who_waits_for_a_key_in_another_process_is_woken(engine: str, fresh_url: str) -> None:
    if engine == "sqlite":
        return  # it has one process
    async with serving(fresh_url) as here, serving(fresh_url) as there:
        api = await here.tenant()
        beside = Api(there, api.tenant, await there.token(api.tenant, "owner"))
        await keyed(api, "k", "held")
        await keyed(api, "k", "next", queue="other")
        [held] = await api.claim("q")
        async with waiting(beside, (["other"], {})) as tasks:
            await settle(api, held, "complete")
            assert [got["id"] for got in await first(tasks)] == ["next"]


async def test_names_may_be_as_long_as_they_may_be_together(api: Api) -> None:
    """All of them are part of an index's key, which Postgres bounds."""
    random = Random(1)
    letters = "".join(chr(random.randint(0x10000, 0x10FFFF)) for _ in range(256))
    names = ["".join(random.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=127)) for _ in range(10)]
    longest = {"queue": names[0] + "x", "required_capabilities": names[1:9], "concurrency_key": letters}
    item = await enqueue(api, **longest, id=names[9] + "x")
    assert (await shown(api, item))["concurrency_key"] == letters


@pytest.mark.parametrize("seed", range(2))
async def test_none_of_those_who_wait_for_keys_on_all_shelves_is_forgotten(
    engine: str, fresh_url: str, seed: int
) -> None:
    """Whoever claims, wherever, and however the keys become free; nobody looks by himself."""
    chance, shelves = Random(seed), [(queue, capabilities) for queue in "pqr" for capabilities in ([], ["gpu"])]
    async with contextlib.AsyncExitStack() as stack:
        services = [await stack.enter_async_context(serving(fresh_url)) for _ in range(1 if engine == "sqlite" else 2)]
        api = await services[0].tenant()
        apis = [Api(service, api.tenant, await service.token(api.tenant, "owner")) for service in services]
        left, done = {f"i{n}" for n in range(40)}, asyncio.Event()
        for name in sorted(left):
            queue, required = chance.choice(shelves)
            body = {"priority": chance.randint(0, 2), "max_attempts": 99, "required_capabilities": required}
            await keyed(api, chance.choice("kl"), name, queue=queue, **body)

        async def work(worker: Api, queue: str, capabilities: list[str]) -> None:
            while True:
                for item in await worker.claim(queue, wait_ms=60_000, capabilities=capabilities):
                    how = chance.choice(("complete", "complete", "fail", "release"))
                    await settle(worker, item, how, **({"error": DEATH} if how == "fail" else {}))
                    left.difference_update([item["id"]] if how == "complete" else [])
                    if not left:
                        done.set()

        workers = [asyncio.create_task(work(worker, *shelf)) for worker in apis for shelf in shelves]
        try:
            async with asyncio.timeout(30):
                await done.wait()
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
