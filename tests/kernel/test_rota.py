"""A tenant with a flood of what is due keeps nobody else waiting: whose turn it is, and that no page grows with it."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.alarms import sweeps as alarms
from service.alarms.model import RingAlarms
from service.kernel import rota
from service.kernel.rota import Line, next_in_line
from service.work import sweeps as work
from tests.conftest import Api, Service, serving
from tests.runs.engine import started, submit, tasks
from tests.work.steps import enqueue, shown

PAGE, FLOOD, QUIET = 4, 30, 3
SOON = 1_000


@pytest.fixture
async def own(fresh_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    """A service of one's own, with small pages."""
    monkeypatch.setattr(work, "PAGE", PAGE)
    monkeypatch.setattr(alarms, "PAGE", PAGE)
    async with serving(fresh_url) as service:
        yield service


class Crowd:
    """A tenant with a flood that has been due longer than anything of the quiet ones beside it."""

    def __init__(self, service: Service, flood: Api, quiet: list[Api]) -> None:
        self.service, self.services, self.flood, self.quiet = service, service.services, flood, quiet


async def crowd(service: Service) -> Crowd:
    return Crowd(service, await service.tenant(), [await service.tenant() for _ in range(QUIET)])


async def to_the_end(sweep: Any, services: Any) -> int:
    """Sweep until nothing is left; the pages that took."""
    pages = 1
    while await sweep(services):
        pages += 1
        assert pages < FLOOD
    return pages


async def test_a_flood_of_delayed_items_is_passed_by_quiet_tenants(own: Service) -> None:
    among = await crowd(own)
    for _ in range(FLOOD):
        await enqueue(among.flood, delay_ms=SOON)
    own.clock.advance(5)
    mine = [await enqueue(api, delay_ms=SOON) for api in among.quiet]
    own.clock.advance(SOON)
    assert await work.promote(among.services)
    ready = [(await api.ok("GET", "/v1/queues"))["items"][0]["ready"] for api in (among.flood, *among.quiet)]
    assert ready[1:] == [1] * QUIET and ready[0] <= PAGE + 1
    await to_the_end(work.promote, among.services)
    assert (await among.flood.ok("GET", "/v1/queues"))["items"][0]["ready"] == FLOOD
    assert [(await shown(api, item))["status"] for api, item in zip(among.quiet, mine, strict=True)] == ["ready"] * 3


async def test_a_flood_of_leases_that_ran_out_is_passed_by_quiet_tenants(own: Service) -> None:
    among = await crowd(own)
    for _ in range(FLOOD):
        await enqueue(among.flood)
    await among.flood.claim("q", max_items=FLOOD, lease_ms=SOON)
    own.clock.advance(5)
    for api in among.quiet:
        await enqueue(api)
        await api.claim("q", lease_ms=SOON)
    own.clock.advance(SOON)
    assert await work.reclaim(among.services)
    leased = [(await api.ok("GET", "/v1/queues"))["items"][0]["leased"] for api in (among.flood, *among.quiet)]
    assert leased[1:] == [0] * QUIET and leased[0] >= FLOOD - PAGE - 1
    await to_the_end(work.reclaim, among.services)
    assert (await among.flood.ok("GET", "/v1/queues"))["items"][0]["leased"] == 0


async def waiting(api: Api, timers: int) -> str:
    """A run with that many timers, all due in a second."""
    run = await started(api)
    [task] = await tasks(api)
    made = [{"type": "ScheduleTimer", "seq": n + 1, "duration_ms": SOON} for n in range(timers)]
    await submit(api, task, *made)
    return run


async def fired(api: Api, run: str) -> int:
    """How many timers of a run have fired."""
    return [event["kind"] for event in await api.events(run)].count("timer.fired")


async def test_a_flood_of_timers_is_passed_by_quiet_tenants(own: Service) -> None:
    among = await crowd(own)
    flood = await waiting(among.flood, FLOOD)
    own.clock.advance(5)
    runs = [await waiting(api, 1) for api in among.quiet]
    own.clock.advance(SOON)
    assert await alarms.ring(among.services)
    assert [await fired(api, run) for api, run in zip(among.quiet, runs, strict=True)] == [1] * QUIET
    assert await fired(among.flood, flood) <= PAGE + 1
    await to_the_end(alarms.ring, among.services)
    assert await fired(among.flood, flood) == FLOOD
    assert [await fired(api, run) for api, run in zip(among.quiet, runs, strict=True)] == [1] * QUIET


async def test_more_tenants_than_a_page_serves_come_in_turn(own: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rota, "TURNS", 2)
    tenants = sorted([await own.tenant() for _ in range(5)], key=lambda api: api.tenant)
    for api in tenants:
        await enqueue(api, delay_ms=SOON)
    own.clock.advance(SOON)
    names, line = [api.tenant for api in tenants], Line()
    turns = [await next_in_line(own.services.backend, line, "tenants_with_due_items") for _ in range(4)]
    assert turns == [names[:2], names[2:4], names[4:], names[:2]]


async def test_a_page_looks_at_so_many_tenants_and_goes_on_behind_them(
    own: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most of them have nothing due."""
    monkeypatch.setattr(rota, "LOOKS", 2)
    tenants = sorted([await own.tenant() for _ in range(5)], key=lambda api: api.tenant)
    for place, api in enumerate(tenants):
        await enqueue(api, delay_ms=SOON if place in (2, 4) else 9 * SOON)
    own.clock.advance(SOON)
    line, turns = Line(), list[list[str]]()
    for _ in range(4):
        turns.append(await next_in_line(own.services.backend, line, "tenants_with_due_items"))
    names = [api.tenant for api in tenants]
    assert turns == [[], [names[2]], [names[4]], []]


async def test_alarms_that_cannot_ring_hold_up_no_other_tenant(own: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page and more of one tenant's, at the head of the line, round after round."""
    among = await crowd(own)
    await waiting(among.flood, FLOOD)
    own.clock.advance(5)
    runs = [await waiting(api, 1) for api in among.quiet]
    own.clock.advance(SOON)
    submit_to = among.services.kernel.run

    async def refusing(who: Any, command: Any) -> Any:
        if isinstance(command, RingAlarms) and who.tenant_id == among.flood.tenant:
            raise ValueError("this one cannot ring")
        return await submit_to(who, command)

    monkeypatch.setattr(among.services.kernel, "run", refusing)
    await to_the_end(alarms.ring, among.services)
    assert [await fired(api, run) for api, run in zip(among.quiet, runs, strict=True)] == [1] * QUIET
