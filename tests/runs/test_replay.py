"""Replay: what a workflow asks for again changes nothing, what has ended stays so, a long history is read once."""

from typing import Any

import pytest

from tests.conftest import Api
from tests.runs.engine import commands, started, submit, tasks

EVERYTHING: tuple[dict[str, Any], ...] = (
    {"type": "ScheduleActivity", "seq": 1, "name": "charge", "task_queue": "pay", "input": {"n": 1}},
    {"type": "ScheduleTimer", "seq": 1, "duration_ms": 60_000},
    {"type": "StartChildWorkflow", "seq": 1, "workflow_type": "part", "execution_id": "part-1"},
    {"type": "RecordSideEffect", "seq": 1, "name": "dice", "value": None},
    {"type": "SignalExternal", "seq": 1, "execution_id": "part-1", "name": "go"},
    {"type": "WaitForSignal", "name": "approve", "timer_seq": 1},
)


async def test_a_replay_that_asks_for_everything_again_changes_nothing(api: Api) -> None:
    run = await started(api)
    (task,) = await tasks(api)
    assert (await submit(api, task, *EVERYTHING))["task_id"] is None
    before, child = await api.events(run), await api.events("part-1")
    await api.ok("POST", f"/v1/executions/{run}/signals/other")
    (task,) = await tasks(api)
    assert (await submit(api, task, *EVERYTHING))["task_id"] is None
    log = await api.events(run)
    assert [event["kind"] for event in log[len(before) :]] == ["signal.received"]
    assert (log[: len(before)], await api.events("part-1")) == (before, child)


async def test_a_side_effect_of_null_is_kept_and_makes_no_task(api: Api) -> None:
    run = await started(api)
    (task,) = await tasks(api)
    said = {"type": "RecordSideEffect", "seq": 7, "name": "dice", "value": None}
    assert (await submit(api, task, said, said))["task_id"] is None
    assert [event["body"] for event in (await api.events(run))[1:]] == [{"seq": 7, "name": "dice", "value": None}]
    assert await tasks(api) == []


async def test_waiting_writes_nothing_however_often_it_is_said(api: Api) -> None:
    run = await started(api)
    for _ in range(3):
        await api.ok("POST", f"/v1/executions/{run}/signals/other")
        (task,) = await tasks(api)
        wait = {"type": "WaitForSignal", "name": "approve"}
        assert (await submit(api, task, wait, wait))["task_id"] is None
    assert [event["kind"] for event in await api.events(run)] == ["execution.started"] + ["signal.received"] * 3


@pytest.mark.parametrize("end", ["CompleteWorkflow", "FailWorkflow", "CancelWorkflow"])
async def test_what_has_ended_ends_no_other_way(api: Api, end: str) -> None:
    run = await started(api)
    (task,) = await tasks(api)
    said = {"type": end} | ({"error": {"type": "boom"}} if end == "FailWorkflow" else {})
    await submit(api, task, said)
    log = await api.events(run)
    path = f"/v1/workflow-tasks/{task['task_id']}/commands"
    await api.refused("POST", path, "lease/settled", json=commands(task, {"type": "CompleteWorkflow", "result": 2}))
    for verb in ("cancel", "terminate", "continue-as-new", "signals/go"):
        await api.refused("POST", f"/v1/executions/{run}/{verb}", "execution/terminal", json={})
    for what, body in (("timers", {"duration_ms": 1}), ("activities", {"name": "charge", "task_queue": "pay"})):
        await api.refused("POST", f"/v1/executions/{run}/{what}", "execution/terminal", json={"seq": 9} | body)
    assert await api.events(run) == log


async def test_a_second_command_that_ends_is_refused_with_all_that_came_with_it(api: Api) -> None:
    run = await started(api)
    (task,) = await tasks(api)
    body = commands(task, {"type": "CompleteWorkflow"}, {"type": "FailWorkflow", "error": {"type": "boom"}})
    await api.refused("POST", f"/v1/workflow-tasks/{task['task_id']}/commands", "request/invalid", json=body)
    assert (await api.ok("GET", f"/v1/executions/{run}"))["status"] == "running"
    assert len(await api.events(run)) == 1


async def test_a_second_request_to_cancel_is_the_first(api: Api) -> None:
    run = await started(api)
    (task,) = await tasks(api)
    for _ in range(3):
        await api.ok("POST", f"/v1/executions/{run}/cancel", json={"reason": "enough"})
    assert [event["kind"] for event in await api.events(run)][1:] == ["workflow.cancel_requested"]
    assert (await submit(api, task, {"type": "CancelWorkflow"}))["status"] == "cancelled"


async def test_a_history_of_ten_thousand_events_is_handed_out_from_where_its_worker_stands(api: Api) -> None:
    run = await started(api)
    (task,) = await tasks(api)
    await submit(api, task)
    for _ in range(10):
        events = [{"kind": "said", "body": n} for n in range(1_000)]
        await api.ok("POST", f"/v1/executions/{run}/events", json={"events": events})
    await api.ok("POST", f"/v1/executions/{run}/signals/go")
    (task,) = await tasks(api, since={run: 10_000}, lease_ms=1_000)
    assert [event["sequence"] for event in task["history"]] == [10_001, 10_002]
    assert (task["history_sequence"], task["history_complete"]) == (10_002, True)
    await api.ok("POST", f"/v1/work-items/{task['task_id']}/release", json={"epoch": task["epoch"]})
    (task,) = await tasks(api)
    assert [event["sequence"] for event in task["history"]] == list(range(1, 10_001))
    assert (task["history_sequence"], task["history_complete"]) == (10_000, False)
    rest = await api.ok("GET", f"/v1/executions/{run}/events?after={task['history_sequence']}")
    assert [event["sequence"] for event in rest["items"]] == [10_001, 10_002]
    assert (await submit(api, task | {"history_sequence": 10_002}))["task_id"] is None


async def test_how_the_json_of_a_command_is_written_says_nothing(api: Api) -> None:
    """Another process of the worker may write the keys of an object in another order."""

    def made(value: Any) -> list[dict[str, Any]]:
        return [
            {"type": "ScheduleActivity", "seq": 1, "name": "charge", "task_queue": "pay", "input": value},
            {"type": "StartChildWorkflow", "seq": 1, "workflow_type": "part", "execution_id": "part-1", "input": value},
            {"type": "RecordSideEffect", "seq": 1, "name": "dice", "value": value},
            {"type": "SignalExternal", "seq": 1, "execution_id": "part-1", "name": "go", "payload": value},
        ]

    run = await started(api)
    (task,) = await tasks(api)
    await submit(api, task, *made({"a": 1, "b": [{"c": 2, "d": 3}]}))
    before = await api.events(run)
    await api.ok("POST", f"/v1/executions/{run}/signals/other")
    (task,) = await tasks(api)
    await submit(api, task, *made({"b": [{"d": 3, "c": 2}], "a": 1}))
    assert (await api.events(run))[:-1] == before
    await api.ok("POST", f"/v1/executions/{run}/signals/other")
    (task,) = await tasks(api)
    for one in made({"a": 1, "b": [{"c": 2, "d": 4}]}):
        path = f"/v1/workflow-tasks/{task['task_id']}/commands"
        await api.refused("POST", path, "workflow/nondeterminism", json=commands(task, one))
