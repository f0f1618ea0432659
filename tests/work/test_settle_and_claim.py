"""A claim that settles first: a worker's loop is one request, and where there is room one commit."""

import asyncio
from typing import Any

import pytest

from backends.errors import StoreError, Unavailable
from backends.protocol import Tenants
from service.kernel.principal import PERMITS
from service.runs import routes
from tests.activities.hands import activity
from tests.conftest import Api
from tests.runs.engine import commands, started
from tests.work.steps import enqueue, settle, shown
from tests.work.test_handover import commits
from tests.work.test_waiting import first, no_looking, parked, turns, until, waiting

__all__ = ["commits", "no_looking"]
CLAIM = "/v1/work-items:claim"


def asking(*settle: Any, **body: Any) -> Any:
    """A claim of the queue `q` that settles first."""
    return {"worker_id": "w", "queues": ["q"], "settle": list(settle)} | body


def completed(item: Any, **said: Any) -> Any:
    """That an item was done."""
    return {"complete": {"id": item["id"], "epoch": item["epoch"]} | said}


async def test_what_was_done_is_settled_and_the_next_item_leased_by_one_commit(
    api: Api, commits: list[Tenants]
) -> None:
    items = [await enqueue(api) for _ in range(2)]
    [held] = await api.claim("q")
    commits.clear()
    found = await api.ok("POST", CLAIM, json=asking(completed(held, result=7)))
    assert len(commits) == 1
    assert [got["id"] for got in found["items"]] == items[1:]
    [entry] = found["settled"]
    assert (entry["ok"]["id"], entry["ok"]["outcome"]) == (items[0], "completed")
    assert ((await shown(api, items[0]))["result"], (await shown(api, items[1]))["status"]) == (7, "leased")


async def test_a_claim_that_settles_nothing_is_answered_as_ever(api: Api) -> None:
    assert await api.ok("POST", CLAIM, json=asking()) == {"items": []}


async def test_what_the_settling_brings_may_be_claimed_by_the_same_request(api: Api, commits: list[Tenants]) -> None:
    run = (await api.start(start={"queue": "q"}))["execution_id"]
    [held] = await api.claim("q")
    commits.clear()
    changes = [{"type": "settle", "outcome": "completed"}, {"type": "enqueue", "queue": "q", "node_id": "next"}]
    made = {"transition": {"lease": {"work_item_id": held["id"], "epoch": held["epoch"]}, "changes": changes}}
    found = await api.ok("POST", CLAIM, json=asking(made))
    [got], [entry] = found["items"], found["settled"]
    assert (got["execution_id"], got["node_id"], len(commits)) == (run, "next", 1)
    assert entry["ok"]["changes"][1]["work_item_id"] == got["id"]


async def test_each_is_settled_for_itself_and_told_in_the_same_order(api: Api) -> None:
    for _ in range(4):
        await enqueue(api, max_attempts=1)
    one, two, three, four = await api.claim("q", max_items=4)
    error = {"type": "boom", "message": "it broke"}
    told = asking(
        completed(one | {"epoch": 9}),
        {"fail": {"id": two["id"], "epoch": 1, "error": error}},
        {"release": {"id": three["id"], "epoch": 1, "delay_ms": 60_000}},
        {"complete": {"epoch": 1}},
        completed({"id": "nobody's", "epoch": 1}),
        completed(four),
    )
    said = (await api.ok("POST", CLAIM, json=told))["settled"]
    assert [entry["ok"]["outcome"] if "ok" in entry else entry["error"]["code"] for entry in said] == [
        "lease/stale", "dead_lettered", "released", "request/invalid", "not-found", "completed",
    ]  # fmt: skip
    assert (await shown(api, one["id"]))["status"] == "leased"


async def test_of_what_cannot_be_read_nothing_is_done(api: Api) -> None:
    await enqueue(api)
    [held] = await api.claim("q")
    for wrong in ({}, completed(held) | {"release": {"id": held["id"], "epoch": 1}}, {"complete": {"epoch": "1"}}):
        problem = await api.refused("POST", CLAIM, "request/invalid", json=asking(completed(held), wrong))
        assert problem["errors"][0]["pointer"].startswith("/settle/1")
    assert (await shown(api, held["id"]))["status"] == "leased"


async def test_every_entry_that_says_none_or_several_is_told(api: Api) -> None:
    both = completed({"id": "i", "epoch": 1}, result=1) | {"release": {"id": "i", "epoch": 1}}
    problem = await api.refused(
        "POST", CLAIM, "request/invalid", json=asking({}, completed({"id": "i", "epoch": 1}), both)
    )
    assert [error["pointer"] for error in problem["errors"]] == ["/settle/0", "/settle/2"]
    assert "`complete`, `fail`, `release`, `transition`" in problem["errors"][0]["detail"]
    problem = await api.refused("POST", "/v1/activities:claim", "request/invalid", json=activities({}, {}))
    assert [error["pointer"] for error in problem["errors"]] == ["/settle/0", "/settle/1"]


async def test_a_claim_waits_once_all_is_settled_and_is_served_by_what_comes(api: Api) -> None:
    await enqueue(api)
    [held] = await api.claim("q")
    poll = asyncio.create_task(api.ok("POST", CLAIM, json=asking(completed(held), wait_ms=60_000)))
    await until(lambda: parked(api) == 1 and not api.service.services.kernel._tasks)
    await turns()
    assert (await shown(api, held["id"]))["status"] == "completed", "whoever waits has settled"
    item = await enqueue(api)
    async with asyncio.timeout(10):
        found = await poll
    assert [got["id"] for got in found["items"]] == [item]
    assert found["settled"][0]["ok"]["id"] == held["id"]


async def test_a_claim_does_not_wait_where_something_could_not_be_settled(api: Api) -> None:
    await enqueue(api)
    [held] = await api.claim("q")
    stale = completed(held | {"epoch": 9})
    async with asyncio.timeout(10):
        found = await api.ok("POST", CLAIM, json=asking(stale, wait_ms=60_000))
    assert (found["items"], found["settled"][0]["error"]["code"]) == ([], "lease/stale")


async def test_the_rest_of_what_is_brought_goes_to_who_waits(api: Api) -> None:
    await api.start(start={"queue": "here"})
    [held] = await api.claim("here")
    async with waiting(api, (["q"], {})) as tasks:
        changes = [{"type": "enqueue", "queue": "q"}] * 2
        made = {"transition": {"lease": {"work_item_id": held["id"], "epoch": 1}, "changes": changes}}
        found = await api.ok("POST", CLAIM, json=asking(made))
        assert len(found["items"]) == 1
        [other] = await first(tasks)
        assert other["id"] != found["items"][0]["id"]


async def test_a_request_that_is_repeated_is_answered_as_the_first_time(api: Api) -> None:
    for _ in range(2):
        await enqueue(api)
    [held] = await api.claim("q")
    headers, told = {"idempotency-key": "k"}, asking(completed(held))
    found = await api.ok("POST", CLAIM, json=told, headers=headers)
    again = await api.http.post(CLAIM, json=told, headers=headers)
    assert (again.json(), again.headers["idempotent-replayed"]) == (found, "true")
    assert (await shown(api, found["items"][0]["id"]))["attempt"] == 1


async def test_a_key_that_was_used_for_another_request_settles_nothing(api: Api) -> None:
    await enqueue(api)
    [held] = await api.claim("q")
    await enqueue(api)
    headers = {"idempotency-key": "k"}
    await api.ok("POST", CLAIM, json=asking(), headers=headers)
    problem = await api.refused("POST", CLAIM, "idempotency/mismatch", json=asking(completed(held)), headers=headers)
    assert "k" in problem["detail"]
    assert (await shown(api, held["id"]))["status"] == "leased"


async def test_without_a_key_a_repeat_settles_as_before_and_claims_anew(api: Api) -> None:
    for _ in range(3):
        await enqueue(api)
    [held] = await api.claim("q")
    first, second = [await api.ok("POST", CLAIM, json=asking(completed(held))) for _ in range(2)]
    assert first["settled"] == second["settled"]
    assert first["items"][0]["id"] != second["items"][0]["id"]


async def test_a_token_of_other_queues_settles_nothing_of_theirs(api: Api) -> None:
    await enqueue(api)
    [held] = await api.claim("q")
    minted = await api.ok("POST", "/v1/tokens", json={"name": "w", "role": "worker", "queues": ["other"]})
    worker = api.service.client(minted["secret"])
    told = asking(completed(held), queues=["other"])
    [entry] = (await worker.post(CLAIM, json=told)).json()["settled"]
    assert entry["error"]["code"] in ("not-found", "auth/queue")
    refused = await worker.post(CLAIM, json=asking(completed(held)))
    assert (refused.status_code, refused.json()["code"]) == (403, "auth/queue")
    assert (await shown(api, held["id"]))["status"] == "leased"


async def test_another_tenants_items_are_not_there(api: Api) -> None:
    await enqueue(api)
    [held] = await api.claim("q")
    other = await api.service.tenant()
    [entry] = (await other.ok("POST", CLAIM, json=asking(completed(held))))["settled"]
    assert entry["error"]["code"] == "not-found"


async def test_a_token_that_has_ended_settles_nothing(api: Api) -> None:
    await enqueue(api)
    [held] = await api.claim("q")
    minted = await api.ok("POST", "/v1/tokens", json={"name": "w", "role": "worker"})
    worker = api.service.client(minted["secret"])
    assert (await worker.get("/v1/tokens/self")).status_code == 200
    await api.ok("DELETE", f"/v1/tokens/{minted['token']['id']}")
    refused = await worker.post(CLAIM, json=asking(completed(held)))
    assert (refused.status_code, refused.json()["code"]) == (401, "auth/revoked")
    assert (await shown(api, held["id"]))["status"] == "leased"


async def test_when_the_store_objects_to_the_claim_what_was_done_is_settled_all_the_same(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    await enqueue(api)
    [held] = await api.claim("q")
    kernel = api.service.services.kernel
    decide = kernel._decided

    async def failing(tx: Any, batch: Any) -> Any:
        if any(request.behind for request in batch):
            raise StoreError("no")
        return await decide(tx, batch)

    monkeypatch.setattr(kernel, "_decided", failing)
    problem = await api.refused("POST", CLAIM, "server/error", json=asking(completed(held), {"complete": {"epoch": 1}}))
    assert "of what it settles 1 of 2 are done" in problem["detail"]
    assert (await shown(api, held["id"]))["status"] == "completed"
    problem = await api.refused("POST", CLAIM, "server/error", json=asking(completed(held | {"epoch": 9})))
    assert "settles" not in problem["detail"]
    monkeypatch.undo()
    repeated = await api.ok("POST", CLAIM, json=asking(completed(held)))
    assert repeated["settled"][0]["ok"]["outcome"] == "completed"


async def test_a_claim_that_finds_no_place_to_wait_tells_what_was_settled(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    await enqueue(api)
    [held] = await api.claim("q")
    monkeypatch.setattr(api.service.services.wakes, "_most", 0)
    problem = await api.refused("POST", CLAIM, "server/busy", json=asking(completed(held), wait_ms=60_000))
    assert "of what it settles 1 of 1 are done" in problem["detail"]
    assert problem["retry_after"] == 5
    assert (await shown(api, held["id"]))["status"] == "completed"


async def test_whoever_waited_is_answered_again_under_its_key(api: Api) -> None:
    await enqueue(api)
    [held] = await api.claim("q")
    headers, told = {"idempotency-key": "k"}, asking(completed(held), wait_ms=60_000)
    lost, repeated = [asyncio.create_task(api.ok("POST", CLAIM, json=told, headers=headers)) for _ in range(2)]
    await until(lambda: parked(api) == 2 and not api.service.services.kernel._tasks)
    await turns()
    one = await enqueue(api)
    async with asyncio.timeout(10):
        await asyncio.wait([lost, repeated], return_when=asyncio.FIRST_COMPLETED)
        other = await enqueue(api)
        assert await lost == await repeated, "of the two that still waited one is the repeat"
    assert ([got["id"] for got in lost.result()["items"]], (await shown(api, other))["status"]) == ([one], "ready")
    again = await api.http.post(CLAIM, json=told, headers=headers)
    assert (again.json(), again.headers["idempotent-replayed"]) == (lost.result(), "true")


async def test_what_was_refused_may_be_done_by_the_repeat(api: Api) -> None:
    run = (await api.start(start={"queue": "here"}))["execution_id"]
    for _ in range(2):
        await enqueue(api)
    [held], [mine] = await api.claim("q"), await api.claim("here")
    change = {"type": "set_status", "status": "paused"}
    moved = {"transition": {"execution_id": run, "expected_sequence": 2, "changes": [change]}}
    headers, told = {"idempotency-key": "k"}, asking(completed(held), moved)
    first = await api.ok("POST", CLAIM, json=told, headers=headers)
    assert first["settled"][1]["error"]["code"] == "sequence/mismatch"
    await settle(api, mine, "complete")
    again = await api.ok("POST", CLAIM, json=told, headers=headers)
    assert again["settled"][1]["ok"]["status"] == "paused"
    assert (again["settled"][0], again["items"]) == (first["settled"][0], first["items"])


async def test_more_than_a_batch_holds_is_settled_in_front_of_the_claim(api: Api) -> None:
    ids = [await enqueue(api) for _ in range(2)]
    await api.ok("POST", "/v1/work-items:batch", json=[{"queue": "q", "priority": 1}] * 200)
    held = await api.claim("q", max_items=200)
    found = await api.ok("POST", CLAIM, json=asking(*map(completed, held), max_items=100))
    assert [entry["ok"]["id"] for entry in found["settled"]] == [item["id"] for item in held]
    assert [got["id"] for got in found["items"]] == ids


async def test_a_server_that_goes_tells_whoever_waits_what_was_settled(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    await enqueue(api)
    [held] = await api.claim("q")
    wakes = api.service.services.wakes
    poll = asyncio.create_task(api.ok("POST", CLAIM, json=asking(completed(held), wait_ms=60_000)))
    await until(lambda: parked(api) == 1 and not api.service.services.kernel._tasks)
    monkeypatch.setattr(wakes, "closing", False)
    wakes.close()
    async with asyncio.timeout(10):
        found = await poll
    assert (found["items"], found["settled"][0]["ok"]["outcome"]) == ([], "completed")


async def test_whoever_hangs_up_has_settled_and_is_leased_nothing(api: Api) -> None:
    await enqueue(api)
    [held] = await api.claim("q")
    poll = asyncio.create_task(api.ok("POST", CLAIM, json=asking(completed(held), wait_ms=60_000)))
    await until(lambda: parked(api) == 1 and not api.service.services.kernel._tasks)
    poll.cancel()
    await asyncio.wait([poll])
    item = await enqueue(api)
    assert [(await shown(api, one))["status"] for one in (held["id"], item)] == ["completed", "ready"]


async def test_a_suspended_tenants_worker_is_refused_whole(api: Api) -> None:
    await enqueue(api)
    [held] = await api.claim("q")
    await api.admin.patch(f"/v1/tenants/{api.tenant}", json={"status": "suspended"})
    told = asking(completed(held), wait_ms=60_000)
    problem = await api.refused("POST", CLAIM, "tenant/suspended", json=told)
    assert "settles" not in problem["detail"]
    assert (await shown(api, held["id"]))["status"] == "leased"


def tasks(*settle: Any) -> Any:
    """A claim of workflow tasks that submits first."""
    return {"worker_id": "w", "queues": ["flows"], "types": ["order"], "settle": list(settle)}


def submission(task: Any, *made: Any) -> Any:
    """What a workflow asks for, as a claim settles it."""
    return {"id": task["task_id"]} | commands(task, *made)


def activities(*settle: Any) -> Any:
    """A claim of activities that settles first."""
    return {"worker_id": "a", "queues": ["pay"], "activities": ["charge"], "settle": list(settle)}


async def test_workers_of_workflows_and_of_activities_have_loops_of_one_request(
    api: Api, commits: list[Tenants]
) -> None:
    runs = [await started(api) for _ in range(3)]
    tasks_path, activities_path = "/v1/workflow-tasks:claim", "/v1/activities:claim"
    commits.clear()
    told: list[Any] = []
    for _ in runs:
        [task] = (await api.ok("POST", tasks_path, json=tasks(*told)))["items"]
        told = [submission(task, activity())]
    assert (await api.ok("POST", tasks_path, json=tasks(*told)))["items"] == []
    told = []
    for _ in runs:
        [item] = (await api.ok("POST", activities_path, json=activities(*told)))["items"]
        told = [completed(item, result=1)]
    found = await api.ok("POST", activities_path, json=activities(*told))
    assert (found["items"], found["settled"][0]["ok"]["outcome"], len(commits)) == ([], "completed", 8)
    told = []
    for _ in runs:
        [task] = (await api.ok("POST", tasks_path, json=tasks(*told)))["items"]
        told = [submission(task, {"type": "CompleteWorkflow"})]
    found = await api.ok("POST", tasks_path, json=tasks(*told))
    assert (found["items"], found["settled"][0]["ok"]["status"]) == ([], "completed")
    assert {(await api.ok("GET", f"/v1/executions/{run}"))["status"] for run in runs} == {"completed"}


async def test_a_submission_that_contradicts_its_log_is_told_at_once(api: Api) -> None:
    run = await started(api)
    path = "/v1/workflow-tasks:claim"
    [task] = (await api.ok("POST", path, json=tasks()))["items"]
    told = tasks(submission(task, activity(), {"type": "WaitForSignal", "name": "s"}))
    assert "ok" in (await api.ok("POST", path, json=told))["settled"][0]
    await api.ok("POST", f"/v1/executions/{run}/signals/s", json={})
    [task] = (await api.ok("POST", path, json=tasks()))["items"]
    told = tasks(submission(task, activity(name="another"))) | {"wait_ms": 60_000}
    async with asyncio.timeout(10):
        found = await api.ok("POST", path, json=told)
    assert found["settled"][0]["error"]["code"] == "workflow/nondeterminism"


async def test_a_submission_with_a_wrong_command_leaves_the_others_alone(api: Api) -> None:
    runs = [await started(api) for _ in range(2)]
    path = "/v1/workflow-tasks:claim"
    one, two = (await api.ok("POST", path, json=tasks() | {"max_items": 2}))["items"]
    wrong = submission(one, {"type": "Nonsense"})
    said = (await api.ok("POST", path, json=tasks(wrong, submission(two, {"type": "CompleteWorkflow"}))))["settled"]
    assert (said[0]["error"]["code"], said[1]["ok"]["execution_id"]) == ("request/invalid", two["execution_id"])
    assert {one["execution_id"], two["execution_id"]} == set(runs)


async def test_a_task_whose_history_cannot_be_read_is_said_to_be_leased(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    await started(api)

    async def away(*_: Any) -> Any:
        raise Unavailable("away")

    path, headers = "/v1/workflow-tasks:claim", {"idempotency-key": "k"}
    monkeypatch.setattr(routes, "histories", away)
    problem = await api.refused("POST", path, "store/unavailable", json=tasks(), headers=headers)
    assert "is leased" in problem["detail"]
    assert problem["retry_after"] == 1
    monkeypatch.undo()
    again = await api.ok("POST", path, json=tasks(), headers=headers)
    assert [task["epoch"] for task in again["items"]] == [1]


async def test_an_attempt_is_completed_or_failed_and_not_both(api: Api) -> None:
    both = {"complete": {"id": "x", "epoch": 1}, "fail": {"id": "x", "epoch": 1, "error": {"type": "t"}}}
    for wrong in ({}, both):
        problem = await api.refused("POST", "/v1/activities:claim", "request/invalid", json=activities(wrong))
        assert problem["errors"][0]["pointer"] == "/settle/0"


async def test_a_request_settles_at_most_so_many_commands(api: Api) -> None:
    many = [{"type": "SetMemo", "memo": {}}] * 2_000
    told = tasks(*[{"id": "x", "epoch": 1, "history_sequence": 1, "commands": many}] * 6)
    await api.refused("POST", "/v1/workflow-tasks:claim", "request/invalid", json=told)


async def test_whoever_may_claim_may_make_a_transition() -> None:
    assert PERMITS["work.claim"] <= PERMITS["execution.transition"], "a claim may settle by a transition"
