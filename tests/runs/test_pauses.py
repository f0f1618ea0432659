"""A run that is paused decides nothing; it misses nothing either, and goes on where it was."""

import asyncio
from typing import Any

import pytest

from tests.activities.hands import activity, claimed
from tests.conftest import Api, Clock
from tests.runs.engine import commands, reclaim, ring, started, submit, tasks


async def moved(api: Api, run: str, status: str) -> Any:
    """The run, paused or resumed by an operator."""
    return await api.ok("POST", f"/v1/executions/{run}/status", json={"status": status})


async def test_a_paused_run_has_no_task_and_one_that_goes_on_shows_what_came_meanwhile(api: Api) -> None:
    run = await started(api)
    await moved(api, run, "paused")
    assert (await tasks(api), (await api.ok("GET", f"/v1/executions/{run}"))["open_items"]) == ([], 0)
    await api.ok("POST", f"/v1/executions/{run}/signals/approve", json={"payload": 1})
    assert await tasks(api) == []
    await moved(api, run, "running")
    (task,) = await tasks(api)
    kinds = [event["kind"] for event in task["history"]]
    assert kinds == ["execution.started", "execution.status_changed", "signal.received", "execution.status_changed"]
    assert (await submit(api, task, {"type": "CompleteWorkflow"}))["status"] == "completed"


async def test_who_holds_the_task_of_a_run_that_is_paused_has_lost_it(api: Api, clock: Clock) -> None:
    run = await started(api)
    (held,) = await tasks(api, lease_ms=1_000)
    await moved(api, run, "paused")
    at = f"/v1/workflow-tasks/{held['task_id']}"
    await api.refused("POST", f"{at}/commands", "lease/stale", json=commands(held, {"type": "CompleteWorkflow"}))
    await api.refused("POST", f"{at}/renew", "lease/stale", json={"epoch": held["epoch"]})
    clock.advance(1_001)
    await reclaim(api)
    assert await tasks(api) == []
    await moved(api, run, "running")
    (task,) = await tasks(api)
    assert task["task_id"] != held["task_id"]
    await submit(api, task, {"type": "CompleteWorkflow"})


async def test_what_a_paused_run_has_asked_for_goes_on_and_is_seen_later(api: Api, clock: Clock) -> None:
    run = await started(api)
    (task,) = await tasks(api)
    await submit(api, task, activity(), {"type": "ScheduleTimer", "seq": 1, "duration_ms": 1_000})
    await moved(api, run, "paused")
    (attempt,) = await claimed(api)
    await api.ok("POST", f"/v1/activities/{attempt['id']}/complete", json={"epoch": attempt["epoch"], "result": 2})
    clock.advance(1_000)
    await ring(api)
    assert await tasks(api) == []
    await moved(api, run, "running")
    (task,) = await tasks(api)
    assert {"activity.completed", "timer.fired"} <= {event["kind"] for event in task["history"]}


async def test_a_run_that_has_seen_everything_is_not_woken_by_going_on(api: Api) -> None:
    run = await started(api)
    (task,) = await tasks(api)
    await submit(api, task, activity())
    await moved(api, run, "paused")
    await moved(api, run, "running")
    assert await tasks(api) == []


async def test_a_cancellation_waits_for_a_paused_run_unless_it_is_forced(api: Api, clock: Clock) -> None:
    runs = [await started(api) for _ in range(2)]
    for task in await tasks(api):
        await submit(api, task, activity())
    for run, body in zip(runs, ({}, {"force_after_ms": 1_000}), strict=True):
        await moved(api, run, "paused")
        assert (await api.ok("POST", f"/v1/executions/{run}/cancel", json=body))["status"] == "paused"
    clock.advance(1_000)
    await ring(api)
    assert [(await api.ok("GET", f"/v1/executions/{run}"))["status"] for run in runs] == ["paused", "cancelled"]
    await moved(api, runs[0], "running")
    (task,) = await tasks(api)
    assert (await submit(api, task, {"type": "CancelWorkflow"}))["status"] == "cancelled"


@pytest.mark.parametrize("goes_on", [True, False])
async def test_a_run_whose_task_was_held_before_the_pause_is_asked_to_stop(api: Api, goes_on: bool) -> None:
    """Only a run that no worker has ever held a task of is cancelled at once."""
    run = await started(api)
    await tasks(api)
    await moved(api, run, "paused")
    if goes_on:
        await moved(api, run, "running")
    asked = await api.ok("POST", f"/v1/executions/{run}/cancel", json={})
    assert asked["status"] == ("running" if goes_on else "paused")


async def test_a_pause_and_a_claim_at_once_leave_no_task_with_a_paused_run(api: Api) -> None:
    for _ in range(5):
        run = await started(api)
        got, _ = await asyncio.gather(tasks(api), moved(api, run, "paused"))
        for task in got:
            body = commands(task, {"type": "CompleteWorkflow"})
            await api.refused("POST", f"/v1/workflow-tasks/{task['task_id']}/commands", "lease/stale", json=body)
        assert await tasks(api) == []
        found = await api.ok("GET", f"/v1/executions/{run}")
        assert (found["status"], found["open_items"]) == ("paused", 0)
