"""Retention: what ended long enough ago goes with all that belongs to it; what has not ended stays, however old."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from backends.erasure import of_executions
from backends.protocol import Tx
from service import capabilities
from service.kernel.tallies import tallies_of
from service.retention import sweeps
from service.retention.sweeps import DAY_MS, MINUTE_MS, Walk
from tests.activities.hands import activity, claimed, tell
from tests.chains.test_behaviour import chain
from tests.conftest import Api, serving
from tests.runs.engine import started, submit, tasks
from tests.tenants.test_behaviour import rows_of
from tests.work.steps import bury

DAYS = 30


@pytest.fixture
async def own(fresh_url: str) -> AsyncIterator[Api]:
    """A tenant in a store of its own that keeps executions for thirty days."""
    async with serving(fresh_url, execution_days=DAYS) as service:
        yield await service.tenant()


async def swept(api: Api) -> None:
    """The sweep, until it has walked through all tenants once."""
    services = api.service.services
    services.lines["retention"] = walk = Walk()
    while not walk.rest_until:
        await sweeps.remove(services)


def inside(api: Api) -> Walk:
    """A walk that has just come to the tenant, by the days of the server."""
    return Walk(api.tenant, inside=True, before=api.clock.now - DAYS * DAY_MS)


async def paged(api: Api, walk: Walk) -> None:
    """A page of a walk."""
    await sweeps.page(api.service.services.backend, walk, DAYS, api.clock.now)


async def of_tables(api: Api) -> dict[str, int]:
    """How many rows the tenant has in each table whose rows belong to executions."""
    found = await rows_of(api.service, api.tenant)
    return {table: found[table] for table in of_executions()}


async def worked(api: Api) -> list[str]:
    """Ended executions that leave something in every table, but for alarms, which no execution that has ended has."""
    run = await started(api, labels={"l": "1"}, state={"s": 1}, run_timeout_ms=3_600_000)
    (task,) = await tasks(api)
    await submit(api, task, activity(max_attempts=1), {"type": "RecordSnapshot", "state": {"s": 2}})
    await api.ok("POST", f"/v1/executions/{run}/signals/go", json={"signal_id": "s"})
    (item,) = await claimed(api)
    await tell(api, item, "fail", error={"type": "card"})
    (task,) = await tasks(api)
    await submit(api, task, {"type": "CompleteWorkflow"})
    node = (await api.start(start={"queue": "q"}))["execution_id"]
    await bury(api, "p", execution_id=node)
    await api.ok("POST", f"/v1/executions/{node}/status", json={"status": "failed"})
    return [run, node]


def test_the_sweep_is_one_of_the_services() -> None:
    assert sweeps.SWEEPS[0] in list(capabilities.parts("sweeps", "SWEEPS"))


async def test_what_ended_goes_with_everything_that_belongs_to_it(own: Api) -> None:
    ids = await worked(own)
    filled = await of_tables(own)
    assert not [table for table, count in filled.items() if not count and table != "alarms"], filled
    own.clock.advance(DAYS * DAY_MS)
    await swept(own)
    assert await of_tables(own) == filled, "thirty days are kept whole"
    own.clock.advance(1)
    await swept(own)
    assert set((await of_tables(own)).values()) == {0}
    for id in ids:
        await own.refused("GET", f"/v1/executions/{id}", "not-found")
        await own.refused("GET", f"/v1/executions/{id}/events", "not-found")
    assert (await own.ok("GET", "/v1/dead-letters"))["items"] == []


async def test_what_has_not_ended_stays_and_so_does_what_ended_lately(own: Api) -> None:
    old, late = await started(own), (await own.start())["execution_id"]
    await own.ok("POST", f"/v1/executions/{old}/signals/go")
    own.clock.advance(DAYS * DAY_MS)
    await own.ok("POST", f"/v1/executions/{late}/status", json={"status": "completed"})
    own.clock.advance(DAY_MS)
    kept = await of_tables(own)
    await swept(own)
    assert await of_tables(own) == kept
    (task,) = await tasks(own)
    assert (task["execution_id"], len(task["history"])) == (old, 2)


async def test_nothing_goes_unless_it_is_asked_for(fresh_url: str) -> None:
    async with serving(fresh_url) as service:
        api = await service.tenant()
        await worked(api)
        kept = await of_tables(api)
        api.clock.advance(80 * DAY_MS)
        await sweeps.remove(service.services)
        assert await of_tables(api) == kept


async def test_of_each_tenant_only_its_own_go(own: Api) -> None:
    other = await own.service.tenant()
    await worked(own)
    own.clock.advance(DAYS * DAY_MS)
    await worked(other)
    kept = await rows_of(other.service, other.tenant)
    own.clock.advance(1)
    await swept(own)
    assert set((await of_tables(own)).values()) == {0}
    assert await rows_of(other.service, other.tenant) == kept


async def keeping(api: Api, days: int | None) -> None:
    """Say how many days the tenant keeps executions."""
    changed = await api.admin.patch(f"/v1/tenants/{api.tenant}", json={"limits": {"execution_days": days}})
    assert (changed.status_code, changed.json()["limits"]["execution_days"]) == (200, days), changed.text


async def test_a_tenant_keeps_executions_for_days_of_its_own(own: Api) -> None:
    days = {"shorter": 1, "longer": DAYS + 10, "forever": 0, "servers": None}
    tenants = {name: await own.service.tenant() for name in days}
    for name, api in tenants.items():
        await keeping(api, days[name])
        run = (await api.start())["execution_id"]
        await api.ok("POST", f"/v1/executions/{run}/status", json={"status": "completed"})
    left, at = dict[int, set[str]](), own.clock.now
    for day in (1, DAYS, DAYS + 10, 36_000):
        own.clock.advance(at + day * DAY_MS + 1 - own.clock.now)
        await swept(own)
        left[day] = {name for name, api in tenants.items() if (await of_tables(api))["executions"]}
    assert left == {
        1: {"longer", "forever", "servers"}, DAYS: {"longer", "forever"}, DAYS + 10: {"forever"}, 36_000: {"forever"},
    }  # fmt: skip


async def test_a_tenant_has_days_of_its_own_where_the_server_keeps_everything(fresh_url: str) -> None:
    async with serving(fresh_url) as service:
        api, beside = await service.tenant(), await service.tenant()
        for one in (api, beside):
            await worked(one)
        kept = await of_tables(beside)
        await keeping(api, 2)
        service.clock.advance(2 * DAY_MS + 1)
        await swept(api)
        assert set((await of_tables(api)).values()) == {0}
        assert await of_tables(beside) == kept


async def test_days_that_are_added_hold_from_the_next_page_on(own: Api) -> None:
    """Also where the walk has come to the tenant already."""
    await worked(own)
    own.clock.advance(DAYS * DAY_MS + 1)
    walk, kept = inside(own), await of_tables(own)
    await keeping(own, DAYS + 1)
    await paged(own, walk)
    assert await of_tables(own) == kept


@pytest.mark.parametrize("days", [-1, 36_501, "7", 1.5, True])
async def test_days_that_are_none_are_refused(own: Api, days: Any) -> None:
    asked = {"limits": {"execution_days": days}}
    answer = await own.admin.patch(f"/v1/tenants/{own.tenant}", json=asked)
    assert answer.status_code == 422, answer.text
    assert (await own.ok("GET", f"/v1/tenants/{own.tenant}"))["limits"]["execution_days"] is None


async def test_a_change_of_the_days_is_a_line_of_the_audit_log(own: Api) -> None:
    await keeping(own, 7)
    lines = (await own.admin.get("/v1/audit")).json()["items"]
    [line] = [line for line in lines if line["action"] == "tenant.updated"]
    assert line["detail"]["changed"] == ["limits"]


async def test_more_tenants_than_a_step_looks_at_are_all_walked(own: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeps, "TENANTS", 2)
    tenants = [await own.service.tenant() for _ in range(7)]
    for api in (tenants[2], tenants[5]):
        await worked(api)
    own.clock.advance(DAYS * DAY_MS + 1)
    await swept(own)
    assert not any([sum((await of_tables(api)).values()) for api in tenants])


async def test_a_tenant_that_is_not_active_keeps_what_it_has(own: Api) -> None:
    await worked(own)
    kept = await of_tables(own)
    own.clock.advance(DAYS * DAY_MS + 1)
    walk = inside(own)
    for status, left in (("suspended", kept), ("archived", kept), ("active", dict.fromkeys(kept, 0))):
        changed = await own.admin.patch(f"/v1/tenants/{own.tenant}", json={"status": status})
        assert changed.status_code == 200, changed.text
        await paged(own, walk)
        await swept(own)
        assert await of_tables(own) == left, status
        walk = inside(own)


async def test_a_chain_loses_its_old_runs_and_goes_on(own: Api) -> None:
    first = await started(own, execution_id="loop")
    (task,) = await tasks(own)
    await submit(own, task, {"type": "ContinueAsNew", "input": 2})
    second = (await chain(own, first))[-1]["execution_id"]
    own.clock.advance(DAYS * DAY_MS + 1)
    await swept(own)
    assert [one["execution_id"] for one in await chain(own, second)] == [second]
    (task,) = await tasks(own)
    await submit(own, task, {"type": "ContinueAsNew"})
    assert [one["place"] for one in await chain(own, second)] == [2, 3]
    assert await started(own, execution_id="loop") == "loop", "its id is free again"


async def test_a_child_outlives_its_parent(own: Api) -> None:
    parent = await started(own)
    (task,) = await tasks(own)
    child = {"type": "StartChildWorkflow", "seq": 1, "workflow_type": "part", "parent_close_policy": "abandon"}
    await submit(own, task, child, {"type": "CompleteWorkflow"})
    own.clock.advance(DAYS * DAY_MS + 1)
    await swept(own)
    await own.refused("GET", f"/v1/executions/{parent}", "not-found")
    (task,) = await tasks(own, "part")
    await submit(own, task, {"type": "ContinueAsNew"})
    (task,) = await tasks(own, "part")
    await submit(own, task, {"type": "CompleteWorkflow"})
    assert (await own.ok("GET", f"/v1/executions/{task['execution_id']}"))["status"] == "completed"


async def test_a_walk_gets_past_what_stays_and_takes_bounded_pages(own: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeps, "LOOKS", 3)
    monkeypatch.setattr(sweeps, "EXECUTIONS", 2)
    for number in range(10):
        id = f"e{number}"
        await own.start(execution_id=id)
        if number % 3 != 1:
            await own.ok("POST", f"/v1/executions/{id}/status", json={"status": "failed"})
        own.clock.advance(1)
    own.clock.advance(DAYS * DAY_MS)
    walk, sizes = inside(own), [10]
    while walk.inside:
        await paged(own, walk)
        sizes.append(len((await own.ok("GET", "/v1/executions"))["items"]))
    assert all(was - now <= 2 for was, now in pairwise(sizes)), sizes
    left = [one["execution_id"] for one in (await own.ok("GET", "/v1/executions?sort=created_asc"))["items"]]
    assert left == ["e1", "e4", "e7"]


async def test_a_long_log_goes_in_several_commits_and_cannot_be_reset_meanwhile(
    own: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeps, "ROWS", 10)
    run = await started(own)
    events = {"events": [{"kind": "a"}] * 25}
    await own.ok("POST", f"/v1/executions/{run}/events", json=events)
    await own.ok("POST", f"/v1/executions/{run}/terminate", json={})
    own.clock.advance(DAYS * DAY_MS + 1)
    walk = inside(own)
    await paged(own, walk)
    await paged(own, walk)
    assert 0 < (await of_tables(own))["events"] < 27
    await own.refused("POST", f"/v1/executions/{run}/reset", "not-found", json={"to_sequence": 20})
    walk = inside(own)  # the process dies; the next one begins again
    while walk.inside:
        await paged(own, walk)
    assert set((await of_tables(own)).values()) == {0}


async def test_a_reset_that_races_with_the_removal_has_the_whole_prefix_or_nothing(own: Api) -> None:
    runs = [await started(own) for _ in range(20)]
    for run in runs:
        await own.ok("POST", f"/v1/executions/{run}/events", json={"events": [{"kind": "a"}] * 5})
        await own.ok("POST", f"/v1/executions/{run}/terminate", json={})
    own.clock.advance(DAYS * DAY_MS + 1)

    async def reset(run: str) -> str | None:
        answer = await own.http.post(f"/v1/executions/{run}/reset", json={"to_sequence": 4})
        assert answer.status_code in (201, 404), answer.text
        return answer.json().get("next_id")

    made = await asyncio.gather(*map(reset, runs[:10]), swept(own), *map(reset, runs[10:]))
    for run, new in zip(runs, [*made[:10], *made[11:]], strict=True):
        if new is not None:
            assert [event["kind"] for event in await own.events(new)] == ["execution.started", "a", "a", "a"]
            assert (await own.ok("GET", f"/v1/executions/{new}"))["status"] == "running"
        else:
            await own.refused("GET", f"/v1/executions/{run}", "not-found")
    await swept(own)
    left = (await own.ok("GET", "/v1/executions?limit=100"))["items"]
    assert {one["status"] for one in left} <= {"running"}


async def test_executions_that_do_not_fit_into_a_page_together_go_one_by_one(
    own: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        run = await own.start(labels={f"l{label}": "x" for label in range(20)})
        await own.ok("POST", f"/v1/executions/{run['execution_id']}/status", json={"status": "completed"})
        own.clock.advance(number)
    rows = await of_tables(own)
    monkeypatch.setattr(sweeps, "ROWS", 30)
    own.clock.advance(DAYS * DAY_MS + 1)
    walk = inside(own)
    for left in (3, 2, 1, 0):
        await paged(own, walk)
        assert await of_tables(own) == {table: count * left // 4 for table, count in rows.items()}, "each as a whole"


async def test_what_goes_is_taken_out_of_the_tallies(own: Api) -> None:
    await worked(own)
    kept = await started(own)

    async def read(tx: Tx) -> dict[str, int]:
        return await tallies_of(tx, own.tenant, "main")

    backend = own.service.services.backend
    own.clock.advance(DAYS * DAY_MS + 1)
    await swept(own)
    found = await backend.read(read, tenants=[own.tenant])
    assert {status: count for status, count in found.items() if count} == {"running": 1}
    assert (await own.ok("GET", f"/v1/executions/{kept}"))["status"] == "running"


async def test_a_walk_is_over_once_it_was_through_all_tenants_and_begins_again_later(own: Api) -> None:
    services = own.service.services
    await swept(own)
    run = (await own.start())["execution_id"]
    await own.ok("POST", f"/v1/executions/{run}/status", json={"status": "completed"})
    seen: list[Any] = []
    watched = SimpleNamespace(settings=services.settings, backend=services.backend, lines=services.lines)
    for advance in (DAYS * DAY_MS + 1, MINUTE_MS):
        own.clock.advance(advance)
        services.lines["retention"].rest_until = own.clock.now + MINUTE_MS if not seen else own.clock.now
        await sweeps.remove(watched)
        seen.append((await of_tables(own))["executions"])
    assert seen == [1, 0]
