"""Namespaces: made before they are used, apart from each other by queue, poll and id, and deleted only when still."""

import asyncio
from typing import Any

import pytest

from backends.protocol import EVERY
from service.kernel.tallies import fold
from tests.activities.hands import claimed
from tests.conftest import Api, Clock
from tests.runs.engine import started, submit, tasks


async def made(api: Api, *names: str) -> None:
    """Namespaces by name."""
    for name in names:
        await api.ok("POST", "/v1/namespaces", json={"name": name})


async def listed(api: Api) -> list[str]:
    """The names of a tenant's namespaces."""
    return [one["name"] for one in (await api.ok("GET", "/v1/namespaces"))["items"]]


# ── make ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_main_is_always_there(api: Api) -> None:
    assert await listed(api) == ["main"]
    found = await api.ok("GET", "/v1/namespaces/main")
    assert (found["status"], found["job_id"]) == ("active", None)
    await api.refused("POST", "/v1/namespaces", "namespace/exists", json={"name": "main"})
    await api.refused("DELETE", "/v1/namespaces/main", "auth/forbidden")


async def test_a_namespace_is_made_once(api: Api) -> None:
    first = await api.http.post("/v1/namespaces", json={"name": "blue", "note": "a trial"})
    again = await api.http.post("/v1/namespaces", json={"name": "blue", "note": "a trial"})
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() | {"created": False} == again.json() == await api.ok("GET", "/v1/namespaces/blue")
    await api.refused("POST", "/v1/namespaces", "namespace/exists", json={"name": "blue", "note": "another"})
    assert await listed(api) == ["blue", "main"]


async def test_the_list_goes_page_by_page(api: Api) -> None:
    await made(api, "alpha", "zulu")
    first = await api.ok("GET", "/v1/namespaces?limit=2")
    assert [one["name"] for one in first["items"]] == ["alpha", "main"]
    rest = await api.ok("GET", f"/v1/namespaces?limit=2&cursor={first['next_cursor']}")
    assert ([one["name"] for one in rest["items"]], rest["next_cursor"]) == (["zulu"], None)


@pytest.mark.parametrize("name", ["", "a b", "a|b", "-a", "x" * 129, "a\n"])
async def test_a_name_that_is_none_is_refused(api: Api, name: str) -> None:
    await api.refused("POST", "/v1/namespaces", "request/invalid", json={"name": name})
    assert await listed(api) == ["main"]


async def test_namespaces_made_at_once_never_pass_the_limit(api: Api) -> None:
    await api.admin.patch(f"/v1/tenants/{api.tenant}", json={"limits": {"namespaces": 2}})
    answers = await asyncio.gather(*(api.http.post("/v1/namespaces", json={"name": f"n{n}"}) for n in range(6)))
    assert sorted(answer.status_code for answer in answers) == [201] * 2 + [409] * 4
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"limit/namespaces"}
    assert (await api.ok("GET", f"/v1/tenants/{api.tenant}/usage"))["namespaces"] == 2
    gone, _ = [name for name in await listed(api) if name != "main"]
    await api.ok("DELETE", f"/v1/namespaces/{gone}")
    await api.ok("POST", "/v1/namespaces", json={"name": "more"})  # one that is on its way out takes no place
    await api.refused("POST", "/v1/namespaces", "limit/namespaces", json={"name": "most"})


# ── enter ──────────────────────────────────────────────────────────────────────────────────────────────────────────

SCHEDULE = {
    "schedule_id": "nightly",
    "spec": {"cron": "0 3 * * *"},
    "action": {"workflow_type": "night", "task_queue": "flows"},
    "namespace": "nowhere",
}
ENTERING: list[tuple[str, str, Any]] = [
    ("POST", "/v1/executions", {"workflow_id": "wf", "namespace": "nowhere"}),
    ("POST", "/v1/executions", {"workflow_type": "wf", "task_queue": "flows", "namespace": "nowhere"}),
    ("POST", "/v1/schedules", SCHEDULE),
    ("PUT", "/v1/workers/w1", {"queues": ["flows"], "namespace": "nowhere"}),
    (
        "POST",
        "/v1/executions:signal-with-start",
        {
            "start": {"workflow_type": "o", "execution_id": "x", "task_queue": "q", "namespace": "nowhere"},
            "signal": {"name": "go"},
        },
    ),
]


@pytest.mark.parametrize(("method", "path", "body"), ENTERING)
async def test_nothing_is_made_in_a_namespace_that_is_not_there(api: Api, method: str, path: str, body: Any) -> None:
    problem = await api.refused(method, path, "namespace/unknown", json=body)
    assert (problem["status"], problem["namespace"]) == (422, "nowhere")
    assert (await api.ok("GET", "/v1/executions"))["items"] == []
    await made(api, "nowhere")
    assert (await api.http.request(method, path, json=body)).status_code == 201


async def test_a_batch_of_starts_refuses_only_those_of_unknown_namespaces(api: Api) -> None:
    await made(api, "blue")
    bodies = [{"workflow_id": "wf", "namespace": name} for name in ("main", "nowhere", "blue")]
    results = (await api.ok("POST", "/v1/executions:batch", json=bodies))["results"]
    assert ["ok" in one for one in results] == [True, False, True]
    assert results[1]["error"]["code"] == "namespace/unknown"


# ── apart ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_namespace_is_apart_by_poll(api: Api) -> None:
    """Same queue, same types: a worker of one namespace never gets what is another's."""
    await made(api, "blue", "green")
    run = await started(api, namespace="blue")
    assert await tasks(api) == await tasks(api, namespace="green") == []
    (task,) = await tasks(api, namespace="blue")
    assert (task["execution_id"], task["namespace"]) == (run, "blue")
    await submit(api, task, {"type": "ScheduleActivity", "seq": 0, "name": "charge", "task_queue": "pay"})
    assert await claimed(api) == await claimed(api, namespace="green") == []
    assert len(await claimed(api, namespace="blue")) == 1


async def test_a_pattern_of_queues_stays_out_of_other_namespaces(api: Api) -> None:
    await made(api, "blue")
    await started(api, namespace="blue")
    offered = {"capabilities": ["workflow:order"]}
    for queue in ("*", "*flows", "blue?flows", "????*"):
        assert await api.claim(queue, **offered) == [], queue
    assert len(await tasks(api, namespace="blue")) == 1


async def test_work_of_an_execution_stands_in_its_namespace(api: Api) -> None:
    await made(api, "blue")
    run = (await api.start(namespace="blue", start={"queue": "q"}))["execution_id"]
    body = {"queue": "q", "execution_id": run, "id": "mine"}
    first = await api.ok("POST", "/v1/work-items", json=body)
    assert (first["created"], (await api.ok("POST", "/v1/work-items", json=body))["created"]) == (True, False)
    change = {"type": "enqueue", "queue": "q"}
    await api.ok("POST", f"/v1/executions/{run}/transitions", json={"changes": [change]})
    assert await api.claim("q", max_items=9) == await api.claim("*", max_items=9) == []
    got = await api.claim("q*", max_items=9, namespace="blue")
    assert [item["queue"] for item in got] == ["blue|q"] * 3
    assert {item["execution_id"] for item in got} == {run}


async def test_a_token_is_held_to_the_queues_of_its_namespace(api: Api) -> None:
    await made(api, "blue", "green")
    await started(api, namespace="blue")
    body = {"name": "w", "role": "worker", "queues": ["blue|flows"]}
    secret = (await api.ok("POST", "/v1/tokens", json=body))["secret"]
    worker = api.service.client(secret)
    asked = {"worker_id": "w", "queues": ["flows"], "types": ["order"]}
    for namespace, status in (("main", 403), ("green", 403), ("blue", 200)):
        answer = await worker.post("/v1/workflow-tasks:claim", json=asked | {"namespace": namespace})
        assert answer.status_code == status, namespace


async def test_a_child_lives_where_its_parent_lives(api: Api) -> None:
    await made(api, "blue")
    run = await started(api, namespace="blue")
    (task,) = await tasks(api, namespace="blue")
    await submit(api, task, {"type": "StartChildWorkflow", "seq": 0, "workflow_type": "order", "execution_id": "kid"})
    assert (await api.ok("GET", "/v1/executions/kid"))["namespace"] == "blue"
    assert await tasks(api) == []
    assert "kid" in {one["execution_id"] for one in await tasks(api, namespace="blue")}
    assert (await api.ok("GET", f"/v1/executions/{run}"))["status"] == "running"


async def test_a_namespace_is_apart_by_id(api: Api) -> None:
    """An id is the tenant's: in another namespace it is no repeat, and names nothing of this one's."""
    await made(api, "blue", "green")
    await started(api, execution_id="one", namespace="blue")
    body = {"workflow_type": "order", "task_queue": "flows", "execution_id": "one", "namespace": "green"}
    await api.refused("POST", "/v1/executions", "execution/conflict", json=body)
    body = {"workflow_id": "wf", "parent_id": "one", "namespace": "green"}
    await api.refused("POST", "/v1/executions", "not-found", json=body)
    await started(api, execution_id="two", namespace="green")
    (task,) = await tasks(api, namespace="green")
    await submit(api, task, {"type": "SignalExternal", "seq": 0, "execution_id": "one", "name": "go"})
    last = next(event for event in await api.events("two") if event["kind"].startswith("signal."))
    assert (last["kind"], last["body"]["reason"]) == ("signal.failed", "not found")
    assert "signal.received" not in {event["kind"] for event in await api.events("one")}


async def test_a_namespace_of_another_tenant_is_no_namespace_here(api: Api, other: Api) -> None:
    await made(api, "blue")
    assert await listed(other) == ["main"]
    await other.refused("GET", "/v1/namespaces/blue", "not-found")
    await other.refused("POST", "/v1/executions", "namespace/unknown", json={"workflow_id": "wf", "namespace": "blue"})
    await made(other, "blue")
    await started(api, namespace="blue")
    assert await tasks(other, namespace="blue") == []
    assert (await other.ok("GET", "/v1/namespaces/blue/stats"))["executions"]["running"] == 0


# ── stats ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def executions_of(api: Api, name: str) -> dict[str, int]:
    """How many executions a namespace has, by status; those without any left out."""
    found = (await api.ok("GET", f"/v1/namespaces/{name}/stats"))["executions"]
    return {status: count for status, count in found.items() if count}


async def test_executions_are_counted_by_status_to_the_last_commit(api: Api) -> None:
    await made(api, "blue")
    runs = [(await api.start(namespace="blue"))["execution_id"] for _ in range(4)]
    await api.start()
    await api.start(pending=True)
    assert await executions_of(api, "blue") == {"running": 4}
    for run, status in zip(runs, ("completed", "failed", "paused"), strict=False):
        await api.ok("POST", f"/v1/executions/{run}/status", json={"status": status})
    assert await executions_of(api, "blue") == {"running": 1, "completed": 1, "failed": 1, "paused": 1}
    assert await executions_of(api, "main") == {"running": 1, "pending": 1}


async def test_a_start_that_is_refused_or_repeated_counts_once(api: Api) -> None:
    body = {"workflow_id": "wf", "execution_id": "mine"}
    answers = await asyncio.gather(*(api.http.post("/v1/executions", json=body) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200] * 4 + [201]
    await api.refused("POST", "/v1/executions", "not-found", json={"workflow_id": "wf", "parent_id": "nobody"})
    assert await executions_of(api, "main") == {"running": 1}


async def test_many_at_once_are_counted_exactly(api: Api) -> None:
    runs = await asyncio.gather(*(api.start() for _ in range(60)))
    ended = [run["execution_id"] for run in runs[:25]]
    paths = [f"/v1/executions/{run}/status" for run in ended]
    await asyncio.gather(*(api.ok("POST", path, json={"status": "completed"}) for path in paths))
    assert await executions_of(api, "main") == {"running": 35, "completed": 25}
    backend = api.service.services.backend
    await asyncio.gather(*(fold(backend) for _ in range(3)))
    assert await backend.read(lambda tx: tx.one("any_tally_change"), tenants=EVERY) is None, "all of it is folded"
    assert await executions_of(api, "main") == {"running": 35, "completed": 25}
    await api.start()
    assert await executions_of(api, "main") == {"running": 36, "completed": 25}


async def test_stats_tell_of_open_work_schedules_and_workers(api: Api, clock: Clock) -> None:
    await made(api, "blue")
    for _ in range(3):
        await started(api, namespace="blue")
    task, *_ = await tasks(api, namespace="blue", max_items=2)
    asked = {"type": "ScheduleActivity", "name": "charge", "task_queue": "pay"}
    await submit(api, task, asked | {"seq": 0}, asked | {"seq": 1})
    await claimed(api, namespace="blue", queues=["pay"], max_items=1)
    await api.ok("POST", "/v1/schedules", json=SCHEDULE | {"namespace": "blue"})
    for name, namespace in (("a", "blue"), ("b", "blue"), ("c", "main")):
        await api.ok("PUT", f"/v1/workers/{name}", json={"queues": ["pay"], "namespace": namespace})
    await api.ok("POST", "/v1/work-items", json={"queue": "plain", "delay_ms": 60_000})
    blue, main = [await api.ok("GET", f"/v1/namespaces/{name}/stats") for name in ("blue", "main")]
    assert blue["workflow_tasks"] == {"ready": 1, "delayed": 0, "leased": 1}
    assert blue["activities"] == {"ready": 1, "delayed": 0, "leased": 1}
    assert (blue["schedules"], blue["workers"], blue["at_least"]) == (1, 2, [])
    assert main["other_work"] == {"ready": 0, "delayed": 1, "leased": 0}
    assert main["workflow_tasks"] == main["activities"] == {"ready": 0, "delayed": 0, "leased": 0}
    assert (main["schedules"], main["workers"]) == (0, 1)
    clock.advance(30_000)
    assert (await api.ok("GET", "/v1/namespaces/blue/stats"))["workers"] == 0, "lost ones do not count"


async def test_what_is_counted_up_to_a_bound_says_so(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.namespaces.routes.COUNTED_MAX", 3)
    for _ in range(5):
        await api.ok("POST", "/v1/work-items", json={"queue": "q"})
    found = await api.ok("GET", "/v1/namespaces/main/stats")
    assert (found["other_work"]["ready"], found["at_least"]) == (3, ["ready"])
