"""A tenant with a flood of what is due keeps nobody else waiting: whose turn it is, and that no page grows with it."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from service import capabilities
from service.alarms import sweeps as alarms
from service.alarms.model import RingAlarms
from service.kernel import jobs, rota
from service.kernel.rota import Line, next_in_line
from service.kernel.sweeps import Sweeper
from service.work import sweeps as work
from tests.conftest import Api, Service, serving
from tests.runs.engine import started, submit, tasks
from tests.work.steps import bury, enqueue, shown

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


async def redriving(api: Api) -> str:
    """A redrive of all that is dead; its job."""
    return str((await api.ok("POST", "/v1/dead-letters:redrive", json={}))["job_id"])


async def status(api: Api, job: str) -> str:
    """How a job stands."""
    return str((await api.ok("GET", f"/v1/jobs/{job}"))["status"])


async def flooded(own: Service, monkeypatch: pytest.MonkeyPatch) -> tuple[Crowd, list[str], list[str]]:
    """A tenant's redrives, many more than a round has pages, and one of each quiet tenant behind them."""
    monkeypatch.setattr(jobs, "PAGES_A_ROUND", PAGE)
    among = await crowd(own)
    for api in (among.flood, *among.quiet):
        await bury(api, "q")
    flood = [await redriving(among.flood) for _ in range(FLOOD)]
    own.clock.advance(5)
    return among, flood, [await redriving(api) for api in among.quiet]


async def test_a_flood_of_jobs_is_passed_by_quiet_tenants(own: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by the deletion of a tenant, which is a job of another kind."""
    among, flood, mine = await flooded(own, monkeypatch)
    gone = await own.tenant()
    await enqueue(gone)
    deletion = (await gone.admin.delete(f"/v1/tenants/{gone.tenant}")).json()["job_id"]
    sweeper = Sweeper(own.services.backend, own.services, list(capabilities.parts("sweeps", "SWEEPS")), 1_000, 60_000)
    await sweeper.lease.keep()
    await sweeper.round()
    assert [await status(api, job) for api, job in zip(among.quiet, mine, strict=True)] == ["completed"] * QUIET
    done = [await status(among.flood, job) for job in flood].count("completed")
    assert 0 < done <= 2 * PAGE
    assert (await gone.admin.get(f"/v1/jobs/{deletion}")).json()["done"] > 0
    await sweeper.lease.release()


async def test_a_job_whose_page_fails_holds_up_no_other(own: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even a page and more of them, at the head of the line, round after round."""
    among, flood, mine = await flooded(own, monkeypatch)
    page = work.page

    async def failing(backend: Any, kernel: Any, job: jobs.Job) -> None:
        if job.tenant_id == among.flood.tenant:
            raise ValueError("this page cannot be done")
        await page(backend, kernel, job)

    monkeypatch.setattr(work, "page", failing)
    await work.redrive(own.services)
    assert [await status(api, job) for api, job in zip(among.quiet, mine, strict=True)] == ["completed"] * QUIET
    monkeypatch.setattr(work, "page", page)
    for _ in range(FLOOD):
        await work.redrive(own.services)
    assert {await status(among.flood, job) for job in flood} == {"completed"}
