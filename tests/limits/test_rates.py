"""Requests a second over HTTP: in one process, and from one budget for several."""

import contextlib
from collections.abc import AsyncIterator

import httpx
import pytest

from service.kernel import slices
from service.kernel.gcra import Rate
from service.kernel.slices import SharedRates
from service.main import running
from service.tokens.bootstrap import bootstrap
from tests.conftest import Api, Clock, Service, new_store, settings_for


async def limited(service: Service, tenant: str, **limits: int | None) -> None:
    """Give a tenant limits; whoever knows the old ones forgets them within a second."""
    answer = await service.client(service.admin).patch(f"/v1/tenants/{tenant}", json={"limits": limits})
    assert answer.status_code == 200, answer.text
    service.clock.advance(5_000)


async def tried(count: int, *doors: httpx.AsyncClient) -> list[httpx.Response]:
    """That many reads, one after the other, at the doors in turn."""
    return [await doors[n % len(doors)].get("/v1/queues") for n in range(count)]


def let_in(answers: list[httpx.Response]) -> int:
    """How many were served; the others were told to slow down."""
    assert {answer.status_code for answer in answers} <= {200, 429}
    return sum(answer.status_code == 200 for answer in answers)


async def test_a_burst_is_taken_at_once_and_the_rest_told_when_to_come_again(api: Api) -> None:
    await limited(api.service, api.tenant, requests_per_second=2, burst=6)
    answers = await tried(9, api.http)
    assert let_in(answers) == 6
    problem = answers[-1].json()
    assert problem["code"] == "limit/requests-per-second"
    assert (problem["limit"], problem["burst"], problem["retry_after"]) == (2, 6, 1)
    assert answers[-1].headers["retry-after"] == "1"
    api.clock.advance(1_000)
    assert let_in(await tried(9, api.http)) == 2


async def test_a_refused_write_changes_nothing(api: Api) -> None:
    await limited(api.service, api.tenant, requests_per_second=1, burst=2)
    for _ in range(5):
        await api.http.post("/v1/work-items", json={"queue": "q"})
    api.clock.advance(60_000)
    assert len((await api.ok("GET", "/v1/work-items"))["items"]) == 2


async def test_what_a_role_may_not_do_counts_as_well(api: Api) -> None:
    viewer = await api.as_role("viewer")
    await limited(api.service, api.tenant, requests_per_second=2)
    answers = [await viewer.post("/v1/executions", json={"workflow_id": "w"}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [403, 403, 429]


async def test_a_tenant_past_its_rate_costs_another_nothing_of_its_own(api: Api, other: Api) -> None:
    for one in (api, other):
        await limited(one.service, one.tenant, requests_per_second=3)
    assert let_in(await tried(9, api.http)) == 3
    assert let_in(await tried(3, other.http)) == 3


async def test_a_tenant_without_a_rate_never_meets_the_limiter(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.service.services.tokens, "rates", None)
    await api.ok("GET", "/v1/queues")
    await api.ok("POST", "/v1/work-items", json={"queue": "q"})


@contextlib.asynccontextmanager
async def two_processes(url: str, behind_ms: int = 0) -> AsyncIterator[list[Service]]:
    """Two services on one store that share a budget, under one clock; the second reads it a little behind."""
    clock, settings = Clock(), settings_for(url, rates="shared")
    async with running(settings, clock) as one, running(settings, lambda: clock() - behind_ms) as two:
        admin = await bootstrap(one)
        found = [Service(services, clock, admin) for services in (one, two)]
        yield found
        for service in found:
            await service.close()


async def test_two_processes_let_in_together_what_the_rate_allows(postgres_server: str) -> None:
    async with two_processes(await new_store(postgres_server)) as (one, two):
        api = await one.tenant()
        doors = [api.http, two.client(api.owner_token)]
        await limited(one, api.tenant, requests_per_second=20, burst=30)
        assert let_in(await tried(50, *doors)) == 30
        one.clock.advance(500)
        assert let_in(await tried(30, *doors)) == 10
        one.clock.advance(60_000)
        assert let_in(await tried(50, *doors)) == 30, "an idle minute saves up one burst, not two"
        assert (await tried(1, doors[1]))[0].headers["retry-after"] == "1"


async def test_a_budget_that_is_used_up_is_so_for_a_process_with_a_clock_behind(postgres_server: str) -> None:
    async with two_processes(await new_store(postgres_server), behind_ms=100) as (one, two):
        api = await one.tenant()
        await limited(one, api.tenant, requests_per_second=20, burst=30)
        assert let_in(await tried(50, api.http)) == 30
        assert let_in(await tried(50, two.client(api.owner_token))) == 0
        one.clock.advance(500)
        assert let_in(await tried(50, api.http, two.client(api.owner_token))) == 10


async def test_one_process_may_use_the_whole_budget(postgres_server: str) -> None:
    async with two_processes(await new_store(postgres_server)) as (one, _):
        api = await one.tenant()
        await limited(one, api.tenant, requests_per_second=40)
        assert let_in(await tried(60, api.http)) == 40


async def test_a_slice_serves_many_requests_with_one_question_to_the_store(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    taking = slices.taking

    def counted(*args: object) -> object:
        nonlocal asked
        asked += 1
        return taking(*args)  # type: ignore[arg-type]  # as it was called

    monkeypatch.setattr(slices, "taking", counted)
    rates, rate = SharedRates(api.service.services.backend), Rate(2_000, 2_000)
    for _ in range(1_000):
        await rates.take(api.tenant, rate, api.clock.now)
    assert asked <= 20


async def test_what_was_fetched_and_not_used_within_a_second_is_gone(api: Api) -> None:
    rates, rate = SharedRates(api.service.services.backend), Rate(100, 100)
    await rates.take(api.tenant, rate, api.clock.now)
    own = rates._slices[api.tenant]
    assert own.left
    api.clock.advance(slices.KEPT_MS)
    assert not own.spend(api.clock.now)


async def test_the_slices_that_are_remembered_are_bounded(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "BUCKETS_MAX", 2)
    rates = SharedRates(api.service.services.backend)
    for name in ("a", "b", "c"):
        await rates.take(f"{api.tenant}-{name}", Rate(1, 1), api.clock.now)
    assert len(rates._slices) == 2
