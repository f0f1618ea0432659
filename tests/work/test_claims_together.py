"""The claims of a batch look together, whosever they are: as few statements as for one tenant, to each its own."""

import random
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import pytest

from bench.seam import CountedBackend, Tally
from service.errors import StateError
from service.kernel.command import Replayed, Request
from service.kernel.principal import Principal, internal
from service.kernel.run import Kernel
from service.work import claims
from service.work.model import Claims, ClaimWork, DeadLetterWork, EnqueueWork, PromoteDue, WorkError
from tests.conftest import Api, Clock, Service, serving
from tests.work.steps import enqueue

TENANTS = 16
QUEUES = ("a1", "a2", "b1")
REQUIRED: tuple[list[str], ...] = ([], ["gpu"], ["gpu", "eu"])


def claim(queues: Sequence[str] = ("q",), max_items: int = 1, capabilities: Sequence[str] = ()) -> ClaimWork:
    """A claim as a worker sends it."""
    return ClaimWork("w1", list(queues), max_items, capabilities=list(capabilities))


async def batch(kernel: Kernel, asked: Sequence[tuple[str, ClaimWork]]) -> list[list[str]]:
    """Run claims of tenants as one batch; the ids that each gets."""
    replies = await kernel.execute([Request(internal(tenant), command) for tenant, command in asked])
    assert all(isinstance(reply, Claims) for reply in replies), replies
    return [[item.id for item in reply.items] for reply in replies]


async def statements(service: Service, asked: Sequence[tuple[str, ClaimWork]]) -> Counter[str]:
    """How often each statement is asked for by a batch of claims, each of which gets what it wants."""
    own, tally = service.services.kernel, Tally()
    counted: Any = CountedBackend(own.backend, tally)
    kernel = Kernel(counted, own.schema, own.rules)
    got = await batch(kernel, asked)
    assert [len(ids) for ids in got] == [command.max_items for _, command in asked]
    return tally.statements


async def test_claims_of_many_tenants_take_as_many_statements_as_those_of_one(service: Service) -> None:
    apis = [await service.tenant() for _ in range(TENANTS)]
    for api in apis:
        for name in ("p1", "p2"):
            await enqueue(api, name)
        await enqueue(api, "q", required_capabilities=["gpu"])
    for _ in range(TENANTS):
        for queue in ("q", "p1", "p2"):
            await enqueue(apis[0], queue)
    gpu = claim(capabilities=["gpu"])
    of_one = await statements(service, [(apis[0].tenant, gpu)] * TENANTS)
    assert await statements(service, [(api.tenant, gpu) for api in apis]) == of_one
    assert of_one["shelves_of_queues"] == of_one["heads_of_shelves"] == 1
    by_pattern = [(api.tenant, claim(["p*"])) for api in apis]
    found = await statements(service, by_pattern)
    assert found == await statements(service, [(apis[0].tenant, claim(["p*"]))] * TENANTS)
    assert found["shelves_of_tenants"] == found["heads_of_shelves"] == 1


async def test_each_tenant_gets_its_own_best_items_and_as_many_as_it_asked_for(service: Service) -> None:
    """Random shelves of many tenants, with everything that may stand between an item and a claim."""
    chance = random.Random(7)
    kernel, clock = service.services.kernel, service.clock
    tenants = [(await service.tenant()).tenant for _ in range(TENANTS)]
    items: dict[str, list[EnqueueWork]] = {tenant: [] for tenant in tenants}
    for tenant in tenants:
        for n in range(chance.randint(0, 30)):
            item = EnqueueWork(
                chance.choice(QUEUES),
                f"i{n:02}",  # each tenant has items of these names
                priority=chance.choice((0, 0, 5)),
                delay_ms=chance.choice((0, 0, 1_000, 60_000)),
                required_capabilities=chance.choice(REQUIRED),
            )
            items[tenant].append(item)
            await kernel.run(internal(tenant), item)
    now = clock.now
    clock.advance(1_000)
    paused = {tenant for tenant in tenants if chance.random() < 0.3}
    for tenant in paused:
        api = Api(service, tenant, await service.token(tenant, "owner"))
        await api.ok("POST", "/v1/queues/a1/pause")
    asked = [
        (
            tenant,
            claim(
                chance.choice((["a1"], ["b1", "a2"], ["a*"], ["a*", "b1"], ["none"])),
                chance.randint(1, 7),
                chance.choice(REQUIRED),
            ),
        )
        for tenant in tenants
        for _ in range(3)
    ]
    chance.shuffle(asked)
    taken: set[tuple[str, str | None]] = set()

    def best(tenant: str, command: ClaimWork) -> list[str]:
        fit = [
            item
            for item in items[tenant]
            if item.delay_ms <= 1_000
            and any(fnmatchcase(item.queue, name) for name in command.queues)
            and not (item.queue == "a1" and tenant in paused)
            and set(item.required_capabilities) <= set(command.capabilities)
            and (tenant, item.id) not in taken
        ]
        fit.sort(key=lambda item: (-item.priority, now + item.delay_ms, item.id))
        taken.update((tenant, item.id) for item in fit[: command.max_items])
        return [str(item.id) for item in fit[: command.max_items]]

    alike: dict[Any, list[int]] = {}  # claims that ask the same are served together, where the first of them stands
    for place, (tenant, command) in enumerate(asked):
        key = tenant, tuple(sorted(command.queues)), tuple(sorted(command.capabilities))
        alike.setdefault(key, []).append(place)
    wanted: list[list[str]] = [[] for _ in asked]
    for places in alike.values():
        for place in places:
            wanted[place] = best(*asked[place])
    assert await batch(kernel, asked) == wanted
    assert sum(map(len, wanted)) > 3 * TENANTS


async def test_a_key_that_is_busy_for_one_tenant_is_free_for_another(service: Service) -> None:
    apis = [await service.tenant() for _ in range(3)]
    for api in apis:
        for n in range(4):
            await enqueue(api, id=f"k{n}", concurrency_key="k", priority=9)
        await enqueue(api, id="free")
    asked = [(api.tenant, claim(max_items=2)) for api in apis]
    assert await batch(service.services.kernel, asked) == [["k0", "free"]] * 3
    assert await batch(service.services.kernel, asked) == [[]] * 3


async def test_claims_of_one_tenant_for_other_queues_share_its_keys(service: Service) -> None:
    api = await service.tenant()
    for queue in ("p", "q"):
        for n in range(3):
            await enqueue(api, queue, id=f"{queue}-k{n}", concurrency_key="k", priority=9)
        await enqueue(api, queue, id=f"{queue}-free")
    asked = [(api.tenant, claim(queues, 2)) for queues in (["p"], ["q", "p"], ["q"])]
    assert await batch(service.services.kernel, asked) == [["p-k0", "p-free"], ["q-free"], []]


@pytest.mark.parametrize("order", [1, -1])
async def test_claims_of_one_tenant_never_get_the_same_item(service: Service, order: int) -> None:
    api = await service.tenant()
    for n in range(6):
        await enqueue(api, "p" if n % 2 else "q", id=f"i{n}")
    asked = [(api.tenant, claim(queues, 2)) for queues in (["p", "q"], ["q"], ["*"])][::order]
    got = await batch(service.services.kernel, asked)
    found = Counter(name for ids in got for name in ids)
    assert found == Counter(f"i{n}" for n in range(6)), "each once, none left behind"


async def test_a_claim_whose_items_a_command_before_it_took_looks_once_more(api: Api) -> None:
    first, second = await enqueue(api), await enqueue(api)
    given_up = Request(Principal(api.tenant, "owner"), DeadLetterWork(WorkError("x", "y"), id=first))
    _, got = await api.service.services.kernel.execute([given_up, Request(internal(api.tenant), claim())])
    assert [item.id for item in got.items] == [second]


async def test_a_claim_that_finds_no_others_is_answered_empty(api: Api) -> None:
    item = await enqueue(api)
    given_up = Request(Principal(api.tenant, "owner"), DeadLetterWork(WorkError("x", "y"), id=item))
    _, got = await api.service.services.kernel.execute([given_up, Request(internal(api.tenant), claim())])
    assert got == Claims([])


@pytest.mark.parametrize("first", ["refused", "repeated"])
async def test_what_was_chosen_for_a_claim_that_takes_nothing_is_for_those_behind_it(api: Api, first: str) -> None:
    kernel, who = api.service.services.kernel, internal(api.tenant)
    taken = Request(who, claim(), "key", "print") if first == "repeated" else Request(ended(api), claim())
    if first == "repeated":
        await enqueue(api)
        assert (await kernel.execute([taken]))[0].items
    item = await enqueue(api)
    before, got = await kernel.execute([taken, Request(who, claim())])
    assert isinstance(before, Replayed if first == "repeated" else StateError)
    assert [one.id for one in got.items] == [item]


def ended(api: Api) -> Principal:
    """Who has a token that works no longer."""
    return Principal(api.tenant, "worker", "ended", api.tenant)


async def test_what_another_process_holds_is_stepped_over_for_every_tenant(engine: str, fresh_url: str) -> None:
    """On SQLite there is one writer, and nothing is ever held."""
    async with serving(fresh_url) as service:
        apis = [await service.tenant() for _ in range(3)]
        for api in apis:
            for n in range(2):
                await enqueue(api, id=f"i{n}")
        backend, asked = service.services.backend, [(api.tenant, claim()) for api in apis]
        if engine == "sqlite":
            assert await batch(service.services.kernel, asked) == [["i0"]] * 3
            return

        async def holding(tx: Any) -> list[list[str]]:
            await tx.all("load_work_items", rows=[(api.tenant, "i0") for api in apis])
            return await batch(service.services.kernel, asked)

        assert await backend.write(holding) == [["i1"]] * 3
        assert await batch(service.services.kernel, asked) == [["i0"]] * 3


def test_a_pattern_is_held_against_a_queue_once_however_many_shelves_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    matched: list[str] = []
    monkeypatch.setattr(claims, "asked", lambda _command: lambda queue: matched.append(queue) or queue == "a")
    ask = claims.Ask(internal("t"), ClaimWork("w", ["?"], capabilities=["c1", "c2"]))
    found = {"shelves_of_tenants": [("t", queue, requires) for queue in "ab" for requires in ("", "c1", "c1,c2", "x")]}
    claims.find_shelves([ask], found)
    assert matched == ["a", "b"]
    assert ask.shelves == [("t", "a", ""), ("t", "a", "c1"), ("t", "a", "c1,c2")]


@pytest.mark.parametrize("claim_first", [True, False])
async def test_an_item_that_is_claimed_and_found_due_by_one_transaction_is_handed_out_whole(
    api: Api, clock: Clock, claim_first: bool
) -> None:
    await enqueue(api, payload={"n": 1}, delay_ms=1_000)
    clock.advance(1_000)
    kernel, who = api.service.services.kernel, internal(api.tenant)
    asked = [Request(who, one) for one in ((claim(), PromoteDue()) if claim_first else (PromoteDue(), claim()))]
    outcomes, _ = await kernel.backend.write(lambda tx: kernel._decided(tx, asked))
    promoted, claims_ = outcomes[claim_first], outcomes[not claim_first]
    assert promoted == (0 if claim_first else 1)
    assert [bytes(item.payload) for item in claims_.items] == [b'{"n":1}']
