"""Runs over HTTP: one workflow task at a time, woken by what happens, settled by commands, ended by whoever may."""

import pytest

from tests.conftest import Api, Clock
from tests.runs.engine import commands, reclaim, ring, started, submit, tasks


async def test_a_start_with_a_task_queue_makes_one_task_with_the_whole_history(api: Api) -> None:
    run = await started(api, input={"n": 1})
    (task,) = await tasks(api)
    assert task["execution_id"] == run
    assert task["workflow_type"] == "order"
    assert [event["kind"] for event in task["history"]] == ["execution.started"]
    assert task["history"][0]["body"]["input"] == {"n": 1}
    assert task["history_complete"]
    assert await tasks(api) == []


async def test_a_task_is_only_given_to_a_worker_that_declares_its_type(api: Api) -> None:
    await started(api)
    assert await tasks(api, "other") == []
    assert await api.claim("flows") == []
    assert len(await tasks(api, "other", "order")) == 1


async def test_a_claim_of_tasks_or_activities_leaves_plain_items_of_the_queue_alone(api: Api) -> None:
    item = await api.ok("POST", "/v1/work-items", json={"queue": "flows"})
    assert await tasks(api) == []
    asked = {"worker_id": "w", "queues": ["flows"], "activities": ["charge"]}
    assert (await api.ok("POST", "/v1/activities:claim", json=asked))["items"] == []
    assert [(one["id"], one["attempt"]) for one in await api.claim("flows")] == [(item["id"], 1)]


async def test_a_claim_that_is_repeated_under_its_key_shows_the_same_tasks(api: Api) -> None:
    await started(api)
    body = {"worker_id": "w", "queues": ["flows"], "types": ["order"]}
    asked = [await api.http.post("/v1/workflow-tasks:claim", json=body, headers={"idempotency-key": "k"}) for _ in "ab"]
    assert asked[0].json() == asked[1].json() != {"items": []}
    assert ["idempotent-replayed" in one.headers for one in asked] == [False, True]


async def test_namespaces_do_not_share_queues(api: Api) -> None:
    await api.ok("POST", "/v1/namespaces", json={"name": "blue"})
    await started(api, namespace="blue")
    assert await tasks(api) == []
    assert len(await tasks(api, namespace="blue")) == 1


async def test_a_workflow_completes_by_its_command(api: Api) -> None:
    run = await started(api)
    (task,) = await tasks(api)
    told = await submit(api, task, {"type": "CompleteWorkflow", "result": {"ok": True}})
    assert told["status"] == "completed"
    found = await api.ok("GET", f"/v1/executions/{run}")
    assert found["result"] == {"ok": True}
    assert found["open_items"] == 0
    _, ended = await api.events(run)
    assert ended["kind"] == "execution.completed"
    assert ended["body"] == {"from": "running", "to": "completed", "result": {"ok": True}}


async def test_a_submission_that_is_repeated_answers_the_same_and_another_one_is_refused(api: Api) -> None:
    run = await started(api)
    (task,) = await tasks(api)
    effect = {"type": "RecordSideEffect", "seq": 1, "name": "uuid", "value": None}
    told = await submit(api, task, effect)
    assert await submit(api, task, effect) == told
    body = commands(task, {"type": "CompleteWorkflow"})
    await api.refused("POST", f"/v1/workflow-tasks/{task['task_id']}/commands", "lease/settled", json=body)
    stale = commands(task, effect) | {"epoch": task["epoch"] + 1}
    await api.refused("POST", f"/v1/workflow-tasks/{task['task_id']}/commands", "lease/stale", json=stale)
    assert [event["kind"] for event in await api.events(run)] == ["execution.started", "side_effect.recorded"]


async def test_many_tasks_are_submitted_at_once_and_each_is_told_apart(api: Api) -> None:
    runs = [await started(api) for _ in range(4)]
    found = {task["execution_id"]: task for task in await tasks(api)}
    done, worse = {"type": "CompleteWorkflow", "result": 1}, {"type": "Nonsense"}
    asked = [{"id": found[run]["task_id"]} | commands(found[run], done) for run in runs]
    asked[1]["epoch"] += 1
    asked[2]["commands"] = [done, worse]
    told = (await api.ok("POST", "/v1/workflow-tasks:submit", json=asked))["results"]
    assert [one["ok"]["status"] if "ok" in one else one["error"]["code"] for one in told] == [
        "completed", "lease/stale", "request/invalid", "completed",
    ]  # fmt: skip
    assert told[2]["error"]["errors"][0]["pointer"] == "/commands/1/type"
    assert [(await api.ok("GET", f"/v1/executions/{run}"))["status"] for run in runs] == [
        "completed", "running", "running", "completed",
    ]  # fmt: skip
    assert (await api.ok("POST", "/v1/workflow-tasks:submit", json=asked))["results"] == told
    [nameless] = (await api.ok("POST", "/v1/workflow-tasks:submit", json=[commands(found[runs[1]], done)]))["results"]
    assert nameless["error"]["errors"][0]["pointer"] == "/id"


async def test_a_parent_that_submits_beside_the_end_of_its_child_is_given_a_task_for_it(api: Api) -> None:
    parent = await started(api)
    (task,) = await tasks(api)
    await submit(api, task, {"type": "StartChildWorkflow", "seq": 1, "workflow_type": "part", "task_queue": "flows"})
    (of_child,) = await tasks(api, "part")
    await api.ok("POST", f"/v1/executions/{parent}/signals/go", json={})
    (of_parent,) = await tasks(api)
    effect = {"type": "RecordSideEffect", "seq": 2, "name": "n", "value": 1}
    asked = [
        {"id": of_child["task_id"]} | commands(of_child, {"type": "CompleteWorkflow"}),
        {"id": of_parent["task_id"]} | commands(of_parent, effect),
    ]
    told = (await api.ok("POST", "/v1/workflow-tasks:submit", json=asked))["results"]
    assert [one["ok"]["status"] for one in told] == ["completed", "running"]
    (again,) = await tasks(api)
    assert again["task_id"] == told[1]["ok"]["task_id"] != of_parent["task_id"]
    assert [event["kind"] for event in again["history"]][-2:] == ["child.completed", "side_effect.recorded"]


async def test_all_submissions_of_a_request_together_have_a_bounded_number_of_commands(api: Api) -> None:
    for _ in range(6):
        await started(api)
    found = await tasks(api)
    effects = [{"type": "RecordSideEffect", "seq": n, "name": "n", "value": n} for n in range(1_667)]
    asked = [{"id": task["task_id"]} | commands(task, *effects) for task in found]
    problem = await api.refused("POST", "/v1/workflow-tasks:submit", "request/invalid", json=asked)
    assert "10002 commands" in problem["errors"][0]["detail"]
    assert [len(await api.events(task["execution_id"])) for task in found] == [1] * 6


@pytest.mark.parametrize(
    ("act", "becomes"),
    [("cancel", "running"), ("terminate", "terminated"), ("complete", "completed"), ("continue-as-new", "completed")],
)
async def test_who_has_nothing_to_say_sends_no_body(act: str, becomes: str, api: Api) -> None:
    run = await started(api)
    await tasks(api)
    await api.ok("POST", f"/v1/executions/{run}/{act}")
    assert (await api.ok("GET", f"/v1/executions/{run}"))["status"] == becomes


async def test_commands_are_all_done_or_none(api: Api) -> None:
    run = await started(api)
    (task,) = await tasks(api)
    body = commands(task, {"type": "CompleteWorkflow"}, {"type": "SetMemo", "memo": 1})
    problem = await api.refused("POST", f"/v1/workflow-tasks/{task['task_id']}/commands", "request/invalid", json=body)
    assert [error["pointer"] for error in problem["errors"]] == ["/commands/1"]  # and not that it has ended
    assert (await api.ok("GET", f"/v1/executions/{run}"))["status"] == "running"
    await submit(api, task, {"type": "FailWorkflow", "error": {"type": "boom"}})
    found = await api.ok("GET", f"/v1/executions/{run}")
    assert (found["status"], found["error"]["type"]) == ("failed", "boom")


async def test_every_malformed_command_is_told_at_once(api: Api) -> None:
    await started(api)
    (task,) = await tasks(api)
    body = commands(task, {"type": "Nothing"}, {"type": "SetMemo"}, {"type": "SetMemo", "memo": 1, "more": 2})
    said = await api.refused("POST", f"/v1/workflow-tasks/{task['task_id']}/commands", "request/invalid", json=body)
    assert [error["pointer"].split("/")[2] for error in said["errors"]] == ["0", "1", "2"]


async def test_the_same_counter_with_something_else_is_nondeterminism(api: Api) -> None:
    await started(api)
    (task,) = await tasks(api)
    one = {"type": "RecordSideEffect", "seq": 1, "name": "uuid", "value": "a"}
    body = commands(task, one, one | {"value": "b"})
    said = await api.refused(
        "POST", f"/v1/workflow-tasks/{task['task_id']}/commands", "workflow/nondeterminism", json=body
    )
    assert said["before"]["value"] == "a"
    assert said["now"]["value"] == "b"
    assert (await submit(api, task, one, one))["sequence"] == 2


async def test_what_happens_while_a_task_is_held_makes_a_new_one_when_it_is_submitted(api: Api) -> None:
    run = await started(api)
    (task,) = await tasks(api)
    await api.ok("POST", f"/v1/executions/{run}/cancel", json={"reason": "enough"})
    assert await tasks(api) == []
    told = await submit(api, task)
    assert told["task_id"] not in (None, task["task_id"])
    (task,) = await tasks(api, since={run: 1})
    assert [event["kind"] for event in task["history"]] == ["workflow.cancel_requested"]
    assert task["cancel_requested_at"] is not None
    assert (await submit(api, task, {"type": "CancelWorkflow"}))["status"] == "cancelled"


async def test_a_run_that_nobody_has_worked_on_is_cancelled_at_once(api: Api) -> None:
    run, paused = await started(api), await started(api)
    await api.ok("POST", f"/v1/executions/{paused}/status", json={"status": "paused"})
    for one in (run, paused):
        assert (await api.ok("POST", f"/v1/executions/{one}/cancel", json={}))["status"] == "cancelled"
    assert await tasks(api) == []


async def test_a_cancellation_is_forced_when_the_worker_never_answers(api: Api, clock: Clock) -> None:
    run = await started(api)
    await tasks(api)
    await api.ok("POST", f"/v1/executions/{run}/cancel", json={"force_after_ms": 1_000})
    clock.advance(1_001)
    await ring(api)
    assert (await api.ok("GET", f"/v1/executions/{run}"))["status"] == "cancelled"


async def test_a_terminated_run_takes_its_task_with_it(api: Api) -> None:
    run = await started(api)
    (task,) = await tasks(api)
    await api.ok("POST", f"/v1/executions/{run}/terminate", json={"reason": "now"})
    await api.refused("POST", f"/v1/workflow-tasks/{task['task_id']}/commands", "lease/stale", json=commands(task))
    assert (await api.events(run))[-1]["kind"] == "execution.terminated"


async def test_a_run_is_completed_from_outside_and_its_worker_has_lost_its_task(api: Api) -> None:
    run = await started(api)
    (task,) = await tasks(api)
    told = await api.ok("POST", f"/v1/executions/{run}/complete", json={"result": {"ok": True}})
    assert told == {"execution_id": run, "status": "completed", "sequence": 2}
    await api.refused("POST", f"/v1/workflow-tasks/{task['task_id']}/commands", "lease/stale", json=commands(task))
    found = await api.ok("GET", f"/v1/executions/{run}")
    assert (found["result"], found["open_items"]) == ({"ok": True}, 0)
    for verb, body in (("complete", {}), ("fail", {"error": {"type": "boom"}})):
        await api.refused("POST", f"/v1/executions/{run}/{verb}", "execution/terminal", json=body)
    assert len(await api.events(run)) == 2


async def test_a_run_that_is_failed_from_outside_is_tried_again_where_its_workflow_would_be(api: Api) -> None:
    retry = {"workflow_retry": {"initial_delay_ms": 0, "jitter": False}, "workflow_max_attempts": 3}
    run = await started(api, **retry)
    said = {"error": {"type": "boom", "message": "no more"}}
    assert (await api.ok("POST", f"/v1/executions/{run}/fail", json=said))["status"] == "failed"
    assert (await api.ok("GET", f"/v1/executions/{run}"))["error"]["type"] == "boom"
    (task,) = await tasks(api)
    assert (task["previous_id"], task["run_attempt"]) == (run, 2)
    await api.ok("POST", f"/v1/executions/{task['execution_id']}/fail", json=said | {"retryable": False})
    assert await tasks(api) == []


async def test_an_execution_by_hand_is_completed_and_failed_alike(api: Api) -> None:
    one, other = [(await api.start(start={"queue": "q"}))["execution_id"] for _ in range(2)]
    await api.ok("POST", f"/v1/executions/{one}/complete", json={"result": 7})
    await api.ok("POST", f"/v1/executions/{other}/status", json={"status": "paused"})
    worker = await api.as_role("worker")
    body = {"error": {"type": "boom"}}
    assert (await worker.post(f"/v1/executions/{other}/fail", json=body)).status_code == 403
    await api.refused("POST", f"/v1/executions/{other}/complete", "execution/transition", json={})
    await api.ok("POST", f"/v1/executions/{other}/fail", json=body)
    found = [await api.ok("GET", f"/v1/executions/{id}") for id in (one, other)]
    assert [(run["status"], run["open_items"]) for run in found] == [("completed", 0), ("failed", 0)]
    acts = (await api.ok("GET", "/v1/audit"))["items"]
    assert [act["action"] for act in acts if act["target"] == other] == ["execution.paused", "execution.failed"]


async def test_a_run_times_out(api: Api, clock: Clock) -> None:
    run = await started(api, run_timeout_ms=5_000)
    clock.advance(5_000)
    await ring(api)
    assert (await api.ok("GET", f"/v1/executions/{run}"))["status"] == "timed_out"


MOST: list[dict[str, int]] = [{"events_per_execution": 1}, {"payload_bytes": 0}]


async def limited(api: Api, **limits: int) -> None:
    """The tenant has these limits from now on."""
    said = await api.admin.patch(f"/v1/tenants/{api.tenant}", json={"limits": limits})
    assert said.status_code == 200, said.text


@pytest.mark.parametrize("most", MOST)
@pytest.mark.parametrize("status", ["pending", "running", "paused"])
async def test_a_run_times_out_whatever_the_limits_are(
    api: Api, clock: Clock, status: str, most: dict[str, int]
) -> None:
    run = await started(api, pending=status == "pending", run_timeout_ms=1_000)
    if status == "paused":
        await api.ok("POST", f"/v1/executions/{run}/status", json={"status": "paused"})
    await limited(api, **most)
    clock.advance(1_000)
    await ring(api)
    assert (await api.ok("GET", f"/v1/executions/{run}"))["status"] == "timed_out"


@pytest.mark.parametrize("most", MOST)
async def test_a_run_ends_whose_task_is_given_up_or_that_had_not_begun_whatever_the_limits_are(
    api: Api, most: dict[str, int]
) -> None:
    runs = [await started(api, pending=True) for _ in range(2)]
    await limited(api, **most)
    found = {task["execution_id"]: task for task in await tasks(api)}
    await submit(api, found[runs[0]], {"type": "CompleteWorkflow"})
    error = {"epoch": 1, "error": {"type": "t", "message": "m"}}
    await api.ok("POST", f"/v1/work-items/{found[runs[1]]['task_id']}/dead-letter", json=error)
    assert [(await api.ok("GET", f"/v1/executions/{run}"))["status"] for run in runs] == ["completed", "failed"]


async def test_a_run_that_is_paused_times_out_as_well(api: Api, clock: Clock) -> None:
    run = await started(api, run_timeout_ms=1_000)
    await api.ok("POST", f"/v1/executions/{run}/status", json={"status": "paused"})
    clock.advance(1_000)
    await ring(api)
    found = await api.ok("GET", f"/v1/executions/{run}")
    assert (found["status"], found["open_items"]) == ("timed_out", 0)


async def test_a_task_whose_lease_runs_out_is_given_out_again(api: Api, clock: Clock) -> None:
    await started(api)
    (first,) = await tasks(api, lease_ms=1_000)
    clock.advance(1_001)
    await reclaim(api)
    (again,) = await tasks(api)
    assert (again["task_id"], again["epoch"]) == (first["task_id"], 2)
    await api.refused("POST", f"/v1/workflow-tasks/{first['task_id']}/commands", "lease/stale", json=commands(first))


async def test_a_workflow_task_cannot_be_completed_past_its_commands(api: Api) -> None:
    await started(api)
    (task,) = await tasks(api)
    await api.refused(
        "POST", f"/v1/work-items/{task['task_id']}/complete", "work/conflict", json={"epoch": task["epoch"]}
    )


async def test_a_workflow_task_that_an_operator_buries_takes_its_run_with_it(api: Api) -> None:
    run = await started(api)
    (task,) = await tasks(api)
    said = {"error": {"type": "unwanted"}}
    await api.ok("POST", f"/v1/work-items/{task['task_id']}/dead-letter", json=said)
    found = await api.ok("GET", f"/v1/executions/{run}")
    assert (found["status"], found["error"]["type"], found["open_items"]) == ("failed", "unwanted", 0)


async def test_attributes_memo_and_state_are_the_workflows_to_write(api: Api) -> None:
    run = await started(api, search_attributes={"customer": "acme"}, memo={"a": 1})
    (task,) = await tasks(api)
    assert task["memo"] == {"a": 1}
    await submit(
        api,
        task,
        {"type": "UpsertSearchAttributes", "patch": {"customer": None, "amount": 7}},
        {"type": "SetMemo", "memo": {"b": 2}},
        {"type": "RecordSnapshot", "state": {"at": 3}},
    )
    found = await api.ok("GET", f"/v1/executions/{run}")
    assert (found["attributes"], found["state"]) == ({"amount": 7}, {"at": 3})
    await api.ok("POST", f"/v1/executions/{run}/signals/go", json={})
    (task,) = await tasks(api)
    assert task["memo"] == {"b": 2}
    assert (await api.ok("POST", f"/v1/executions/{run}/snapshots:verify"))["matches"] is True


async def test_an_event_under_the_lease_of_a_workflow_task_is_of_no_node(api: Api) -> None:
    run = await started(api, task_timeout_ms=5_000)
    (task,) = await tasks(api)
    lease = {"work_item_id": task["task_id"], "epoch": task["epoch"]}
    said = {"lease": lease, "changes": [{"type": "append", "kind": "said"}]}
    await api.ok("POST", f"/v1/executions/{run}/transitions", json=said)
    told = (await api.events(run))[-1]
    assert (told["kind"], told.get("node_id"), told["work_item_id"]) == ("said", None, task["task_id"])
    shown = await api.ok("GET", f"/v1/work-items/{task['task_id']}")
    assert (shown["drives"], shown["node_id"], shown["lease"]["epoch"]) == ("decision", None, task["epoch"])


async def test_what_a_workflow_says_is_held_to_the_limits_of_sizes(api: Api) -> None:
    run = await started(api)
    (task,) = await tasks(api)
    limits = {"payload_bytes": 10, "state_bytes": 9}
    answer = await api.admin.patch(f"/v1/tenants/{api.tenant}", json={"limits": limits})
    assert answer.status_code == 200, answer.text
    path, long = f"/v1/workflow-tasks/{task['task_id']}/commands", "x" * 9
    child = {"type": "StartChildWorkflow", "seq": 1, "workflow_type": "part"}
    for command in (
        {"type": "RecordSideEffect", "seq": 1, "name": "uuid", "value": long},
        {"type": "SetMemo", "memo": long},
        {"type": "CompleteWorkflow", "result": long},
        {"type": "FailWorkflow", "error": {"type": "boom", "details": long}},
        {"type": "ContinueAsNew", "input": long},
        child | {"input": long},
        child | {"memo": long},
    ):
        await api.refused("POST", path, "limit/payload-bytes", json=commands(task, command))
    snapshot = {"type": "RecordSnapshot", "state": {"s": "xxx"}}
    await api.refused("POST", path, "limit/state-bytes", json=commands(task, snapshot))
    assert [event["kind"] for event in await api.events(run)] == ["execution.started"]


async def test_a_submission_has_a_bounded_number_of_commands(api: Api) -> None:
    await started(api)
    (task,) = await tasks(api)
    path, said = f"/v1/workflow-tasks/{task['task_id']}/commands", {"epoch": task["epoch"], "history_sequence": 1}
    many = [{"type": "WaitForSignal", "name": "s"}] * 2_001
    problem = await api.refused("POST", path, "request/invalid", json={**said, "commands": many})
    assert problem["errors"][0]["pointer"] == "/commands"
    await api.ok("POST", path, json={**said, "commands": many[:2_000]})


@pytest.mark.parametrize("wrong", [{"epoch": 0}, {"history_sequence": -1}])
async def test_a_submission_says_what_can_be_an_epoch_and_a_sequence(api: Api, wrong: dict[str, int]) -> None:
    await started(api)
    (task,) = await tasks(api)
    path, said = f"/v1/workflow-tasks/{task['task_id']}/commands", commands(task) | wrong
    problem = await api.refused("POST", path, "request/invalid", json=said)
    assert [error["pointer"] for error in problem["errors"]] == [f"/{name}" for name in wrong]


async def test_what_is_wrong_with_a_command_is_said_with_its_place(api: Api) -> None:
    await started(api, attributes={"one": 1})
    (task,) = await tasks(api)
    made = [
        {"type": "WaitForSignal", "name": "s"},
        {"type": "UpsertSearchAttributes", "patch": {f"a{n}": n for n in range(64)}},
    ]
    path = f"/v1/workflow-tasks/{task['task_id']}/commands"
    problem = await api.refused("POST", path, "request/invalid", json=commands(task, *made))
    assert [error["pointer"] for error in problem["errors"]] == ["/commands/1/patch"]


@pytest.mark.parametrize(
    ("command", "becomes"),
    [
        ({"type": "SetMemo", "memo": 1}, "running"),
        ({"type": "CompleteWorkflow"}, "completed"),
        ({"type": "FailWorkflow", "error": {"type": "boom"}}, "failed"),
        ({"type": "CancelWorkflow"}, "cancelled"),
        ({"type": "ContinueAsNew"}, "completed"),
    ],
)
async def test_a_run_that_is_pending_runs_once_its_worker_decides(
    api: Api, command: dict[str, object], becomes: str
) -> None:
    run = await started(api, pending=True)
    (task,) = await tasks(api)
    assert (task["status"], (await submit(api, task, command))["status"]) == ("pending", becomes)
    log = await api.events(run)
    assert (log[1]["kind"], log[1]["body"]) == ("execution.status_changed", {"from": "pending", "to": "running"})
