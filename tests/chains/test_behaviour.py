"""Chains: a run goes on in the next one in one commit, carries what it must; a parent hears of the last one only."""

from typing import Any

import pytest

from service.chains import rules
from service.chains.model import ContinueAsNew
from service.kernel.command import Request
from service.kernel.principal import internal
from service.runs.model import SubmitCommands
from service.signals.model import SendSignal
from tests.conftest import Api, Clock
from tests.runs.engine import commands, reclaim, ring, started, submit, tasks

AGAIN: dict[str, Any] = {"type": "ContinueAsNew"}
FAIL: dict[str, Any] = {"type": "FailWorkflow", "error": {"type": "boom"}}


async def chain(api: Api, run: str) -> list[Any]:
    """The runs of a chain."""
    return list((await api.ok("GET", f"/v1/executions/{run}/chain"))["items"])


async def kinds(api: Api, run: str) -> list[str]:
    """The kinds of the events after the start."""
    return [event["kind"] for event in await api.events(run)][1:]


async def test_a_run_goes_on_in_another_with_what_it_carries(api: Api) -> None:
    run = await started(api, input=1, memo={"m": 1}, search_attributes={"customer": "c"}, labels={"team": "a"})
    (task,) = await tasks(api)
    await submit(api, task, AGAIN | {"input": 2})
    assert await kinds(api, run) == ["workflow.continued_as_new", "execution.completed"]
    (task,) = await tasks(api)
    assert (task["previous_id"], task["first_id"], task["memo"]) == (run, run, {"m": 1})
    found = await api.ok("GET", f"/v1/executions/{task['execution_id']}")
    assert (found["input"], found["attributes"], found["labels"]) == (2, {"customer": "c"}, {"team": "a"})
    assert [(one["place"], one["status"], one["next_id"]) for one in await chain(api, task["execution_id"])] == [
        (1, "completed", task["execution_id"]), (2, "running", None),
    ]  # fmt: skip
    assert await chain(api, run) == await chain(api, task["execution_id"])
    by_attribute = await api.ok("GET", "/v1/executions?filter=attr.customer = 'c'")
    assert len(by_attribute["items"]) == 2


async def test_another_type_and_queue_may_take_over(api: Api) -> None:
    await started(api)
    (task,) = await tasks(api)
    await submit(api, task, AGAIN | {"workflow_type": "other", "task_queue": "elsewhere"})
    assert len(await tasks(api, "other", queues=["elsewhere"])) == 1


async def test_a_long_loop_is_listed_in_order(api: Api) -> None:
    run = await started(api)
    for count in range(30):
        (task,) = await tasks(api)
        await submit(api, task, AGAIN | {"input": count})
    found = await chain(api, run)
    assert [one["place"] for one in found] == list(range(1, 32))
    assert [one["next_id"] for one in found[:-1]] == [one["execution_id"] for one in found[1:]]
    page = await api.ok("GET", f"/v1/executions/{run}/chain?limit=20")
    rest = await api.ok("GET", f"/v1/executions/{run}/chain?limit=20&cursor={page['next_cursor']}")
    assert page["items"] + rest["items"] == found


async def test_signals_that_the_workflow_has_not_seen_go_on(api: Api) -> None:
    run = await started(api)
    await api.ok("POST", f"/v1/executions/{run}/signals/seen")
    (task,) = await tasks(api)
    await api.ok("POST", f"/v1/executions/{run}/signals/late", json={"payload": 1})
    await api.ok("POST", f"/v1/executions/{run}/signals/later", json={"payload": 2})
    await submit(api, task, AGAIN)
    (task,) = await tasks(api)
    assert [event["body"] for event in task["history"][1:]] == [
        {"name": "late", "payload": 1}, {"name": "later", "payload": 2},
    ]  # fmt: skip
    await submit(api, task, AGAIN)
    (task,) = await tasks(api)
    assert len(task["history"]) == 1


async def test_a_signal_in_the_commit_of_the_continuation_goes_on(api: Api, other: Api) -> None:
    """And none of those that come to others in that commit, at the same place of their logs."""
    run, beside = await started(api, execution_id="run"), await started(api, workflow_type="beside")
    await started(other, execution_id="run")
    (task,) = await tasks(api)
    settled = SubmitCommands(task["epoch"], task["history_sequence"], [ContinueAsNew()], task["task_id"])
    told = [(api, "late", run), (api, "beside", beside), (other, "theirs", run)]
    asked = [Request(internal(at.tenant), SendSignal(name=name, execution_id=id)) for at, name, id in told]
    await api.service.services.kernel.execute([*asked, Request(internal(api.tenant), settled)])
    (task,) = await tasks(api)
    assert [event["body"]["name"] for event in task["history"][1:]] == ["late"]


async def limited(api: Api, **limits: int) -> None:
    """The tenant has these limits from now on."""
    said = await api.admin.patch(f"/v1/tenants/{api.tenant}", json={"limits": limits})
    assert said.status_code == 200, said.text


async def told(api: Api, run: str, count: int) -> None:
    """So many signals come to a run."""
    for number in range(count):
        await api.ok("POST", f"/v1/executions/{run}/signals/go", json={"payload": number})


async def test_signals_that_were_taken_go_on_past_a_limit_of_events_that_has_shrunk(api: Api) -> None:
    for ending in (AGAIN, FAIL):
        run = await started(api, workflow_max_attempts=2, workflow_retry={"initial_delay_ms": 0})
        (task,) = await tasks(api)
        await told(api, run, 8)
        await limited(api, events_per_execution=4)
        await submit(api, task, ending)
        (task,) = await tasks(api)
        assert [event["body"]["payload"] for event in task["history"][1:]] == list(range(8))
        path = f"/v1/executions/{task['execution_id']}/signals/go"
        await api.refused("POST", path, "limit/events-per-execution", json={})
        await submit(api, task, AGAIN)
        (task,) = await tasks(api)
        assert len(task["history"]) == 1, "a run whose log is full goes on in one that has room"
        await told(api, task["execution_id"], 3)
        await submit(api, task, {"type": "CompleteWorkflow"})
        await limited(api, events_per_execution=100)


async def test_more_than_can_go_on_unseen_is_refused_until_the_workflow_has_seen_it(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "CARRY_MAX", 5)
    run = await started(api)
    (task,) = await tasks(api, lease_ms=1_000)
    await told(api, run, 6)
    path = f"/v1/workflow-tasks/{task['task_id']}/commands"
    problem = await api.refused("POST", path, "workflow/unseen", json=commands(task, AGAIN))
    assert (problem["limit"], problem["current"], problem["seen"]) == (5, 6, 1)
    await api.refused("POST", f"/v1/executions/{run}/continue-as-new", "workflow/unseen", json={})
    api.clock.advance(1_001)
    await reclaim(api)
    (task,) = await tasks(api, since={run: 1})
    assert [event["body"]["payload"] for event in task["history"]] == list(range(6))
    await told(api, run, 5)
    await submit(api, task, AGAIN)
    (task,) = await tasks(api)
    assert [event["body"]["payload"] for event in task["history"][1:]] == list(range(5))


async def test_a_request_to_cancel_that_was_not_seen_goes_on(api: Api) -> None:
    run = await started(api)
    (task,) = await tasks(api)
    await api.ok("POST", f"/v1/executions/{run}/cancel", json={"reason": "enough"})
    await submit(api, task, AGAIN)
    (task,) = await tasks(api)
    assert task["cancel_requested_at"] is not None
    assert [(event["kind"], event["body"].get("reason")) for event in task["history"]][1:] == [
        ("workflow.cancel_requested", "enough"),
    ]  # fmt: skip
    cleaning = {"type": "ScheduleActivity", "seq": 1, "name": "clean", "task_queue": "pay"}
    assert (await submit(api, task, cleaning, {"type": "CancelWorkflow"}))["status"] == "cancelled"
    assert [one["status"] for one in await chain(api, run)] == ["completed", "cancelled"]


@pytest.mark.parametrize(("how", "body"), [("continue-as-new", {}), ("reset", {"to_sequence": 1})])
@pytest.mark.parametrize(("worked_on", "becomes"), [(True, "running"), (False, "cancelled")])
async def test_a_run_that_takes_up_the_work_of_another_answers_a_request_to_cancel_itself(
    api: Api, how: str, body: dict[str, Any], worked_on: bool, becomes: str
) -> None:
    """Whether a worker has held a task of the new run is chance: what was done before is to be cleaned up."""
    run = await started(api)
    if worked_on:
        (task,) = await tasks(api)
        await submit(api, task)
    next_id = (await api.ok("POST", f"/v1/executions/{run}/{how}", json=body))["next_id"]
    assert (await api.ok("POST", f"/v1/executions/{next_id}/cancel", json={}))["status"] == becomes
    for task in await tasks(api):
        assert (await submit(api, task, {"type": "CancelWorkflow"}))["status"] == "cancelled"
    assert (await chain(api, run))[-1]["status"] == "cancelled"


async def test_a_request_to_cancel_that_goes_on_is_forced_when_it_would_have_been(api: Api, clock: Clock) -> None:
    run = await started(api)
    (task,) = await tasks(api)
    await api.ok("POST", f"/v1/executions/{run}/cancel", json={"force_after_ms": 1_000})
    clock.advance(400)
    await submit(api, task, AGAIN)
    for ms, becomes in ((599, "running"), (1, "cancelled")):
        clock.advance(ms)
        await ring(api)
        assert [one["status"] for one in await chain(api, run)] == ["completed", becomes]


async def test_continuing_from_outside_twice_is_once(api: Api) -> None:
    run = await started(api)
    path = f"/v1/executions/{run}/continue-as-new"
    made = await api.ok("POST", path, json={"input": 1})
    assert await api.ok("POST", path, json={"input": 1}) == made | {"created": False}
    await api.refused("POST", path, "execution/terminal", json={"input": 2})
    assert [one["status"] for one in await chain(api, run)] == ["completed", "running"]
    assert len(await tasks(api)) == 1


async def test_nothing_follows_the_command_to_continue(api: Api) -> None:
    await started(api)
    (task,) = await tasks(api)
    path = f"/v1/workflow-tasks/{task['task_id']}/commands"
    body = commands(task, AGAIN, {"type": "CompleteWorkflow"})
    await api.refused("POST", path, "request/invalid", json=body)
    told = await submit(api, task, AGAIN)
    assert await submit(api, task, AGAIN) == told


async def test_a_parent_hears_of_the_last_run_only(api: Api) -> None:
    parent = await started(api)
    (task,) = await tasks(api)
    await submit(api, task, {"type": "StartChildWorkflow", "seq": 1, "workflow_type": "part", "execution_id": "kid"})
    for _ in range(3):
        (task,) = await tasks(api, "part")
        await submit(api, task, AGAIN)
    assert await kinds(api, parent) == ["child.started"]
    await ring(api)
    (task,) = await tasks(api, "part")
    listed = (await api.ok("GET", f"/v1/executions/{parent}/children"))["items"]
    assert [(one["execution_id"], one["status"]) for one in listed] == [(task["execution_id"], "open")]
    await submit(api, task, {"type": "CompleteWorkflow", "result": 3})
    assert await kinds(api, parent) == ["child.started", "child.completed"]
    assert (await api.events(parent))[-1]["body"]["result"] == 3


async def test_a_parent_that_ends_reaches_the_newest_run_of_its_child(api: Api) -> None:
    parent = await started(api)
    (task,) = await tasks(api)
    await submit(api, task, {"type": "StartChildWorkflow", "seq": 1, "workflow_type": "part", "execution_id": "kid"})
    (task,) = await tasks(api, "part")
    await submit(api, task, AGAIN)
    await api.ok("POST", f"/v1/executions/{parent}/terminate", json={})
    assert [one["status"] for one in await chain(api, "kid")] == ["completed", "terminated"]


@pytest.mark.parametrize("end", ["terminate", "cancel"])
async def test_a_run_that_a_child_goes_on_in_after_its_parent_s_end_is_ended_too(api: Api, end: str) -> None:
    """A child with children of its own is ended a moment later: it may go on in between."""
    parent = await started(api)
    (task,) = await tasks(api)
    await submit(api, task, {"type": "StartChildWorkflow", "seq": 1, "workflow_type": "part", "execution_id": "kid"})
    (task,) = await tasks(api, "part")
    await submit(api, task, {"type": "StartChildWorkflow", "seq": 1, "workflow_type": "leaf"})
    await api.ok("POST", "/v1/executions/kid/signals/go", json={})
    (task,) = await tasks(api, "part")
    await api.ok("POST", f"/v1/executions/{parent}/{end}", json={})
    await submit(api, task, AGAIN)
    assert [one["status"] for one in await chain(api, "kid")] == ["completed", "running"]
    await ring(api)
    assert [one["status"] for one in await chain(api, "kid")] == ["completed", "terminated"]


async def test_a_failed_workflow_is_tried_again_after_its_backoff(api: Api, clock: Clock) -> None:
    retry = {"backoff": "fixed", "initial_delay_ms": 500, "jitter": False}
    run = await started(api, input={"n": 1}, workflow_retry=retry, workflow_max_attempts=2)
    (task,) = await tasks(api)
    await submit(api, task, FAIL)
    assert await kinds(api, run) == ["workflow.retry_scheduled", "execution.failed"]
    assert await tasks(api) == []
    clock.advance(500)
    await reclaim(api)
    (task,) = await tasks(api)
    assert (task["run_attempt"], task["history"][0]["body"]["input"]) == (2, {"n": 1})
    await submit(api, task, FAIL)
    assert [one["status"] for one in await chain(api, run)] == ["failed", "failed"]


async def test_an_attempt_that_is_paused_before_it_begins_still_waits_for_its_backoff(api: Api, clock: Clock) -> None:
    retry = {"backoff": "fixed", "initial_delay_ms": 500, "jitter": False}
    run = await started(api, workflow_retry=retry)
    (task,) = await tasks(api)
    await submit(api, task, FAIL)
    path = f"/v1/executions/{(await chain(api, run))[-1]['execution_id']}/status"
    for paused, resumed in ((0, 499), (0, 0), (1, 0)):
        assert await tasks(api) == []
        clock.advance(paused)
        await api.ok("POST", path, json={"status": "paused"})
        clock.advance(resumed)
        await api.ok("POST", path, json={"status": "running"})
        await reclaim(api)
    (task,) = await tasks(api)
    assert task["run_attempt"] == 2
    await api.ok("POST", path, json={"status": "paused"})
    await api.ok("POST", path, json={"status": "running"})
    assert len(await tasks(api)) == 1


async def test_an_attempt_begins_within_the_time_of_the_execution_or_not_at_all(api: Api, clock: Clock) -> None:
    retry = {"backoff": "fixed", "initial_delay_ms": 500, "jitter": False}
    run = await started(api, execution_timeout_ms=1_000, workflow_retry=retry, workflow_max_attempts=9)
    for _ in range(2):
        (task,) = await tasks(api)
        await submit(api, task, FAIL)
        clock.advance(500)
        await reclaim(api)
    assert [one["status"] for one in await chain(api, run)] == ["failed", "failed"]


async def test_what_must_not_be_retried_is_not(api: Api) -> None:
    for said in (FAIL | {"retryable": False}, {"type": "FailWorkflow", "error": {"type": "final"}}):
        run = await started(api, workflow_retry={"non_retryable": ["final"]})
        (task,) = await tasks(api)
        await submit(api, task, said)
        assert [one["status"] for one in await chain(api, run)] == ["failed"]


async def test_a_parent_hears_of_the_last_attempt_only(api: Api, clock: Clock) -> None:
    parent = await started(api)
    (task,) = await tasks(api)
    part = {"type": "StartChildWorkflow", "seq": 1, "workflow_type": "part", "workflow_max_attempts": 2}
    await submit(api, task, part)
    for _ in range(2):
        assert await kinds(api, parent) == ["child.started"]
        (task,) = await tasks(api, "part")
        await submit(api, task, FAIL)
        clock.advance(10_000)
        await reclaim(api)
    assert await kinds(api, parent) == ["child.started", "child.failed"]


async def test_the_time_of_an_execution_spans_its_chain(api: Api, clock: Clock) -> None:
    run = await started(api, execution_timeout_ms=1_000, run_timeout_ms=900)
    (task,) = await tasks(api)
    clock.advance(600)
    await submit(api, task, AGAIN)
    clock.advance(399)
    await ring(api)
    assert (await chain(api, run))[-1]["status"] == "running"
    clock.advance(1)
    await ring(api)
    assert (await chain(api, run))[-1]["status"] == "timed_out"


async def test_the_limit_of_running_executions_does_not_stop_a_chain(api: Api) -> None:
    limits = {"limits": {"running_executions": 1}}
    run = await started(api, workflow_max_attempts=2)
    found = await api.admin.get(f"/v1/tenants/{api.tenant}")
    headers = {"if-match": found.headers["etag"]} if "etag" in found.headers else {}
    said = await api.admin.patch(f"/v1/tenants/{api.tenant}", json=limits, headers=headers)
    assert said.status_code == 200, said.text
    (task,) = await tasks(api)
    await submit(api, task, AGAIN)
    (task,) = await tasks(api)
    await submit(api, task, FAIL)
    assert [one["status"] for one in await chain(api, run)] == ["completed", "failed", "running"]


async def test_a_run_has_its_place_and_what_it_was_given_whatever_the_limits_are_by_now(api: Api) -> None:
    """Past a limit that was lowered it could not even fail."""
    given = {"input": "i" * 99, "memo": {"m": "m" * 99}, "workflow_max_attempts": 2}
    runs = [await started(api, **given) for _ in range(3)]
    await limited(api, running_executions=1, payload_bytes=99)
    found = {task["execution_id"]: task for task in await tasks(api)}
    path = f"/v1/workflow-tasks/{found[runs[0]]['task_id']}/commands"
    more = {"epoch": 1, "history_sequence": 1, "commands": [AGAIN | {"input": "i" * 98}]}
    await api.refused("POST", path, "limit/payload-bytes", json=more)
    await submit(api, found[runs[0]], AGAIN | {"input": "i" * 97})
    await submit(api, found[runs[1]], FAIL)
    again = (await chain(api, runs[1]))[-1]["execution_id"]
    await api.ok("POST", f"/v1/executions/{again}/reset", json={"to_sequence": 1})
    assert [one["status"] for one in await chain(api, runs[0])] == ["completed", "running"]
    assert [one["status"] for one in await chain(api, runs[1])] == ["failed", "terminated", "running"]
    refused = await api.refused("POST", "/v1/executions", "limit/running-executions", json={"workflow_id": "w"})
    assert (refused["limit"], refused["current"]) == (1, 3)
    ended = (await chain(api, runs[0]))[-1]["execution_id"]
    await api.ok("POST", f"/v1/executions/{ended}/terminate", json={})
    await api.refused("POST", f"/v1/executions/{ended}/reset", "limit/running-executions", json={"to_sequence": 1})


async def test_an_execution_without_a_workflow_has_no_chain(api: Api) -> None:
    made = await api.start()
    await api.refused("GET", f"/v1/executions/{made['execution_id']}/chain", "not-found")
    await api.refused("POST", f"/v1/executions/{made['execution_id']}/continue-as-new", "not-found", json={})
