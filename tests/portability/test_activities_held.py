"""Activities that workers hold while their tenant is exported: where it arrives, nobody has held them for long."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.activities.hands import activity, claimed, kinds, tell, waiting
from tests.conftest import ENGINES, Api, Clock, Service, new_store, serving
from tests.portability.steps import arrived, export, import_
from tests.runs.engine import reclaim, ring, submit, tasks


@pytest.fixture(params=ENGINES)
async def other_store(
    request: pytest.FixtureRequest, tmp_path: Path, postgres_server: str, clock: Clock
) -> AsyncIterator[Service]:
    """A store of its own, of either engine, at the time that it is here."""
    url = f"sqlite:///{tmp_path / 'other.db'}" if request.param == "sqlite" else await new_store(postgres_server)
    async with serving(url) as service:
        service.clock.now = clock.now
        yield service


async def moved(api: Api, there: Service) -> Api:
    """The tenant where it has arrived."""
    there.clock.now = api.clock.now
    await import_(there, await export(api.http, api.tenant))
    return await arrived(there, api.tenant)


async def test_one_that_a_worker_took_in_time_is_not_overdue_where_it_arrives(
    api: Api, clock: Clock, other_store: Service
) -> None:
    """It waits for a worker from the moment of the export on, however long one had worked on it."""
    run = await waiting(api, activity(schedule_to_start_ms=10_000, heartbeat_timeout_ms=30_000, max_attempts=1))
    (item,) = await claimed(api, lease_ms=60_000)
    for _ in range(2):
        clock.advance(20_000)
        await tell(api, item, "heartbeat")
    clock.advance(25_000)
    there = await moved(api, other_store)
    there.clock.advance(9_000)
    await ring(there)
    assert await kinds(there, run) == ["activity.scheduled"]
    (again,) = await claimed(there)
    assert (again["id"], again["attempt"], again["epoch"]) == (item["id"], 1, item["epoch"] + 2)
    await tell(there, again, "complete", result=1)
    assert (await kinds(there, run))[-1] == "activity.completed"


async def test_one_that_no_worker_takes_where_it_arrives_is_overdue_in_its_time(
    api: Api, clock: Clock, other_store: Service
) -> None:
    run = await waiting(api, activity(schedule_to_start_ms=10_000, heartbeat_timeout_ms=30_000))
    await claimed(api, lease_ms=60_000)
    there = await moved(api, other_store)
    there.clock.advance(30_000)
    await ring(there)
    assert await kinds(there, run) == ["activity.scheduled", "activity.timed_out"]
    assert await claimed(there) == []


async def test_one_that_was_told_to_stop_is_not_handed_to_another_worker(api: Api, other_store: Service) -> None:
    """It has stopped, as one that its worker gives back; its workflow hears so once."""
    run = await waiting(api, activity())
    (item,) = await claimed(api, lease_ms=60_000)
    await api.ok("POST", f"/v1/executions/{run}/cancel", json={})
    there = await moved(api, other_store)
    assert await claimed(there) == []
    await reclaim(there)
    await reclaim(there)
    assert await claimed(there) == []
    assert (await kinds(there, run)).count("activity.cancelled") == 1
    fenced = await there.http.post(f"/v1/activities/{item['id']}/complete", json={"epoch": item["epoch"]})
    assert fenced.status_code == 409, fenced.text
    (task,) = await tasks(there)
    assert (await submit(there, task, {"type": "CancelWorkflow"}))["status"] == "cancelled"
    assert (await tell(api, item, "heartbeat"))["cancel_requested"] is True  # at home the lease is as it was
