"""Reset: a new run knows what the old one knew at that point, asks anew for what was pending, and is linked to it."""

from typing import Any

import pytest

from tests.chains.test_behaviour import chain, kinds
from tests.conftest import Api, Clock
from tests.runs.engine import ring, started, submit, tasks


def effect(seq: int, value: Any) -> dict[str, Any]:
    """A command that keeps a value."""
    return {"type": "RecordSideEffect", "seq": seq, "name": "uuid", "value": value}


def timer(seq: int, ms: int) -> dict[str, Any]:
    """A command that sets a timer."""
    return {"type": "ScheduleTimer", "seq": seq, "duration_ms": ms}


async def worked(api: Api, clock: Clock) -> str:
    """A run with a side effect (2), a fired timer (3, 5), a pending one (4), a signal (6), an effect (7)."""
    run = await started(api, input=1, memo="m", attributes={"customer": "c"}, state={"n": 0})
    (task,) = await tasks(api)
    await submit(api, task, effect(1, "a"), timer(1, 10), timer(2, 1_000))
    clock.advance(10)
    await ring(api)
    await api.ok("POST", f"/v1/executions/{run}/signals/go")
    (task,) = await tasks(api)
    await submit(api, task, effect(2, "b"))
    assert await kinds(api, run) == [
        "side_effect.recorded", "timer.scheduled", "timer.scheduled", "timer.fired", "signal.received",
        "side_effect.recorded",
    ]  # fmt: skip
    return run


async def test_a_reset_run_has_the_prefix_and_asks_anew_for_what_was_pending(api: Api, clock: Clock) -> None:
    run = await worked(api, clock)
    said = {"to_sequence": 5, "reason": "bad release"}
    made = await api.ok("POST", f"/v1/executions/{run}/reset", json=said)
    assert [(one["status"], one["next_id"]) for one in await chain(api, run)] == [
        ("terminated", made["next_id"]), ("running", None),
    ]  # fmt: skip
    assert (await kinds(api, run))[-2:] == ["workflow.reset", "execution.terminated"]
    (task,) = await tasks(api)
    assert task["execution_id"] == made["next_id"]
    assert [(event["kind"], event["body"].get("seq")) for event in task["history"]] == [
        ("execution.started", None), ("side_effect.recorded", 1), ("timer.scheduled", 1), ("timer.fired", 1),
        ("timer.scheduled", 2), ("signal.received", None),
    ]  # fmt: skip
    assert (task["memo"], task["history"][0]["body"]["input"]) == ("m", 1)
    told = await submit(api, task, effect(1, "a"), timer(1, 10), timer(2, 1_000), effect(2, "c"))
    assert told["sequence"] == 7
    clock.advance(999)
    await ring(api)
    assert (await kinds(api, made["next_id"])).count("timer.fired") == 1
    clock.advance(1)
    await ring(api)
    assert (await kinds(api, made["next_id"])).count("timer.fired") == 2


async def test_the_same_reset_again_is_the_same_and_another_is_refused(api: Api, clock: Clock) -> None:
    run = await worked(api, clock)
    path = f"/v1/executions/{run}/reset"
    made = await api.ok("POST", path, json={"to_sequence": 2})
    assert await api.ok("POST", path, json={"to_sequence": 2}) == made | {"created": False}
    said = await api.refused("POST", path, "execution/conflict", json={"to_sequence": 3})
    assert said["next_id"] == made["next_id"]


async def test_a_run_that_has_ended_is_reset_too(api: Api, clock: Clock) -> None:
    run = await worked(api, clock)
    await api.ok("POST", f"/v1/executions/{run}/state:append", json={"path": "/list", "value": 1})
    await api.ok("PATCH", f"/v1/executions/{run}/attributes", json={"attributes": {"customer": "d", "more": 1}})
    await api.ok("POST", f"/v1/executions/{run}/terminate", json={})
    made = await api.ok("POST", f"/v1/executions/{run}/reset", json={"to_sequence": 10})
    found = await api.ok("GET", f"/v1/executions/{made['next_id']}")
    assert (found["status"], found["state"]) == ("running", {"n": 0, "list": [1]})
    assert found["attributes"] == {"customer": "d", "more": 1}
    await api.ok("PUT", f"/v1/executions/{made['next_id']}/snapshots/{found['sequence']}")
    assert (await api.ok("GET", f"/v1/executions/{made['next_id']}/snapshots:latest"))["fold"]["state"] == found[
        "state"
    ]


@pytest.mark.parametrize(("point", "found"), [(1, ("a", None, {})), (3, ("b", {"n": 1}, {"n": 1}))])
async def test_labels_attributes_and_state_are_as_they_were_at_the_point(
    api: Api, point: int, found: tuple[str, Any, Any]
) -> None:
    path = f"/v1/executions/{await started(api, labels={'team': 'a'})}"
    for team, n in (("b", 1), ("c", 2)):
        await api.ok("PATCH", f"{path}/attributes", json={"attributes": {"n": n}, "labels": {"team": team}})
        await api.ok("PUT", f"{path}/state", json={"n": n})
    made = await api.ok("POST", f"{path}/reset", json={"to_sequence": point})
    shown = await api.ok("GET", f"/v1/executions/{made['next_id']}")
    assert (shown["labels"]["team"], shown["attributes"], shown["state"]) == found


async def test_what_others_wrote_into_the_log_goes_on_as_it_was(api: Api) -> None:
    run = await started(api)
    written = [
        {"kind": kind, "body": n, "node_id": "n", "causation_id": f"c{n}"}
        for n, kind in enumerate(["workflow.approved", "work.noted", "execution.seen", "snapshot.mine", "my.kind"])
    ]
    await api.ok("POST", f"/v1/executions/{run}/events", json={"events": written})
    made = await api.ok("POST", f"/v1/executions/{run}/reset", json={"to_sequence": 6})
    found = (await api.events(made["next_id"]))[1:]
    assert [{name: event.get(name) for name in written[0]} for event in found] == written


async def test_a_child_that_is_reset_stays_its_parents(api: Api) -> None:
    parent = await started(api)
    (task,) = await tasks(api)
    await submit(api, task, {"type": "StartChildWorkflow", "seq": 1, "workflow_type": "part", "execution_id": "kid"})
    await api.ok("POST", "/v1/executions/kid/reset", json={"to_sequence": 1})
    assert await kinds(api, parent) == ["child.started"]
    (task,) = await tasks(api, "part")
    await submit(api, task, {"type": "CompleteWorkflow"})
    assert await kinds(api, parent) == ["child.started", "child.completed"]


async def test_a_point_outside_the_log_is_refused(api: Api) -> None:
    run = await started(api)
    await api.refused("POST", f"/v1/executions/{run}/reset", "request/invalid", json={"to_sequence": 2})
    await api.refused("POST", f"/v1/executions/{run}/reset", "request/invalid", json={"to_sequence": 0})
    made = await api.start()
    path = f"/v1/executions/{made['execution_id']}/reset"
    await api.refused("POST", path, "not-found", json={"to_sequence": 1})


@pytest.mark.parametrize(("point", "memo"), [(1, "first"), (2, "second"), (3, "third")])
async def test_a_memo_is_as_it_was_at_the_point(api: Api, point: int, memo: str) -> None:
    run = await started(api, memo="first")
    (task,) = await tasks(api)
    await submit(api, task, {"type": "SetMemo", "memo": "second"}, {"type": "SetMemo", "memo": "third"})
    await api.ok("POST", f"/v1/executions/{run}/reset", json={"to_sequence": point})
    (task,) = await tasks(api)
    assert task["memo"] == memo


async def test_a_reset_begins_the_time_of_the_execution_anew(api: Api, clock: Clock) -> None:
    run = await started(api, execution_timeout_ms=1_000)
    clock.advance(1_000)
    await ring(api)
    await api.ok("POST", f"/v1/executions/{run}/reset", json={"to_sequence": 1})
    for ms, becomes in ((999, "running"), (1, "timed_out")):
        clock.advance(ms)
        await ring(api)
        assert [one["status"] for one in await chain(api, run)] == ["timed_out", becomes]


async def test_a_child_that_ended_with_its_parent_goes_on_when_it_is_reset(api: Api) -> None:
    parent = await started(api)
    (task,) = await tasks(api)
    await submit(api, task, {"type": "StartChildWorkflow", "seq": 1, "workflow_type": "part", "execution_id": "kid"})
    await api.ok("POST", f"/v1/executions/{parent}/terminate", json={})
    await api.ok("POST", "/v1/executions/kid/reset", json={"to_sequence": 1})
    for statuses in (["terminated", "running"], ["terminated", "completed", "running"]):
        await ring(api)
        assert [one["status"] for one in await chain(api, "kid")] == statuses
        (task,) = await tasks(api, "part")
        await submit(api, task, {"type": "ContinueAsNew"})


async def test_a_run_that_was_asked_to_stop_by_the_point_still_is(api: Api, clock: Clock) -> None:
    """What was pending when it was asked is withdrawn; what the workflow asked for after that is to be done."""
    run = await started(api)
    (task,) = await tasks(api)
    await submit(
        api, task, {"type": "ScheduleActivity", "seq": 1, "name": "charge", "task_queue": "pay"}, timer(1, 1_000)
    )
    said = {"worker_id": "a", "queues": ["pay"], "activities": ["charge"]}
    await api.ok("POST", "/v1/activities:claim", json=said)
    await api.ok("POST", f"/v1/executions/{run}/cancel", json={"reason": "enough"})
    (task,) = await tasks(api)
    await submit(api, task, timer(2, 10))
    assert await kinds(api, run) == [
        "activity.scheduled", "timer.scheduled", "workflow.cancel_requested", "timer.cancelled", "timer.scheduled",
    ]  # fmt: skip
    made = await api.ok("POST", f"/v1/executions/{run}/reset", json={"to_sequence": 6})
    (task,) = await tasks(api)
    assert task["cancel_requested_at"] is not None
    assert [(event["kind"], event["body"].get("seq")) for event in task["history"]][1:] == [
        ("timer.scheduled", 1), ("workflow.cancel_requested", None), ("timer.cancelled", 1),
        ("activity.scheduled", 1), ("activity.cancelled", 1), ("timer.scheduled", 2),
    ]  # fmt: skip
    clock.advance(10)
    await ring(api)
    assert (await kinds(api, made["next_id"]))[-1] == "timer.fired"
    await api.refused("POST", f"/v1/executions/{run}/cancel", "execution/terminal", json={})
    before = len(await api.events(made["next_id"]))
    await api.ok("POST", f"/v1/executions/{made['next_id']}/cancel", json={"reason": "again"})
    assert len(await api.events(made["next_id"])) == before  # it was asked already


async def test_a_request_to_cancel_that_is_kept_by_a_reset_is_forced_when_it_would_have_been(
    api: Api, clock: Clock
) -> None:
    run = await started(api)
    await tasks(api)
    await api.ok("POST", f"/v1/executions/{run}/cancel", json={"force_after_ms": 1_000})
    clock.advance(400)
    await api.ok("POST", f"/v1/executions/{run}/reset", json={"to_sequence": 2})
    for ms, becomes in ((599, "running"), (1, "cancelled")):
        clock.advance(ms)
        await ring(api)
        assert [one["status"] for one in await chain(api, run)] == ["terminated", becomes]


@pytest.mark.parametrize("how", ["left as it is", "reset"])
async def test_a_child_that_is_to_stop_is_told_so_though_it_goes_on_in_another_run(
    how: str, api: Api, clock: Clock
) -> None:
    """Of so many children none is told in the commit of the request."""
    run = await started(api)
    (task,) = await tasks(api)
    kid = {"type": "StartChildWorkflow", "workflow_type": "part", "parent_close_policy": "request_cancel"}
    await submit(api, task, *(kid | {"seq": seq} for seq in range(101)))
    clock.advance(5)
    await api.ok("POST", f"/v1/executions/{run}/cancel", json={})
    if how == "reset":
        clock.advance(5)
        last = len(await api.events(run))
        run = (await api.ok("POST", f"/v1/executions/{run}/reset", json={"to_sequence": last}))["next_id"]
    child = (await api.ok("GET", f"/v1/executions/{run}/children?limit=1"))["items"][0]["execution_id"]
    found = [task for _ in range(21) for task in await tasks(api, "part") if task["execution_id"] == child]
    await submit(api, found[0], {"type": "ContinueAsNew"})
    while await ring(api):
        pass
    last = (await chain(api, child))[-1]["execution_id"]
    assert await kinds(api, last) == ["workflow.cancel_requested"]
