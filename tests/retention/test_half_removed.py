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


@pytest.fixture
async def own(fresh_url: str) -> AsyncIterator[Api]:
    """A tenant in a store of its own that keeps executions for thirty days."""
    async with serving(fresh_url, execution_days=DAYS) as service:
        yield await service.tenant()


async def long(api: Api, **body: Any) -> str:
    """A run that has ended, with a log and other rows of more than a page of ten."""
    run = await started(api, state={"s": 1}, **body)
    (task,) = await tasks(api, **body)
    effects = [{"type": "RecordSideEffect", "seq": n, "name": "dice", "value": n} for n in range(EVENTS)]
    await submit(api, task, {"type": "RecordSnapshot", "state": {"s": 2}}, *effects, {"type": "CompleteWorkflow"})
    return run


async def is_whole(api: Api, run: str) -> bool:
    """Whether an execution is there with all that it has; otherwise every way of looking at it says that it is not."""
    if (await api.http.get(f"/v1/executions/{run}")).status_code == 200:
        log = [event["sequence"] for event in (await api.ok("GET", f"/v1/executions/{run}/events"))["items"]]
        latest = await api.ok("GET", f"/v1/executions/{run}/events:latest")
        assert log == list(range(1, latest["sequence"] + 1))
        assert (await api.ok("POST", f"/v1/executions/{run}/snapshots:verify"))["matches"] is True
        return True
    for path in READS:
        method = "POST" if path.endswith("verify") else "GET"
        await api.refused(method, f"/v1/executions/{run}{path}", "not-found")
    await api.refused("POST", f"/v1/executions/{run}/reset", "not-found", json={"to_sequence": 20})
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
        if seen.count(False) == 2:
            walk = services.lines["retention"] = Walk()  # the process dies, and another begins again
    assert seen == sorted(seen, reverse=True), "what is gone stays so"
    assert seen.count(False) > 6
    assert await started(own, execution_id=run) == run, "its id is free again"


async def test_a_tail_that_meets_a_removal_shows_no_log_with_a_hole(own: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    in_small_pages(monkeypatch)
    run = await long(own)
    own.clock.advance(DAYS * DAY_MS + 1)
    page_of, services, first = routes.page_of, own.service.services, []
    services.lines["retention"] = Walk()

    async def in_the_middle(call: Any, after: int, limit: int) -> Any:
        while not (first and first[0][0] > 10):
            await sweeps.remove(services)
            first[:] = await page_of(call, after, limit)
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
    runs = [await long(own, namespace="blue") for _ in range(3)]
    await own.ok("DELETE", "/v1/namespaces/blue")
    seen, gone = [await is_whole(own, run) for run in runs], 1
    assert seen == [True] * 3
    while gone:
        gone = await own.service.services.backend.write(
            lambda tx: namespaces.take(tx, own.tenant, "blue"), tenants=[own.tenant]
        )
        now = [await is_whole(own, run) for run in runs]
        assert all(was or not is_ for was, is_ in zip(seen, now, strict=True)), "what is gone stays so"
        seen = now
    assert seen == [False] * 3
