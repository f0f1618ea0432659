"""Children: every end of a child reaches its parent in the same commit, and a parent's end reaches its children."""

from typing import Any

import pytest

from tests.conftest import Api, Clock
from tests.runs.engine import ring, started, submit, tasks


def child(seq: int, **said: Any) -> dict[str, Any]:
    """A command that starts a child."""
    return {"type": "StartChildWorkflow", "seq": seq, "workflow_type": "part", "execution_id": f"part-{seq}"} | said


async def family(api: Api, *children: dict[str, Any]) -> str:
    """A parent that has started these children and seen everything so far."""
    parent = await started(api)
    (task,) = await tasks(api)
    await submit(api, task, *children)
    return parent


async def kinds(api: Api, run: str) -> list[str]:
    """The kinds of the events after the start."""
    return [event["kind"] for event in await api.events(run)][1:]


async def status(api: Api, run: str) -> str:
    """Where a run stands."""
    return str((await api.ok("GET", f"/v1/executions/{run}"))["status"])


async def test_a_child_runs_and_its_result_wakes_the_parent(api: Api) -> None:
    parent = await family(api, child(1, input={"n": 1}, memo="m", search_attributes={"customer": "c"}))
    (task,) = await tasks(api, "part")
    assert task["history"][0]["body"]["input"] == {"n": 1}
    assert task["memo"] == "m"
    await submit(api, task, {"type": "CompleteWorkflow", "result": 7})
    assert await kinds(api, parent) == ["child.started", "child.completed"]
    (task,) = await tasks(api, since={parent: 2})
    assert task["history"][0]["body"] == {
        "seq": 1, "execution_id": "part-1", "workflow_type": "part", "result": 7,
    }  # fmt: skip
    found = await api.ok("GET", "/v1/executions/part-1")
    assert (found["parent_id"], found["attributes"], found["queue"]) == (parent, {"customer": "c"}, "flows")


async def test_the_parent_is_told_of_every_end(api: Api, clock: Clock) -> None:
    parent = await family(api, *(child(seq) for seq in range(4)), child(4, run_timeout_ms=10), child(5))
    for task in await tasks(api, "part"):
        if task["execution_id"] == "part-0":
            await submit(api, task, {"type": "FailWorkflow", "error": {"type": "boom"}})
        elif task["execution_id"] == "part-1":
            await submit(api, task, {"type": "CancelWorkflow"})
        elif task["execution_id"] == "part-2":
            await submit(api, task, {"type": "CompleteWorkflow"})
    await api.ok("POST", "/v1/executions/part-3/terminate", json={})
    await api.ok("POST", "/v1/executions/part-5/status", json={"status": "limit_exceeded"})
    clock.advance(10)
    await ring(api)
    told = [(event["kind"], event["body"]["seq"]) for event in (await api.events(parent))[7:]]
    assert sorted(told) == [
        ("child.cancelled", 1), ("child.completed", 2), ("child.failed", 0), ("child.limit_exceeded", 5),
        ("child.terminated", 3), ("child.timed_out", 4),
    ]  # fmt: skip
    assert len(await tasks(api)) == 1
    listed = (await api.ok("GET", f"/v1/executions/{parent}/children"))["items"]
    assert [one["status"] for one in listed] == [
        "failed", "cancelled", "completed", "terminated", "timed_out", "limit_exceeded",
    ]  # fmt: skip
    assert [one["execution_status"] for one in listed] == [one["status"] for one in listed]


async def test_an_id_of_somebody_elses_is_a_failed_child_and_never_adopted(api: Api) -> None:
    await started(api, execution_id="part-1", workflow_type="part")
    parent = await family(api, child(1))
    assert await kinds(api, parent) == ["child.failed"]
    (task,) = await tasks(api)
    assert task["history"][-1]["body"]["error"]["type"] == "id-taken"
    assert (await api.ok("GET", "/v1/executions/part-1"))["parent_id"] is None
    await submit(api, task, {"type": "CompleteWorkflow"})
    assert await status(api, "part-1") == "running"


async def test_the_same_child_again_is_the_same_and_another_is_refused(api: Api) -> None:
    parent = await family(api, child(1), child(1))
    assert await kinds(api, parent) == ["child.started"]
    again = await api.ok("POST", f"/v1/executions/{parent}/children", json={"child": child(1)})
    assert again == {
        "seq": 1, "workflow_type": "part", "execution_id": "part-1", "status": "open", "created": False,
    }  # fmt: skip
    body = {"child": child(1, input=2)}
    said = await api.refused("POST", f"/v1/executions/{parent}/children", "workflow/nondeterminism", json=body)
    assert said["now"]["input"] == 2


async def test_a_child_without_an_id_has_one_that_follows_from_its_parent(api: Api) -> None:
    parent = await started(api)
    body = {"child": {"type": "StartChildWorkflow", "seq": 5, "workflow_type": "part"}}
    made = await api.ok("POST", f"/v1/executions/{parent}/children", json=body)
    again = await api.ok("POST", f"/v1/executions/{parent}/children", json=body)
    assert made["execution_id"] == again["execution_id"]
    assert (made["created"], again["created"]) == (True, False)
    assert [task["execution_id"] for task in await tasks(api, "part")] == [made["execution_id"]]


@pytest.mark.parametrize("end", ["complete", "terminate", "cancel"])
async def test_when_the_parent_ends_each_child_is_dealt_with_as_its_policy_says(api: Api, end: str) -> None:
    parent = await family(
        api, child(1), child(2, parent_close_policy="request_cancel"), child(3, parent_close_policy="abandon")
    )
    assert len(await tasks(api, "part")) == 3
    await api.ok("POST", f"/v1/executions/{parent}/signals/go")
    (task,) = await tasks(api)
    if end == "complete":
        await submit(api, task, {"type": "CompleteWorkflow"})
    else:
        await api.ok("POST", f"/v1/executions/{parent}/{end}", json={})
    assert await status(api, "part-1") == "terminated"
    assert (await status(api, "part-2"), await kinds(api, "part-2")) == ("running", ["workflow.cancel_requested"])
    assert (await status(api, "part-3"), await kinds(api, "part-3")) == ("running", [])
    assert ("child.terminated" in await kinds(api, parent)) == (end == "cancel")


async def test_a_child_that_begins_and_ends_in_one_submission_has_its_end(api: Api) -> None:
    await family(api, child(1), {"type": "CompleteWorkflow"})
    shown = await api.ok("GET", "/v1/executions/part-1")
    assert (shown["status"], shown["completed_at"]) == ("terminated", api.clock.now)
    assert await kinds(api, "part-1") == ["execution.terminated"]


async def test_a_tree_ends_from_its_root_down(api: Api, clock: Clock) -> None:
    run = parent = await family(api, child(1))
    for depth in range(2, 8):
        (task,) = await tasks(api, "part")
        await submit(api, task, child(depth), {"type": "ScheduleTimer", "seq": 1, "duration_ms": 9_000_000})
    await api.ok("POST", f"/v1/executions/{run}/terminate", json={})
    for _ in range(8):
        await ring(api)
    assert {await status(api, f"part-{depth}") for depth in range(1, 8)} == {"terminated"}
    assert (await kinds(api, parent))[-1] == "execution.terminated"


@pytest.mark.parametrize("count", [100, 1_000])
async def test_all_the_children_end_with_their_parent(api: Api, count: int) -> None:
    timer = {"type": "ScheduleTimer", "seq": 1, "duration_ms": 9_000_000}
    parent = await family(api, *(child(seq) for seq in range(count)))
    for task in await tasks(api, "part", max_items=20):
        await submit(api, task, timer)
    await api.ok("POST", f"/v1/executions/{parent}/terminate", json={})
    while await ring(api):
        pass
    found = await api.ok("GET", f"/v1/executions?parent_id={parent}&status=terminated&limit=1000")
    assert len(found["items"]) == count


async def test_hundreds_of_children_complete_and_each_end_is_told_once(api: Api) -> None:
    timer = {"type": "ScheduleTimer", "seq": 1, "duration_ms": 9_000_000}
    parent = await family(api, timer, *(child(seq, execution_id=f"p-{seq}") for seq in range(150)))
    while found := await tasks(api, "part", max_items=100):
        for task in found:
            await submit(api, task, {"type": "CompleteWorkflow", "result": 1})
    told = [event["body"]["seq"] for event in await api.events(parent) if event["kind"] == "child.completed"]
    assert sorted(told) == list(range(150))
    path = f"/v1/executions/{parent}/children?limit=100"
    page = await api.ok("GET", path)
    rest = await api.ok("GET", f"{path}&cursor={page['next_cursor']}")
    assert [one["seq"] for one in page["items"] + rest["items"]] == list(range(150))


async def test_an_execution_without_a_workflow_has_no_children(api: Api) -> None:
    made = await api.start()
    path = f"/v1/executions/{made['execution_id']}/children"
    await api.refused("POST", path, "not-found", json={"child": child(1)})
    assert (await api.ok("GET", path))["items"] == []
    await api.refused("GET", "/v1/executions/nothing/children", "not-found")


@pytest.mark.parametrize("policy", ["terminate", "request_cancel"])
async def test_a_child_that_is_started_after_the_request_to_stop_goes_on(api: Api, clock: Clock, policy: str) -> None:
    """A workflow that was asked to stop cleans up by children, too: these continue as new like any other."""
    parent = await started(api)
    (task,) = await tasks(api)
    await submit(api, task)
    await api.ok("POST", f"/v1/executions/{parent}/cancel", json={})
    clock.advance(1)
    (task,) = await tasks(api)
    await submit(api, task, child(1, parent_close_policy=policy))
    (task,) = await tasks(api, "part")
    await submit(api, task, {"type": "ContinueAsNew"})
    await ring(api)
    (task,) = await tasks(api, "part")
    assert task["cancel_requested_at"] is None
    await submit(api, task, {"type": "CompleteWorkflow"})
    assert (await kinds(api, parent))[-1] == "child.completed"


async def test_a_child_whose_id_a_sibling_has_is_told_so(api: Api) -> None:
    parent = await family(api, child(1), child(2, execution_id="part-1"))
    assert await kinds(api, parent) == ["child.started", "child.failed"]
    error = (await api.events(parent))[-1]["body"]["error"]
    assert (error["type"], "is there already" in error["message"]) == ("id-taken", True)
    assert "no child of this" not in error["message"]
