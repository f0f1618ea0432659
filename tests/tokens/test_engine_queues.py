"""A token with globs of queues asks for work on those queues only, by workflows as by items; what follows, goes on."""

from typing import Any

import httpx
import pytest

from tests.activities.hands import activity, claimed, tell
from tests.chains.test_behaviour import FAIL, chain
from tests.conftest import Api, Clock
from tests.runs.engine import commands, reclaim, ring, started, tasks
from tests.tokens.steps import minted

FLOWS = {"workflow_type": "order", "task_queue": "flows"}
PAY = {"workflow_type": "order", "task_queue": "pay"}
CHILD = {"type": "StartChildWorkflow", "seq": 1, "workflow_type": "part"}
MINUTE = 60_000


async def limited(api: Api, role: str, *queues: str) -> httpx.AsyncClient:
    """A client whose token is limited to these queues, or to `flows`."""
    return (await minted(api, role=role, queues=list(queues or ("flows",))))[1]


async def refused(client: httpx.AsyncClient, method: str, path: str, **kwargs: Any) -> None:
    """The request is refused for its queue."""
    answer = await client.request(method, path, **kwargs)
    assert (answer.status_code, answer.json()["code"]) == (403, "auth/queue"), answer.text


async def ok(client: httpx.AsyncClient, method: str, path: str, **kwargs: Any) -> Any:
    """The JSON of a request that must succeed."""
    answer = await client.request(method, path, **kwargs)
    assert answer.status_code < 300, answer.text
    return answer.json()


async def held(client: httpx.AsyncClient) -> Any:
    """A workflow task of `flows`, held by that client."""
    body = {"worker_id": "w", "queues": ["flows"], "types": ["order"]}
    return (await ok(client, "POST", "/v1/workflow-tasks:claim", json=body))["items"][0]


# ── who asks ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("role", ["owner", "operator", "developer"])
async def test_runs_start_on_the_tokens_queues_alone(role: str, api: Api) -> None:
    client = await limited(api, role)
    await refused(client, "POST", "/v1/executions", json=PAY)
    signal = {"start": PAY | {"execution_id": "cart"}, "signal": {"name": "add"}}
    await refused(client, "POST", "/v1/executions:signal-with-start", json=signal)
    assert (await api.ok("GET", "/v1/executions"))["items"] == []
    await ok(client, "POST", "/v1/executions", json=FLOWS)
    signal["start"] |= {"task_queue": "flows"}
    await ok(client, "POST", "/v1/executions:signal-with-start", json=signal)


async def test_the_same_start_again_asks_for_nothing(api: Api) -> None:
    client = await limited(api, "developer")
    await api.ok("POST", "/v1/executions", json=PAY | {"execution_id": "mine"})
    assert (await ok(client, "POST", "/v1/executions", json=PAY | {"execution_id": "mine"}))["created"] is False


async def test_a_workflow_asks_for_work_on_the_queues_of_its_workers_token(api: Api) -> None:
    run = await started(api)
    worker = await limited(api, "worker")
    task = await held(worker)
    path = f"/v1/workflow-tasks/{task['task_id']}/commands"
    for command in (activity(), CHILD | {"task_queue": "pay"}, {"type": "ContinueAsNew", "task_queue": "pay"}):
        await refused(worker, "POST", path, json=commands(task, command))
    many = [{"id": task["task_id"]} | commands(task, activity())]
    (result,) = (await ok(worker, "POST", "/v1/workflow-tasks:submit", json=many))["results"]
    assert result["error"]["code"] == "auth/queue"
    assert len(await api.events(run)) == 1, "nothing of a refused submission stays"
    assert await claimed(api) == []
    kept = commands(task, activity(task_queue="flows"), CHILD)
    await ok(worker, "POST", path, json=kept)
    assert len(await claimed(api, queues=["flows"])) == 1
    assert len(await tasks(api, "part")) == 1, "a child without a queue of its own is on its parent's"
    await api.ok("POST", f"/v1/executions/{run}/signals/go", json={})
    task = await held(worker)
    on = commands(task, {"type": "ContinueAsNew"})
    await ok(worker, "POST", f"/v1/workflow-tasks/{task['task_id']}/commands", json=on)
    assert [one["status"] for one in await chain(api, run)] == ["completed", "running"]


async def test_a_token_for_both_queues_has_activities_done(api: Api) -> None:
    await started(api)
    worker = await limited(api, "worker", "flows", "pay")
    task = await held(worker)
    path = f"/v1/workflow-tasks/{task['task_id']}/commands"
    await ok(worker, "POST", path, json=commands(task, activity(), activity()))
    assert len(await claimed(api)) == 1


async def test_work_asked_for_from_outside_is_held_to_the_token(api: Api) -> None:
    run = await started(api)
    client = await limited(api, "developer")
    asked = {key: value for key, value in activity().items() if key != "type"}
    await refused(client, "POST", f"/v1/executions/{run}/activities", json=asked)
    child = {"child": CHILD | {"task_queue": "pay"}}
    await refused(client, "POST", f"/v1/executions/{run}/children", json=child)
    await refused(client, "POST", f"/v1/executions/{run}/continue-as-new", json={"task_queue": "pay"})
    theirs = await started(api, task_queue="pay")
    await refused(client, "POST", f"/v1/executions/{theirs}/continue-as-new", json={})
    operator = await limited(api, "operator")
    await refused(operator, "POST", f"/v1/executions/{theirs}/reset", json={"to_sequence": 1})
    assert [one["status"] for one in await chain(api, theirs)] == ["running"]
    await ok(client, "POST", f"/v1/executions/{run}/activities", json=asked | {"task_queue": "flows"})
    await ok(operator, "POST", f"/v1/executions/{run}/reset", json={"to_sequence": 1})


async def test_a_reset_asks_anew_for_the_activities_that_were_pending(api: Api) -> None:
    run = await started(api)
    await api.ok("POST", f"/v1/executions/{run}/activities", json={"seq": 1, "name": "charge", "task_queue": "pay"})
    path, said = f"/v1/executions/{run}/reset", {"to_sequence": 2}
    await refused(await limited(api, "operator"), "POST", path, json=said)
    await ok(await limited(api, "operator", "flows", "pay"), "POST", path, json=said)


async def test_schedules_are_held_to_the_token_of_whoever_asks_for_their_work(api: Api) -> None:
    client = await limited(api, "developer")
    spec = {"every_ms": MINUTE}
    body = {"schedule_id": "plan", "spec": spec, "action": PAY}
    await refused(client, "POST", "/v1/schedules", json=body)
    await api.ok("POST", "/v1/schedules", json=body)
    await refused(client, "PATCH", "/v1/schedules/plan", json={"overlap": "allow_all"})
    await refused(client, "POST", "/v1/schedules/plan/trigger")
    await refused(client, "POST", "/v1/schedules/plan/backfill", json={"from": 0, "to": 1})
    await ok(client, "POST", "/v1/schedules/plan/pause")
    await refused(client, "POST", "/v1/schedules/plan/resume")
    await ok(client, "POST", "/v1/schedules", json=body | {"schedule_id": "mine", "action": FLOWS})
    await refused(client, "PATCH", "/v1/schedules/mine", json={"action": PAY})
    await ok(client, "POST", "/v1/schedules/mine/trigger")


# ── what follows ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_activitys_worker_wakes_a_workflow_of_another_queue(api: Api) -> None:
    await started(api)
    (task,) = await tasks(api)
    await api.ok("POST", f"/v1/workflow-tasks/{task['task_id']}/commands", json=commands(task, activity()))
    worker = await limited(api, "worker", "pay")
    said = {"worker_id": "a", "queues": ["pay"], "activities": ["charge"]}
    (item,) = (await ok(worker, "POST", "/v1/activities:claim", json=said))["items"]
    await ok(worker, "POST", f"/v1/activities/{item['id']}/complete", json={"epoch": item["epoch"]})
    assert len(await tasks(api)) == 1


async def test_a_signal_wakes_a_workflow_of_any_queue(api: Api) -> None:
    run = await started(api)
    (task,) = await tasks(api)
    await api.ok("POST", f"/v1/workflow-tasks/{task['task_id']}/commands", json=commands(task))
    await ok(await limited(api, "developer", "pay"), "POST", f"/v1/executions/{run}/signals/go")
    assert len(await tasks(api)) == 1


async def test_an_activity_is_tried_again_whoever_let_it_fail(api: Api, clock: Clock) -> None:
    await started(api)
    (task,) = await tasks(api)
    await api.ok("POST", f"/v1/workflow-tasks/{task['task_id']}/commands", json=commands(task, activity()))
    for _ in range(2):
        (item,) = await claimed(api)
        await tell(api, item, "fail", error={"type": "busy"})
        clock.advance(MINUTE)
        await reclaim(api)
    assert len(await claimed(api)) == 1


async def test_a_workflow_is_tried_again_on_its_own_queue(api: Api, clock: Clock) -> None:
    run = await started(api, workflow_max_attempts=2)
    worker = await limited(api, "worker")
    task = await held(worker)
    await ok(worker, "POST", f"/v1/workflow-tasks/{task['task_id']}/commands", json=commands(task, FAIL))
    clock.advance(MINUTE)
    await reclaim(api)
    assert (await held(worker))["first_id"] == run


async def test_a_parents_end_reaches_a_child_on_another_queue(api: Api) -> None:
    run = await started(api)
    (task,) = await tasks(api)
    child = CHILD | {"task_queue": "pay", "execution_id": "kid"}
    await api.ok("POST", f"/v1/workflow-tasks/{task['task_id']}/commands", json=commands(task, child))
    await ok(await limited(api, "operator"), "POST", f"/v1/executions/{run}/terminate", json={})
    assert (await api.ok("GET", "/v1/executions/kid"))["status"] == "terminated"


async def test_a_schedule_fires_on_its_queue_whoever_lets_it_pause(api: Api) -> None:
    api.clock.advance(MINUTE - api.clock.now % MINUTE)
    body = {"schedule_id": "plan", "spec": {"every_ms": MINUTE}, "action": PAY, "overlap": "allow_all"}
    await api.ok("POST", "/v1/schedules", json=body)
    api.clock.advance(MINUTE)
    await ring(api)
    assert len(await tasks(api, queues=["pay"])) == 1
    api.clock.advance(MINUTE)
    await ok(await limited(api, "developer"), "POST", "/v1/schedules/plan/pause")
    shown = await api.ok("GET", "/v1/schedules/plan")
    assert (shown["refusal"], len(shown["last_runs"])) == (None, 2)
    assert len(await tasks(api, queues=["pay"])) == 1
