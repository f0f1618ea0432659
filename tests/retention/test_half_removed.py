"""What is removed in several commits is not shown any more from the first of them on, whoever dies in between."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.history import routes
from service.namespaces import sweeps as namespaces
from service.retention import sweeps
from service.retention.sweeps import DAY_MS, Walk
from tests.conftest import Api, serving
from tests.namespaces.test_behaviour import made
from tests.runs.engine import started, submit, tasks

DAYS, EVENTS = 30, 25
READS = ("", "/events", "/events?after=20", "/events:latest", "/events:tail", "/snapshots", "/snapshots:latest",
         "/children", "/chain", "/snapshots:verify")  # fmt: skip
SORTS = ("created", "created_asc", "updated")
FILTERS = ("", "status = 'completed'", "workflow_id = 'order'", "label.l = '1'",
           "label.l = '1' AND status = 'completed'", "NOT label.l = '2'", "completed_at > '2000-01-01'")  # fmt: skip


@pytest.fixture
async def own(fresh_url: str) -> AsyncIterator[Api]:
    """A tenant in a store of its own that keeps executions for thirty days."""
    async with serving(fresh_url, execution_days=DAYS) as service:
        yield await service.tenant()


async def long(api: Api, **body: Any) -> str:
    """A run that has ended, with a log and other rows of more than a page of ten."""
    run = await started(api, state={"s": 1}, labels={"l": "1"}, **body)
    (task,) = await tasks(api, **{name: value for name, value in body.items() if name == "namespace"})
    effects = [{"type": "RecordSideEffect", "seq": n, "name": "dice", "value": n} for n in range(EVENTS)]
    await submit(api, task, {"type": "RecordSnapshot", "state": {"s": 2}}, *effects, {"type": "CompleteWorkflow"})
    return run


async def with_items(api: Api) -> tuple[str, list[str]]:
    """Such a run with an activity that was done and an item that has died; the paths of what it has."""
    run = await started(api)
    (task,) = await tasks(api)
    await submit(api, task, {"type": "ScheduleActivity", "seq": 1, "name": "charge", "task_queue": "flows"})
    asked = {"worker_id": "w", "queues": ["flows"], "activities": ["charge"]}
    (one,) = (await api.ok("POST", "/v1/activities:claim", json=asked))["items"]
    await api.ok("POST", f"/v1/activities/{one['id']}/complete", json={"epoch": one["epoch"]})
    dead = (await api.ok("POST", "/v1/work-items", json={"queue": "plain", "execution_id": run}))["id"]
    (held,) = await api.claim("plain")
    gone = {"epoch": held["epoch"], "error": {"type": "broken"}}
    await api.ok("POST", f"/v1/work-items/{dead}/dead-letter", json=gone)
    await submit(api, (await tasks(api))[0], {"type": "CompleteWorkflow"})
    items, letters, activities = f"/v1/work-items/{dead}", f"/v1/dead-letters/{dead}", f"/v1/activities/{one['id']}"
    return run, [items, letters, activities, f"/v1/work-items/{one['id']}"]


async def items_shown(api: Api, run: str) -> int:
    """How many items of an execution the lists show; a redrive's dry run counts as many dead letters as they."""
    shown = 0
    for path in ("work-items", "dead-letters"):
        of_run = (await api.ok("GET", f"/v1/{path}", params={"execution_id": run}))["items"]
        among_all = [one for one in (await api.ok("GET", f"/v1/{path}"))["items"] if one["execution_id"] == run]
        assert of_run == among_all
        shown += len(of_run)
    dry = await api.ok("POST", "/v1/dead-letters:redrive", json={"dry_run": True})
    assert dry["count"] == len((await api.ok("GET", "/v1/dead-letters"))["items"])
    return shown


async def listed_in(api: Api, run: str) -> set[bool]:
    """Whether each of the lists of executions shows one, whatever it is sorted and filtered by."""
    seen = set()
    for sort in SORTS:
        for condition in FILTERS:
            asked = {"sort": sort, "limit": 100} | ({"filter": condition} if condition else {})
            items = (await api.ok("GET", "/v1/executions", params=asked))["items"]
            seen.add(run in [one["execution_id"] for one in items])
    return seen


async def counted(api: Api, namespace: str = "main") -> dict[str, int]:
    """How many executions a namespace has, by status; those it has none of are left out."""
    stats = await api.ok("GET", f"/v1/namespaces/{namespace}/stats")
    return {status: count for status, count in stats["executions"].items() if count}


async def is_whole(api: Api, run: str) -> bool:
    """Whether an execution is there with all that it has; otherwise every way of looking at it says that it is not."""
    found = (await api.http.get(f"/v1/executions/{run}")).status_code == 200
    assert await listed_in(api, run) == {found}
    if found:
        log = [event["sequence"] for event in (await api.ok("GET", f"/v1/executions/{run}/events"))["items"]]
        latest = await api.ok("GET", f"/v1/executions/{run}/events:latest")
        assert log == list(range(1, latest["sequence"] + 1))
        assert (await api.ok("POST", f"/v1/executions/{run}/snapshots:verify"))["matches"] is True
        return True
    for path in READS:
        method = "POST" if path.endswith("verify") else "GET"
        await api.refused(method, f"/v1/executions/{run}{path}", "not-found")
    await api.refused("POST", f"/v1/executions/{run}/reset", "not-found", json={"to_sequence": 20})
    await api.refused("POST", "/v1/work-items", "not-found", json={"queue": "q", "execution_id": run})
    return False


def in_small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten rows at a time, one page in a round."""
    monkeypatch.setattr(sweeps, "ROWS", 10)
    monkeypatch.setattr(sweeps, "PAGES_A_ROUND", 1)


async def test_an_execution_is_whole_until_its_removal_begins_and_then_is_not_there(
    own: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_small_pages(monkeypatch)
    run = await long(own)
    own.clock.advance(DAYS * DAY_MS + 1)
    services, seen = own.service.services, [await is_whole(own, run)]
    walk = services.lines["retention"] = Walk()
    while not walk.rest_until:
        await sweeps.remove(services)
        seen.append(await is_whole(own, run))
        assert await counted(own) == ({"completed": 1} if seen[-1] else {})
        if seen.count(False) == 2:
            walk = services.lines["retention"] = Walk()  # the process dies, and another begins again
    assert seen == sorted(seen, reverse=True), "what is gone stays so"
    assert seen.count(False) > 6
    assert await started(own, execution_id=run) == run, "its id is free again"


async def test_what_is_being_removed_is_neither_written_to_nor_started_again(
    own: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_small_pages(monkeypatch)
    body = {"execution_id": "again"}
    run = await long(own, **body)
    own.clock.advance(DAYS * DAY_MS + 1)
    services = own.service.services
    services.lines["retention"] = Walk()
    while await is_whole(own, run):
        await sweeps.remove(services)
    for path, said in (
        ("events", {"events": [{"kind": "a"}]}), ("status", {"status": "failed"}), ("signals/go", {}), ("cancel", {}),
        ("terminate", {}), ("state:append", {"path": "/l", "value": 1}), ("timers", {"seq": 1, "duration_ms": 1}),
        ("transitions", {"changes": [{"type": "append", "kind": "a"}]}),
    ):  # fmt: skip
        await own.refused("POST", f"/v1/executions/{run}/{path}", "not-found", json=said)
    start = {"workflow_type": "order", "task_queue": "flows", "state": {"s": 1}, "labels": {"l": "1"}} | body
    for said in (start, start | {"input": 2}):
        problem = await own.refused("POST", "/v1/executions", "execution/conflict", json=said)
        assert "being removed" in problem["detail"]
    both = {"signal": {"name": "go"}, "start": start}
    await own.refused("POST", "/v1/executions:signal-with-start", "execution/conflict", json=both)
    while not services.lines["retention"].rest_until:
        await sweeps.remove(services)
    assert (await own.ok("POST", "/v1/executions", json=start))["created"] is True


async def test_items_of_what_is_being_removed_are_in_no_list_and_have_no_page(
    own: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, paths = await with_items(own)
    alone = (await own.ok("POST", "/v1/work-items", json={"queue": "alone"}))["id"]
    assert await items_shown(own, run) == 5  # two workflow tasks, the activity, and twice what has died
    own.clock.advance(DAYS * DAY_MS + 1)
    monkeypatch.setattr(sweeps, "ROWS", 1)
    monkeypatch.setattr(sweeps, "PAGES_A_ROUND", 1)
    services, walk, looked = own.service.services, Walk(), 0
    services.lines["retention"] = walk
    while not walk.rest_until:
        there = (await own.http.get(f"/v1/executions/{run}")).status_code == 200
        assert await items_shown(own, run) == (5 if there else 0)
        for path in paths:
            assert (await own.http.get(path)).status_code == (200 if there else 404), path
        looked += not there
        await sweeps.remove(services)
    assert looked > 10
    assert [one["id"] for one in (await own.ok("GET", "/v1/work-items"))["items"]] == [alone]


async def test_a_child_that_is_being_removed_stands_nowhere_any_more(own: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = await started(own, workflow_type="parent")
    (task,) = await tasks(own, "parent")
    await submit(own, task, {"type": "StartChildWorkflow", "seq": 1, "workflow_type": "order"})
    (task,) = await tasks(own)
    effects = [{"type": "RecordSideEffect", "seq": n, "name": "dice", "value": n} for n in range(EVENTS)]
    await submit(own, task, *effects, {"type": "CompleteWorkflow"})
    (child,) = (await own.ok("GET", f"/v1/executions/{parent}/children"))["items"]
    assert (child["status"], child["execution_status"]) == ("completed", "completed")
    in_small_pages(monkeypatch)
    own.clock.advance(DAYS * DAY_MS + 1)
    services = own.service.services
    services.lines["retention"] = Walk()
    while (await own.http.get(f"/v1/executions/{child['execution_id']}")).status_code == 200:
        await sweeps.remove(services)
    assert (await own.ok("GET", f"/v1/executions/{parent}/children"))["items"] == [child | {"execution_status": None}]
    assert await counted(own) == {"running": 1}


async def test_what_has_begun_to_go_is_gone_in_the_end_though_the_tenant_keeps_more_by_then(
    own: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_small_pages(monkeypatch)
    run = await long(own)
    own.clock.advance(DAYS * DAY_MS + 1)
    services = own.service.services
    walk = services.lines["retention"] = Walk()
    while await is_whole(own, run):
        await sweeps.remove(services)
    changed = await own.admin.patch(f"/v1/tenants/{own.tenant}", json={"limits": {"execution_days": 0}})
    assert changed.status_code == 200
    while not walk.rest_until:
        await sweeps.remove(services)
    assert (await own.ok("POST", "/v1/executions", json={"workflow_id": "wf", "execution_id": run}))["created"] is True


async def test_a_tail_that_meets_a_removal_shows_no_log_with_a_hole(own: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    in_small_pages(monkeypatch)
    run = await long(own)
    own.clock.advance(DAYS * DAY_MS + 1)
    page_of, services, first = routes.page_of, own.service.services, []
    services.lines["retention"] = Walk()

    async def in_the_middle(call: Any, after: int, limit: int, part: float) -> Any:
        while not (first and first[0][0] > 10):
            await sweeps.remove(services)
            first[:] = await page_of(call, after, limit, part)
        return first

    monkeypatch.setattr(routes, "page_of", in_the_middle)
    said = (await own.http.get(f"/v1/executions/{run}/events:tail")).text
    assert said.startswith("event: goodbye"), said
    assert '"code":"not-found"' in said


async def test_the_executions_of_a_namespace_that_goes_are_whole_or_not_there(
    own: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namespaces, "PAGE", 10)
    await made(own, "blue")
    runs = [await long(own, namespace="blue") for _ in range(2)]
    await own.ok("DELETE", "/v1/namespaces/blue")
    seen, gone = [await is_whole(own, run) for run in runs], 1
    assert seen == [True] * 2
    while gone:
        gone = await own.service.services.backend.write(
            lambda tx: namespaces.take(tx, own.tenant, "blue"), tenants=[own.tenant]
        )
        now = [await is_whole(own, run) for run in runs]
        assert all(was or not is_ for was, is_ in zip(seen, now, strict=True)), "what is gone stays so"
        seen = now
        left = await counted(own, "blue")
        assert left == ({"completed": seen.count(True)} if True in seen else {})
    assert seen == [False] * 2
