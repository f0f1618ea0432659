"""Timers: each fires once, in the order of their times, not early, not after it was cancelled or its run has ended."""

from typing import Any

import pytest

from tests.conftest import Api, Clock
from tests.runs.engine import commands, ring, started, submit, tasks


def timer(seq: int, **said: Any) -> dict[str, Any]:
    """A command that sets a timer."""
    return {"type": "ScheduleTimer", "seq": seq} | said


async def waiting(api: Api, *timers: dict[str, Any]) -> str:
    """A run whose workflow has set these timers and seen everything so far."""
    run = await started(api)
    (task,) = await tasks(api)
    told = await submit(api, task, *timers)
    assert told["task_id"] is None
    return run


async def kinds(api: Api, run: str) -> list[str]:
    """The kinds of the events after the start."""
    return [event["kind"] for event in await api.events(run)][1:]


async def test_a_timer_fires_once_and_wakes_its_workflow(api: Api, clock: Clock) -> None:
    run = await waiting(api, timer(1, duration_ms=1_000))
    clock.advance(999)
    await ring(api)
    assert await tasks(api) == []
    clock.advance(1)
    await ring(api)
    await ring(api)
    assert await kinds(api, run) == ["timer.scheduled", "timer.fired"]
    (task,) = await tasks(api, since={run: 2})
    assert [event["body"]["seq"] for event in task["history"]] == [1]


async def test_timers_fire_in_the_order_of_their_times(api: Api, clock: Clock) -> None:
    run = await waiting(api, timer(1, duration_ms=300), timer(2, duration_ms=100), timer(3, fire_at=clock.now + 200))
    clock.advance(1_000)
    await ring(api)
    fired = [event["body"]["seq"] for event in await api.events(run) if event["kind"] == "timer.fired"]
    assert fired == [2, 3, 1]
    assert len(await tasks(api)) == 1


async def test_a_thousand_timers_of_one_millisecond_fire_once_each(api: Api, clock: Clock) -> None:
    run = await waiting(api, *(timer(seq, fire_at=clock.now + 5) for seq in range(1_000)))
    clock.advance(5)
    while await ring(api):
        pass
    log: list[Any] = []
    while page := (await api.ok("GET", f"/v1/executions/{run}/events?limit=1000&after={len(log)}"))["items"]:
        log += page
    fired = [event["body"]["seq"] for event in log if event["kind"] == "timer.fired"]
    assert sorted(fired) == list(range(1_000))
    assert len(log) == 2_001


async def test_a_cancelled_timer_does_not_fire(api: Api, clock: Clock) -> None:
    run = await waiting(api, timer(1, duration_ms=10), timer(2, duration_ms=10))
    await api.ok("POST", f"/v1/executions/{run}/timers", json={"seq": 3, "duration_ms": 1})
    clock.advance(1)
    await ring(api)
    (task,) = await tasks(api)
    cancel = {"type": "CancelTimer", "seq": 1}
    await submit(api, task, cancel, cancel, {"type": "CancelTimer", "seq": 9}, {"type": "CancelTimer", "seq": 3})
    clock.advance(10)
    await ring(api)
    assert (await kinds(api, run))[-2:] == ["timer.cancelled", "timer.fired"]


async def test_the_same_timer_again_is_the_same_and_another_is_refused(api: Api, clock: Clock) -> None:
    run = await waiting(api, timer(1, duration_ms=50))
    first = await api.ok("POST", f"/v1/executions/{run}/timers", json={"seq": 1, "duration_ms": 50})
    assert (first["created"], first["fire_at"]) == (False, clock.now + 50)
    body = {"seq": 1, "duration_ms": 51}
    await api.refused("POST", f"/v1/executions/{run}/timers", "workflow/nondeterminism", json=body)


@pytest.mark.parametrize("said", [{}, {"fire_at": 1, "duration_ms": 1}])
async def test_a_timer_has_one_time(api: Api, said: dict[str, int]) -> None:
    run = await started(api)
    (task,) = await tasks(api)
    path = f"/v1/workflow-tasks/{task['task_id']}/commands"
    body = commands(task, timer(1, duration_ms=1), timer(2, **said), {"type": "CancelTimer"}, timer(3, **said))
    problem = await api.refused("POST", path, "request/invalid", json=body)
    assert [error["pointer"] for error in problem["errors"]] == ["/commands/1", "/commands/2", "/commands/3"]
    problem = await api.refused("POST", f"/v1/executions/{run}/timers", "request/invalid", json={"seq": 1} | said)
    assert [error["pointer"] for error in problem["errors"]] == ["/fire_at"]


async def test_a_run_that_has_ended_has_no_timers(api: Api, clock: Clock) -> None:
    run = await waiting(api, timer(1, duration_ms=10))
    await api.ok("POST", f"/v1/executions/{run}/terminate", json={})
    clock.advance(10)
    await ring(api)
    assert await kinds(api, run) == ["timer.scheduled", "execution.terminated"]


async def test_a_request_to_cancel_disarms_what_is_pending(api: Api, clock: Clock) -> None:
    run = await waiting(api, timer(1, duration_ms=10))
    await api.ok("POST", f"/v1/executions/{run}/cancel", json={})
    clock.advance(10)
    await ring(api)
    assert await kinds(api, run) == ["timer.scheduled", "workflow.cancel_requested", "timer.cancelled"]


async def test_an_execution_without_a_workflow_has_no_timers(api: Api) -> None:
    made = await api.start()
    body = {"seq": 1, "duration_ms": 1}
    await api.refused("POST", f"/v1/executions/{made['execution_id']}/timers", "not-found", json=body)


async def test_a_request_to_cancel_disarms_however_many_are_pending(api: Api) -> None:
    run = await waiting(api, *(timer(seq, duration_ms=10) for seq in range(50)))
    await api.ok("POST", f"/v1/executions/{run}/cancel", json={})
    assert (await kinds(api, run)).count("timer.cancelled") == 50
