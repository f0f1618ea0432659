"""What a reset run finds of activities, timers, children and signals: what its prefix has got, and no more."""

from typing import Any

import pytest

from tests.activities.hands import activity, claimed, tell
from tests.chains.test_behaviour import FAIL, chain, kinds
from tests.conftest import Api, Clock
from tests.runs.engine import reclaim, ring, started, submit, tasks

CHILD = {"type": "StartChildWorkflow", "seq": 1, "workflow_type": "part", "execution_id": "kid"}


async def reset(api: Api, run: str, to_sequence: int) -> str:
    """The run that a reset begins."""
    made = await api.ok("POST", f"/v1/executions/{run}/reset", json={"to_sequence": to_sequence})
    return str(made["next_id"])


async def begun(api: Api, *made: dict[str, Any]) -> str:
    """A run whose workflow has asked for these in its first task."""
    run = await started(api)
    (task,) = await tasks(api)
    await submit(api, task, *made)
    return run


# ── activities ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", ["waits", "is held", "waits for another attempt"])
async def test_a_pending_activity_is_asked_for_anew_and_the_old_one_is_nobodys(
    api: Api, clock: Clock, how: str
) -> None:
    run = await begun(api, activity(input={"n": 1}))
    items = [] if how == "waits" else await claimed(api)
    if how == "waits for another attempt":
        await tell(api, items[0], "fail", error={"type": "busy"})
    new = await reset(api, run, 2)
    if how == "is held":
        said = {"epoch": items[0]["epoch"]}
        await api.refused("POST", f"/v1/activities/{items[0]['id']}/complete", "lease/stale", json=said)
    (item,) = await claimed(api)
    assert (item["execution_id"], item["attempt"], item["input"]) == (new, 1, {"n": 1})
    (task,) = await tasks(api)
    told = await submit(api, task, activity(input={"n": 1}))
    assert told["sequence"] == 2, "the replay's command is the one that was asked for anew"
    await tell(api, item, "complete", result=7)
    assert await kinds(api, new) == ["activity.scheduled", "activity.completed"]
    assert (await kinds(api, run))[-2:] == ["workflow.reset", "execution.terminated"]
    clock.advance(600_000)
    await reclaim(api)
    await ring(api)
    assert await claimed(api) == [], "nothing of the old run is left to be done"


async def test_an_activity_that_ended_in_the_prefix_is_not_done_again(api: Api) -> None:
    run = await begun(api, activity(1), activity(2))
    first, second = await claimed(api)
    await tell(api, first, "complete", result="one")
    await tell(api, second, "complete", result="two")
    new = await reset(api, run, 4)
    (item,) = await claimed(api)
    assert (item["execution_id"], item["seq"]) == (new, 2)
    (task,) = await tasks(api)
    assert [(event["kind"], event["body"].get("seq")) for event in task["history"]] == [
        ("execution.started", None), ("activity.scheduled", 1), ("activity.completed", 1), ("activity.scheduled", 2),
    ]  # fmt: skip
    told = await submit(api, task, activity(1), activity(2))
    assert told["sequence"] == 4


async def test_an_activity_that_only_came_later_is_forgotten(api: Api) -> None:
    run = await begun(api, activity())
    new = await reset(api, run, 1)
    assert await claimed(api) == []
    (task,) = await tasks(api)
    await submit(api, task, activity(1, name="other"))
    assert await kinds(api, new) == ["activity.scheduled"]


async def test_an_activity_that_was_tried_in_vain_may_be_tried_again_by_a_reset(api: Api) -> None:
    run = await begun(api, activity(max_attempts=1))
    (item,) = await claimed(api)
    await tell(api, item, "fail", error={"type": "card"})
    (task,) = await tasks(api)
    await submit(api, task, FAIL)
    new = await reset(api, run, 2)
    (item,) = await claimed(api)
    await tell(api, item, "complete", result="paid")
    (task,) = await tasks(api)
    await submit(api, task, {"type": "CompleteWorkflow"})
    assert [one["status"] for one in await chain(api, run)] == ["failed", "completed"]
    assert (await kinds(api, new))[-1] == "execution.completed"


# ── timers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_timer_of_the_old_run_fires_no_more(api: Api, clock: Clock) -> None:
    run = await begun(api, {"type": "ScheduleTimer", "seq": 1, "duration_ms": 1_000})
    clock.advance(600)
    new = await reset(api, run, 2)
    clock.advance(400)
    await ring(api)
    assert "timer.fired" not in await kinds(api, run) + await kinds(api, new)
    clock.advance(600)
    await ring(api)
    assert (await kinds(api, new))[-1] == "timer.fired"
    assert "timer.fired" not in await kinds(api, run)


async def test_a_moment_that_has_passed_fires_at_once(api: Api, clock: Clock) -> None:
    run = await begun(api, {"type": "ScheduleTimer", "seq": 1, "fire_at": clock.now + 1_000})
    clock.advance(1_000)
    await ring(api)
    new = await reset(api, run, 2)
    await ring(api)
    assert await kinds(api, new) == ["timer.scheduled", "timer.fired"]


# ── children ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("policy", ["terminate", "request_cancel"])
async def test_a_pending_child_is_started_anew_with_an_id_of_its_own(api: Api, policy: str) -> None:
    run = await begun(api, CHILD | {"parent_close_policy": policy})
    (kid,) = await tasks(api, "part")
    new = await reset(api, run, 2)
    assert await kinds(api, new) == ["child.started"]
    (child,) = (await api.ok("GET", f"/v1/executions/{new}/children"))["items"]
    assert (child["execution_id"] == "kid", child["status"], child["execution_status"]) == (False, "open", "running")
    (task,) = await tasks(api)
    told = await submit(api, task, CHILD | {"parent_close_policy": policy})
    assert told["sequence"] == 2
    ours = next(one for one in await tasks(api, "part") if one["execution_id"] == child["execution_id"])
    await submit(api, ours, {"type": "CompleteWorkflow", "result": 1})
    assert await kinds(api, new) == ["child.started", "child.completed"]
    assert kid["execution_id"] == "kid"
    assert [event for event in await kinds(api, run) if event.startswith("child.")] == ["child.started"]


async def test_a_child_that_was_started_after_the_point_is_started_by_the_replay(api: Api) -> None:
    run = await begun(api, CHILD)
    (kid,) = await tasks(api, "part")
    await submit(api, kid, {"type": "CompleteWorkflow"})
    new = await reset(api, run, 1)
    (task,) = await tasks(api)
    await submit(api, task, CHILD)
    assert await kinds(api, new) == ["child.started"]


@pytest.mark.parametrize("end", ["completed", "limit_exceeded"])
async def test_a_child_that_ended_in_the_prefix_is_not_started_again(api: Api, end: str) -> None:
    run = await begun(api, CHILD)
    await api.ok("POST", "/v1/executions/kid/status", json={"status": end})
    new = await reset(api, run, 3)
    assert await kinds(api, new) == ["child.started", f"child.{end}"]
    (child,) = (await api.ok("GET", f"/v1/executions/{new}/children"))["items"]
    assert (child["execution_id"], child["status"]) == ("kid", end)


async def test_a_workflow_that_is_tried_again_starts_its_children_again(api: Api, clock: Clock) -> None:
    run = await started(api, workflow_max_attempts=3)
    for _ in range(2):
        (task,) = await tasks(api)
        await submit(api, task, CHILD, FAIL)
        clock.advance(60_000)
        await reclaim(api)
    (task,) = await tasks(api)
    assert task["first_id"] == run
    await submit(api, task, CHILD)
    assert await kinds(api, task["execution_id"]) == ["child.started"]
    statuses = [one["status"] for one in (await api.ok("GET", "/v1/executions?workflow_id=part"))["items"]]
    assert sorted(statuses) == ["running", "terminated", "terminated"]


async def test_a_child_that_lives_on_keeps_its_id(api: Api) -> None:
    run = await begun(api, CHILD | {"parent_close_policy": "abandon"})
    new = await reset(api, run, 2)
    assert await kinds(api, new) == ["child.failed"]
    assert (await api.events(new))[-1]["body"]["error"]["type"] == "id-taken"
    assert (await api.ok("GET", "/v1/executions/kid"))["status"] == "running"


# ── signals ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_signal_that_is_carried_over_is_recognised_by_its_id(api: Api) -> None:
    run = await started(api)
    early, late = {"payload": {"a": 1}, "signal_id": "s1"}, {"signal_id": "s2"}
    await api.ok("POST", f"/v1/executions/{run}/signals/early", json=early)
    await api.ok("POST", f"/v1/executions/{run}/signals/late", json=late)
    new = await reset(api, run, 2)
    assert [event["body"].get("signal_id") for event in await api.events(new)][1:] == ["s1", "s2"]
    for name, said, sequence in (("early", early, 2), ("late", late, 3)):
        told = await api.ok("POST", f"/v1/executions/{new}/signals/{name}", json=said)
        assert (told["sequence"], told["created"]) == (sequence, False)
    path = f"/v1/executions/{new}/signals/early"
    await api.refused("POST", path, "signal/conflict", json={"payload": {"a": 2}, "signal_id": "s1"})
    assert len(await api.events(new)) == 3


async def test_a_signal_that_goes_on_to_the_next_run_is_recognised_by_its_id(api: Api) -> None:
    run = await started(api)
    (task,) = await tasks(api)
    await api.ok("POST", f"/v1/executions/{run}/signals/go", json={"payload": 1, "signal_id": "s"})
    await submit(api, task, {"type": "ContinueAsNew"})
    new = (await chain(api, run))[-1]["execution_id"]
    told = await api.ok("POST", f"/v1/executions/{new}/signals/go", json={"payload": 1, "signal_id": "s"})
    assert (told["sequence"], told["created"]) == (2, False)


async def test_a_write_to_a_run_that_went_on_says_where(api: Api) -> None:
    run = await started(api)
    (task,) = await tasks(api)
    await submit(api, task, {"type": "ContinueAsNew"})
    new = (await chain(api, run))[-1]["execution_id"]
    for path, body in (("signals/go", {}), ("cancel", {}), ("terminate", {}), ("continue-as-new", {"input": 3})):
        said = await api.refused("POST", f"/v1/executions/{run}/{path}", "execution/terminal", json=body)
        assert (said["next_id"], said["outcome"]) == (new, "completed")
        assert new in said["detail"]
    start = {"workflow_type": "order", "task_queue": "flows", "execution_id": run}
    body = {"start": start, "signal": {"name": "go"}}
    said = await api.refused("POST", "/v1/executions:signal-with-start", "execution/terminal", json=body)
    assert said["next_id"] == new
    ended = await started(api)
    await api.ok("POST", f"/v1/executions/{ended}/terminate", json={})
    said = await api.refused("POST", f"/v1/executions/{ended}/signals/go", "execution/terminal", json={})
    assert "next_id" not in said


async def test_a_workflow_that_signals_a_run_that_went_on_is_told_where(api: Api) -> None:
    run = await started(api)
    (task,) = await tasks(api)
    await submit(api, task, {"type": "ContinueAsNew"})
    new = (await chain(api, run))[-1]["execution_id"]
    (task,) = await tasks(api)
    await submit(api, task, {"type": "SignalExternal", "seq": 1, "execution_id": run, "name": "go"})
    body = (await api.events(new))[-1]["body"]
    assert (body["reason"], body["next_id"]) == ("completed", new)
