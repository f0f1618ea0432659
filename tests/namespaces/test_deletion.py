"""A namespace is deleted when nothing runs in it, and then nothing of it is left, whatever was in it."""

import asyncio
from typing import Any

import pytest

from backends import erasure
from service.namespaces import sweeps
from tests.activities.hands import claimed
from tests.conftest import Api, Clock, Service
from tests.namespaces.test_behaviour import SCHEDULE, listed, made
from tests.runs.engine import ring, started, submit, tasks
from tests.tenants.test_behaviour import at_large

BY_ANOTHER_COLUMN = {
    "namespaces": "its own row, the last",
    "schedules": "by namespace",
    "schedule_runs": "by its schedule",
    "workers": "by namespace",
    "worker_queues": "by the queue's name",
    "shelves": "by the queue's name",
    "queues": "by the queue's name",
    "tallies": "by namespace",
    "tally_changes": "by namespace",
}
"""Tables with rows of a namespace that belong to no execution, and how those are found."""
THE_TENANTS = {
    "tenants", "tokens", "audit", "audit_heads", "audit_checkpoints", "idempotency_keys", "workflows", "definitions",
    "jobs", "sweep_leases", "secrets", "rates", "queue_rates",
}  # fmt: skip
"""Tables whose rows are the whole tenant's, and stay."""


async def erased(api: Api, job_id: str) -> Any:
    """The job, run to its end."""
    await sweeps.erase(api.service.services)
    api.clock.advance(sweeps.QUIET_MS)
    await sweeps.erase(api.service.services)
    return await api.ok("GET", f"/v1/jobs/{job_id}")


async def fill(api: Api, namespace: str) -> None:
    """Something of every kind in a namespace, all of it ended."""
    of = {"namespace": namespace}
    run = await started(api, **of, search_attributes={"customer": "acme"}, memo={"a": 1}, execution_timeout_ms=60_000)
    (task,) = await tasks(api, **of)
    await submit(
        api, task,
        {"type": "ScheduleActivity", "seq": 0, "name": "charge", "task_queue": "pay"},
        {"type": "ScheduleTimer", "seq": 0, "duration_ms": 60_000},
        {"type": "StartChildWorkflow", "seq": 0, "workflow_type": "order", "parent_close_policy": "terminate"},
        {"type": "RecordSnapshot", "state": {"a": 1}},
    )  # fmt: skip
    await claimed(api, **of)
    await api.ok("POST", f"/v1/executions/{run}/signals/go", json={"signal_id": "s"})
    await api.start(**of, state={"a": 1}, labels={"a": "b"}, start={"queue": "q", "drives": "execution"})
    (item,) = await api.claim("q", **of)
    await api.ok("POST", f"/v1/work-items/{item['id']}/dead-letter", json={"epoch": 1, "error": {"type": "bad"}})
    await api.ok("POST", "/v1/schedules", json=SCHEDULE | of | {"schedule_id": f"plan-{namespace}"})
    await api.ok("POST", f"/v1/schedules/plan-{namespace}/trigger", json={})
    await api.ok("POST", "/v1/queues/q/pause" + f"?namespace={namespace}")
    await api.ok("PUT", f"/v1/workers/w-{namespace}", json={"queues": ["q", "pay"]} | of)
    await ring(api)
    for one in (await api.ok("GET", f"/v1/executions?namespace={namespace}"))["items"]:
        if one["status"] == "running":
            await api.http.post(f"/v1/executions/{one['execution_id']}/terminate", json={})


async def rows_of(service: Service, tenant: str, namespace: str) -> dict[str, int]:
    """How many rows of a namespace each table has; of tables that have none of it by nature, nothing."""
    found: dict[str, int] = {}
    of = f"tenant_id = '{tenant}'"
    inside = f"(SELECT id FROM {{}} WHERE {of} AND namespace = '{namespace}')"
    named = f"{of} AND {{}} LIKE '{namespace}|%'"
    for table, column in erasure.of_executions().items():
        found[table] = await count(service, f"{table} WHERE {of} AND {column} IN {inside.format('executions')}")
    found["alarms"] += await count(service, f"alarms WHERE {of} AND owner_id = 'schedule/plan-{namespace}'")
    for table in ("schedules", "workers", "tallies", "tally_changes"):
        found[table] = await count(service, f"{table} WHERE {of} AND namespace = '{namespace}'")
    found["schedule_runs"] = await count(service, f"schedule_runs WHERE {of} AND schedule_id = 'plan-{namespace}'")
    for table, column in (("shelves", "queue"), ("queues", "name"), ("worker_queues", "queue")):
        found[table] = await count(service, f"{table} WHERE {named.format(column)}")
    found["namespaces"] = await count(service, f"namespaces WHERE {of} AND name = '{namespace}'")
    return found


async def count(service: Service, what: str) -> int:
    """How many rows there are, counted behind the service's back."""
    said = f"SELECT count(*) FROM {what}"
    if service.services.backend.name == "sqlite":
        return int(service.services.backend._db.execute(said).fetchone()[0])
    async with at_large(service) as db:
        return int(await db.fetchval(said))


async def everything(service: Service, tenant: str) -> dict[str, int]:
    """How many rows of a tenant each table has."""
    return {name: await count(service, f"{name} WHERE tenant_id = '{tenant}'") for name in list(erasure.keys())}


def test_every_table_has_its_place() -> None:
    """A new table belongs to executions, to a namespace in another way, or to the whole tenant: say which."""
    known = {*erasure.of_executions(), *BY_ANOTHER_COLUMN, *THE_TENANTS}
    assert set(erasure.keys()) - known == set(), "say where these go when a namespace is deleted"
    assert known - set(erasure.keys()) == set(), "these are no tables any more"
    assert {*sweeps.BEFORE, *sweeps.AFTER, "namespaces"} - {"alarms"} == set(BY_ANOTHER_COLUMN)


async def test_it_is_refused_while_executions_are_open(api: Api) -> None:
    await made(api, "blue")
    runs = [(await api.start(namespace="blue", pending=pending))["execution_id"] for pending in (True, False)]
    problem = await api.refused("DELETE", "/v1/namespaces/blue", "namespace/in-use")
    assert problem["current"] == 2
    await api.ok("POST", f"/v1/executions/{runs[0]}/status", json={"status": "cancelled"})
    await api.ok("POST", f"/v1/executions/{runs[1]}/status", json={"status": "paused"})
    assert (await api.refused("DELETE", "/v1/namespaces/blue", "namespace/in-use"))["current"] == 1
    await api.ok("POST", f"/v1/executions/{runs[1]}/status", json={"status": "cancelled"})
    answer = await api.http.delete("/v1/namespaces/blue")
    assert (answer.status_code, answer.json()["status"]) == (202, "deleting")


async def test_nothing_of_it_is_left_and_nothing_else_is_touched(api: Api) -> None:
    await made(api, "blue", "blues")
    for name in ("blue", "blues", "main"):
        await fill(api, name)
    blue, blues = await rows_of(api.service, api.tenant, "blue"), await rows_of(api.service, api.tenant, "blues")
    empty = {table for table, rows in blue.items() if not rows} - {"tallies"}
    assert empty == set(), "fill has nothing of these; the test would prove nothing of them"
    before = await everything(api.service, api.tenant)
    job_id = (await api.ok("DELETE", "/v1/namespaces/blue"))["job_id"]
    job = await erased(api, job_id)
    assert (job["status"], job["done"]) == ("completed", sum(blue.values()) - 1), "every row was counted once"
    assert set((await rows_of(api.service, api.tenant, "blue")).values()) == {0}
    assert await rows_of(api.service, api.tenant, "blues") == blues
    after = await everything(api.service, api.tenant)
    audited = {"audit": 2, "jobs": 1, "idempotency_keys": 0}
    assert {name: before[name] - after[name] + audited.get(name, 0) for name in before} == {
        name: blue.get(name, 0) for name in before
    }
    assert await listed(api) == ["blues", "main"]
    await api.refused("GET", "/v1/namespaces/blue/stats", "not-found")


async def test_nothing_comes_into_one_that_is_being_deleted(api: Api) -> None:
    await made(api, "blue")
    await api.ok("PUT", "/v1/workers/w", json={"queues": ["q"], "namespace": "blue"})
    job_id = (await api.ok("DELETE", "/v1/namespaces/blue"))["job_id"]
    start = {"workflow_id": "wf", "namespace": "blue"}
    assert (await api.refused("POST", "/v1/executions", "namespace/deleting", json=start))["job_id"] == job_id
    await api.refused("POST", "/v1/schedules", "namespace/deleting", json=SCHEDULE | {"namespace": "blue"})
    await api.refused("PUT", "/v1/workers/w", "namespace/deleting", json={"queues": ["q"], "namespace": "blue"})
    await api.refused("POST", "/v1/namespaces", "namespace/deleting", json={"name": "blue"})
    await api.refused("POST", f"/v1/jobs/{job_id}/cancel", "job/final")
    assert (await api.ok("DELETE", "/v1/namespaces/blue"))["job_id"] == job_id, "the same again answers the same"
    await erased(api, job_id)
    await api.refused("POST", "/v1/workers/w/heartbeat", "not-found")
    await made(api, "blue")
    await started(api, namespace="blue")
    assert len(await tasks(api, namespace="blue")) == 1, "a namespace of that name begins anew"


async def test_a_schedule_of_it_starts_nothing_more(api: Api, clock: Clock) -> None:
    await made(api, "blue")
    body = SCHEDULE | {"namespace": "blue", "spec": {"every_ms": 60_000}}
    await api.ok("POST", "/v1/schedules", json=body)
    job_id = (await api.ok("DELETE", "/v1/namespaces/blue"))["job_id"]
    clock.advance(60_000)
    await ring(api)
    assert (await api.ok("GET", "/v1/executions"))["items"] == []
    assert (await api.ok("GET", "/v1/schedules/nightly"))["refusal"].startswith("namespace/deleting")
    await erased(api, job_id)
    await api.refused("GET", "/v1/schedules/nightly", "not-found")


@pytest.mark.parametrize("times", range(5))
async def test_starts_and_a_deletion_at_once_leave_no_execution_behind(api: Api, times: int) -> None:
    """Either the deletion sees them, or they see the deletion."""
    await made(api, "blue")
    await asyncio.sleep(0)
    start = {"workflow_id": "wf", "namespace": "blue"}
    starts = [api.http.post("/v1/executions", json=start) for _ in range(12)]
    answers = await asyncio.gather(*starts[: times * 3], api.http.delete("/v1/namespaces/blue"), *starts[times * 3 :])
    codes = sorted(answer.status_code for answer in answers)
    running = (await api.ok("GET", "/v1/executions?namespace=blue"))["items"]
    assert len(running) == codes.count(201)
    assert (codes.count(202) == 1) is (running == []), codes


async def test_nothing_is_triggered_or_reset_in_a_namespace_that_is_being_deleted(api: Api) -> None:
    await api.ok("POST", "/v1/namespaces", json={"name": "leaving"})
    run = await started(api, namespace="leaving")
    await api.ok("POST", f"/v1/executions/{run}/terminate", json={})
    plan = {
        "schedule_id": "plan", "namespace": "leaving", "spec": {"every_ms": 60_000},
        "action": {"workflow_type": "order", "task_queue": "flows"},
    }  # fmt: skip
    await api.ok("POST", "/v1/schedules", json=plan)
    await api.ok("DELETE", "/v1/namespaces/leaving")
    for path, body in (("schedules/plan/trigger", {}), (f"executions/{run}/reset", {"to_sequence": 1})):
        await api.refused("POST", f"/v1/{path}", "namespace/deleting", json=body)
