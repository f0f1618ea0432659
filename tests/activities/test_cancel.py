"""Activities that are taken back: what waits is withdrawn, what is under way is told and ends in its own time."""

from typing import Any

import pytest

from tests.activities.hands import activity, claimed, kinds, shown, tell, waiting
from tests.conftest import Api, Clock
from tests.runs.engine import reclaim, ring, started, submit, tasks


def cancel(seq: int = 1) -> dict[str, Any]:
    """A command that takes an activity back."""
    return {"type": "CancelActivity", "seq": seq}


async def ordering(api: Api, run: str, *made: dict[str, Any]) -> Any:
    """The workflow of a waiting run is woken and asks for these."""
    await api.ok("POST", f"/v1/executions/{run}/signals/go", json={})
    (task,) = await tasks(api)
    return await submit(api, task, *made)


async def test_an_activity_that_waits_is_withdrawn_and_its_workflow_sees_it(api: Api, clock: Clock) -> None:
    run = await waiting(api, activity(1, schedule_to_start_ms=1_000), activity(2))
    told = await ordering(api, run, cancel(1), cancel(1), cancel(9))
    assert told["task_id"] is not None
    assert (await kinds(api, run))[-1] == "activity.cancelled"
    (item,) = await claimed(api)
    assert item["seq"] == 2
    clock.advance(1_000)
    await ring(api)
    assert (await kinds(api, run)).count("activity.cancelled") == 1
    assert "activity.timed_out" not in await kinds(api, run)


async def test_an_activity_asked_for_and_taken_back_at_once_is_never_handed_out(api: Api) -> None:
    run = await started(api)
    (task,) = await tasks(api)
    await submit(api, task, activity(), cancel())
    assert await claimed(api) == []
    assert await kinds(api, run) == ["activity.scheduled", "activity.cancelled"]


async def test_fifty_activities_are_taken_back_in_one_submission(api: Api) -> None:
    run = await waiting(api, *(activity(seq) for seq in range(50)))
    await ordering(api, run, *(cancel(seq) for seq in range(50)))
    assert (await kinds(api, run)).count("activity.cancelled") == 50
    assert await claimed(api) == []


async def test_an_activity_under_way_is_told_at_its_heartbeat_and_may_still_succeed(api: Api) -> None:
    run = await waiting(api, activity())
    (item,) = await claimed(api)
    await ordering(api, run, cancel())
    assert "activity.cancelled" not in await kinds(api, run)
    assert (await tell(api, item, "heartbeat"))["cancel_requested"] is True
    assert (await shown(api, item))["cancel_requested"] is True
    await tell(api, item, "complete", result=1)
    assert (await kinds(api, run))[-1] == "activity.completed"


@pytest.mark.parametrize("how", ["fail", "release", "settle", "lease", "deadline"])
async def test_an_activity_that_was_told_to_stop_is_not_tried_again(how: str, api: Api, clock: Clock) -> None:
    run = await waiting(api, activity(start_to_close_ms=10_000))
    (item,) = await claimed(api, lease_ms=5_000 if how == "lease" else 60_000)
    await ordering(api, run, cancel())
    if how == "fail":
        told = await tell(api, item, "fail", error={"type": "stopped"})
        assert (told["outcome"], told["status"]) == ("cancelled", "cancelled")
        assert await tell(api, item, "fail", error={"type": "stopped"}) == told
    if how == "release":
        path, body = f"/v1/work-items/{item['id']}/release", {"epoch": item["epoch"]}
        told = await api.ok("POST", path, json=body)
        assert (told["outcome"], told["status"]) == ("cancelled", "cancelled")
        assert await api.ok("POST", path, json=body) == told
    if how == "settle":
        lease, change = {"work_item_id": item["id"], "epoch": item["epoch"]}, {"type": "settle", "outcome": "released"}
        told = await api.ok("POST", f"/v1/executions/{run}/transitions", json={"lease": lease, "changes": [change]})
        assert told["changes"][0]["outcome"] == "cancelled"
    clock.advance(10_000)
    await reclaim(api)
    await ring(api)
    assert (await kinds(api, run)).count("activity.cancelled") == 1
    assert (await kinds(api, run))[-1] == "activity.cancelled"
    assert (await shown(api, item))["status"] == "cancelled"
    assert await claimed(api) == []
    assert (await api.ok("GET", "/v1/dead-letters"))["items"] == []


@pytest.mark.parametrize("outcome", ["released", "failed"])
async def test_a_transition_that_gives_back_what_was_to_stop_is_repeated_by_its_holder_only(
    outcome: str, api: Api, clock: Clock
) -> None:
    run = await waiting(api, activity(start_to_close_ms=100_000))
    (lost,) = await claimed(api, lease_ms=1_000)
    clock.advance(1_000)
    await reclaim(api)
    clock.advance(60_000)
    (held,) = await claimed(api)
    await ordering(api, run, cancel())
    path, changes = f"/v1/executions/{run}/transitions", [{"type": "settle", "outcome": outcome}]
    mine, old = (
        {"lease": {"work_item_id": item["id"], "epoch": item["epoch"]}, "changes": changes} for item in (held, lost)
    )
    told = await api.ok("POST", path, json=mine)
    assert told["changes"][0]["outcome"] == "cancelled"
    assert await api.ok("POST", path, json=mine) == told
    await api.refused("POST", path, "lease/stale", json=old)


async def test_a_run_that_is_asked_to_stop_asks_its_activities(api: Api) -> None:
    run = await waiting(api, *(activity(seq) for seq in range(30)))
    (item,) = await claimed(api, max_items=1)
    await api.ok("POST", f"/v1/executions/{run}/cancel", json={})
    assert (await kinds(api, run)).count("activity.cancelled") == 29
    assert await claimed(api) == []
    assert (await tell(api, item, "heartbeat"))["cancel_requested"] is True
    (task,) = await tasks(api)
    assert (await submit(api, task, {"type": "CancelWorkflow"}))["status"] == "cancelled"
    assert (await shown(api, item))["status"] == "closed"


@pytest.mark.parametrize("count", [1, 120])
async def test_an_activity_whose_item_is_cancelled_is_seen_as_cancelled(api: Api, clock: Clock, count: int) -> None:
    run = await waiting(api, *(activity(seq, schedule_to_close_ms=60_000) for seq in range(count)))
    (item,) = await claimed(api, max_items=1)
    changes = [{"type": "cancel_items", "queue": "pay"}]
    told = await api.ok("POST", f"/v1/executions/{run}/transitions", json={"changes": changes})
    assert told["changes"][0]["last_sequence"] == 1 + 2 * count
    assert (await kinds(api, run))[count:] == ["activity.cancelled"] * count
    path, body = f"/v1/activities/{item['id']}/complete", {"epoch": item["epoch"]}
    await api.refused("POST", path, "lease/stale", json=body)
    clock.advance(60_000)
    assert await ring(api) == 0
    (task,) = await tasks(api)
    assert (await submit(api, task, {"type": "CompleteWorkflow"}))["status"] == "completed"


@pytest.mark.parametrize("held", [False, True])
async def test_a_workflow_task_is_no_item_to_cancel(api: Api, held: bool) -> None:
    """Without it the run would never be woken again, whatever comes."""
    run = await started(api)
    found = await tasks(api) if held else []
    (item,) = (await api.ok("GET", f"/v1/work-items?execution_id={run}"))["items"]
    changes = [{"type": "cancel_items"}, {"type": "cancel_items", "ids": [item["id"]]}]
    await api.ok("POST", f"/v1/executions/{run}/transitions", json={"changes": changes})
    (task,) = found or await tasks(api)
    assert (await submit(api, task, {"type": "CompleteWorkflow"}))["status"] == "completed"
