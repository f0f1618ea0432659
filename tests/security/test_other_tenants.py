"""One tenant never sees, touches or infers another: every operation that names an object, tried from next door.

For each such operation the object is made in tenant A and named by the owner of tenant B. The answer must be the one
for an id that was never given out, byte for byte, and nothing of A may have changed.
"""

import asyncio
from typing import Any

import httpx
import pytest

from service import capabilities
from tests.activities.hands import claimed
from tests.runs.engine import started, tasks

Two = tuple[Any, Any, dict[str, str]]
"""Tenants A and B, and the ids of A's things."""
OPERATIONS = {endpoint.operation: endpoint for endpoint in capabilities.endpoints()}
NAMING = [name for name, endpoint in OPERATIONS.items() if "{" in endpoint.path]
ERROR = {"type": "broken"}
CHANGES = {"changes": [{"type": "append", "kind": "noted"}]}

# operation → (which of A's objects it names, the body it takes)
NAMED: dict[str, tuple[str, Any]] = {
    "getTenant": ("tenant", None),
    "getUsage": ("tenant", None),
    "exportTenant": ("tenant", None),
    "getToken": ("token", None),
    "rotateToken": ("token", {"grace_seconds": 0}),
    "revokeToken": ("token", None),
    "getDefinition": ("definition", None),
    "getLatestDefinition": ("definition", None),
    "deleteDefinition": ("definition", None),
    "getExecution": ("execution", None),
    "setExecutionStatus": ("execution", {"status": "cancelled"}),
    "replaceState": ("execution", {"theirs": True}),
    "mergeState": ("execution", {"theirs": True}),
    "appendState": ("execution", {"path": "/list", "value": 1}),
    "setAttributes": ("execution", {"labels": {"a": "theirs"}, "attributes": {"b": 1}}),
    "appendEvents": ("execution", {"events": [{"kind": "theirs"}]}),
    "getEvents": ("execution", None),
    "latestSequence": ("execution", None),
    "tailEvents": ("execution", None),
    "writeSnapshot": ("execution", None),
    "latestSnapshot": ("execution", None),
    "listSnapshots": ("execution", None),
    "verifySnapshots": ("execution", None),
    "transition": ("execution", CHANGES),
    "scheduleActivity": ("run", {"seq": 1, "name": "theirs", "task_queue": "theirs"}),
    "getActivity": ("activity", None),
    "completeActivity": ("activity", {"epoch": 1}),
    "failActivity": ("activity", {"epoch": 1, "error": ERROR}),
    "heartbeatActivity": ("activity", {"epoch": 1}),
    "scheduleTimer": ("run", {"seq": 1, "duration_ms": 1}),
    "sendSignal": ("run", {"payload": "theirs"}),
    "startChild": ("run", {"child": {"type": "StartChildWorkflow", "seq": 1, "workflow_type": "theirs"}}),
    "listChildren": ("run", None),
    "continueExecution": ("run", {}),
    "resetExecution": ("run", {"to_sequence": 1}),
    "listChain": ("run", None),
    "getOutcome": ("run", None),
    "getSchedule": ("schedule", None),
    "nextTimes": ("schedule", None),
    "changeSchedule": ("schedule", {"overlap": "allow_all"}),
    "deleteSchedule": ("schedule", None),
    "pauseSchedule": ("schedule", {"note": "theirs"}),
    "resumeSchedule": ("schedule", {}),
    "triggerSchedule": ("schedule", {}),
    "backfillSchedule": ("schedule", {"from": 0, "to": 1}),
    "getNamespace": ("namespace", None),
    "getNamespaceStats": ("namespace", None),
    "deleteNamespace": ("namespace", None),
    "getWorker": ("worker", None),
    "heartbeatWorker": ("worker", None),
    "cancelExecution": ("execution", {}),
    "terminateExecution": ("execution", {}),
    "completeExecution": ("execution", {}),
    "failExecution": ("execution", {"error": {"type": "boom"}}),
    "submitCommands": ("task", {"epoch": 1, "history_sequence": 0}),
    "renewWorkflowTask": ("task", {"epoch": 1}),
    "getWorkItem": ("leased", None),
    "renewLease": ("leased", {"epoch": 1}),
    "completeWork": ("leased", {"epoch": 1}),
    "failWork": ("leased", {"epoch": 1, "error": ERROR}),
    "releaseWork": ("leased", {"epoch": 1}),
    "deadLetterWork": ("leased", {"error": ERROR}),
    "getDeadLetter": ("dead", None),
    "requeueDeadLetter": ("dead", {}),
    "discardDeadLetter": ("dead", None),
    "getJob": ("job", None),
    "cancelJob": ("job", None),
}
# These name what the caller makes by naming it: B gets, or changes, one of its own.
OWN = {"storeDefinition", "pauseQueue", "resumeQueue", "registerWorker"}
# These belong to the system's administrator; a tenant's owner is refused before anything is looked up.
ADMINISTRATORS = {
    "updateTenant", "deleteTenant", "writeImportPart", "finishImport", "abandonImport",
}  # fmt: skip
# These are the service's own pages, the same for everybody.
PAGES = {"getPagePart", "getProblem", "getPlainProblem"}
WRITTEN = [name for name in NAMED if NAMED[name][0] != "job"]


def path_of(operation: str, name: str) -> str:
    """The operation's path, every part of which that names an object is `name`."""
    path: str = OPERATIONS[operation].path
    return path.format(id=name, workflow_id=name, version="1", sequence="1", name=name)


async def send(client: httpx.AsyncClient, operation: str, name: str, body: Any) -> httpx.Response:
    return await client.request(OPERATIONS[operation].method, path_of(operation, name), json=body)


async def furnished(api: Any) -> dict[str, str]:
    """A tenant with one of everything; the ids by kind."""
    mark = api.tenant
    execution, item = f"run-{mark}", f"item-{mark}"
    await api.ok("PUT", f"/v1/definitions/wf-{mark}/1?validate=false", json={"steps": [1]})
    await api.start(execution_id=execution, workflow_id=f"wf-{mark}", version="1", state={"list": [1]})
    await api.ok(
        "POST", f"/v1/executions/{execution}/events", json={"events": [{"kind": "noted", "body": "secret of A"}]}
    )
    await api.ok("PUT", f"/v1/executions/{execution}/snapshots/1")
    for name in (item, f"dead-{mark}", f"open-{mark}"):
        await api.ok(
            "POST", "/v1/work-items", json={"id": name, "queue": name, "execution_id": execution, "payload": "A"}
        )
    await api.claim(item)
    await api.ok("POST", f"/v1/work-items/dead-{mark}/dead-letter", json={"error": ERROR})
    run = await started(api, execution_id=f"flow-{mark}")
    (task,) = await tasks(api)
    asked = {"seq": 0, "name": "charge", "task_queue": f"pay-{mark}"}
    await api.ok("POST", f"/v1/executions/{run}/activities", json=asked)
    (activity,) = await claimed(api, queues=[f"pay-{mark}"])
    schedule = {
        "schedule_id": f"plan-{mark}",
        "spec": {"cron": "0 3 * * *"},
        "action": {"workflow_type": "night", "task_queue": "flows"},
    }
    await api.ok("POST", "/v1/schedules", json=schedule)
    token = (await api.ok("POST", "/v1/tokens", json={"name": "second", "role": "viewer"}))["token"]["id"]
    await api.ok("POST", "/v1/queues/paused/pause")
    await api.ok("POST", "/v1/namespaces", json={"name": f"part-{mark}"})
    await api.ok("PUT", f"/v1/workers/worker-{mark}", json={"queues": ["flows"]})
    gone = (await api.service.tenant()).tenant
    job = (await api.admin.delete(f"/v1/tenants/{gone}")).json()["job_id"]
    return {
        "tenant": mark, "token": token, "definition": f"wf-{mark}", "execution": execution, "leased": item,
        "dead": f"dead-{mark}", "open": f"open-{mark}", "job": job,
        "run": run, "task": task["task_id"], "schedule": f"plan-{mark}", "activity": activity["id"],
        "namespace": f"part-{mark}", "worker": f"worker-{mark}",
    }  # fmt: skip


async def picture(api: Any, ids: dict[str, str]) -> list[Any]:
    """Everything that A can see of itself."""
    paths = ["executions", "events", "work-items", "dead-letters", "queues", "tokens", "definitions", "audit"]
    paths += ["schedules", "namespaces", "workers"]
    seen = [await api.ok("GET", f"/v1/{path}") for path in paths]
    seen.append(await api.ok("GET", f"/v1/executions/{ids['execution']}"))
    seen.append(await api.ok("GET", f"/v1/executions/{ids['execution']}/snapshots"))
    seen.append(await api.ok("GET", f"/v1/tenants/{api.tenant}/usage"))
    return [{key: value for key, value in one.items() if key != "next_cursor"} for one in seen]


@pytest.fixture(scope="session")
async def two(service: Any) -> Two:
    """Tenant A with one of everything, tenant B with nothing, and A's ids."""
    a, b = await service.tenant(), await service.tenant()
    return a, b, await furnished(a)


def test_every_operation_that_names_an_object_is_tried() -> None:
    tried = {*NAMED, *OWN, *ADMINISTRATORS, *PAGES}
    assert set(NAMING) - tried == set(), "say in NAMED what these name"
    assert tried - set(NAMING) == set(), "these name nothing any more"


@pytest.mark.parametrize("operation", NAMED)
async def test_what_is_another_tenants_is_not_there(operation: str, two: Two) -> None:
    a, b, ids = two
    kind, body = NAMED[operation]
    before, name = await picture(a, ids), ids[kind]
    missing = "".join("0" if letter.isalnum() else letter for letter in name)
    theirs, nothing = await send(b.http, operation, name, body), await send(b.http, operation, missing, body)
    assert theirs.status_code == 404, theirs.text
    assert theirs.content.replace(name.encode(), missing.encode()) == nothing.content
    assert theirs.headers == nothing.headers
    assert theirs.json()["code"] == "not-found"
    assert await picture(a, ids) == before


@pytest.mark.parametrize("operation", WRITTEN)
async def test_the_same_request_finds_it_at_home(operation: str, service: Any, two: Two) -> None:
    """Otherwise the 404s above would prove nothing. What only reads may ask the tenant that is there for all."""
    if operation == "tailEvents":
        return  # it would follow the log for ever
    reads = OPERATIONS[operation].method == "GET" and operation != "exportTenant"
    a = two[0] if reads else await service.tenant()
    ids = two[2] if reads else await furnished(a)
    kind, body = NAMED[operation]
    answer = await send(a.http, operation, ids[kind], body)
    assert answer.status_code not in (400, 403, 404, 405, 422), answer.text


@pytest.mark.parametrize("operation", sorted(ADMINISTRATORS))
async def test_what_is_the_administrators_is_refused_alike(operation: str, two: Two) -> None:
    a, b, ids = two
    before = await picture(a, ids)
    theirs = await send(b.http, operation, a.tenant, {"name": "taken"})
    nothing = await send(b.http, operation, "nothing", {"name": "taken"})
    assert theirs.status_code == 403
    assert (theirs.content, theirs.headers) == (nothing.content, nothing.headers)
    assert await picture(a, ids) == before


async def test_what_is_made_by_its_name_is_ones_own(two: Two, service: Any) -> None:
    a, _, ids = two
    b, before = await service.tenant(), await picture(two[0], ids)
    stored = await b.http.put(f"/v1/definitions/{ids['definition']}/1?validate=false", json={"steps": "B's"})
    assert stored.status_code == 201, stored.text
    assert (await b.http.post(f"/v1/queues/{ids['open']}/pause")).status_code == 200
    assert (await b.http.post("/v1/queues/paused/resume")).json()["paused_at"] is None
    assert (await b.http.put(f"/v1/workers/{ids['worker']}", json={"queues": ["theirs"]})).status_code == 201
    assert await picture(a, ids) == before
    assert {queue["name"] for queue in (await b.ok("GET", "/v1/queues"))["items"]} <= {ids["open"], "paused", "theirs"}


# ── ids in bodies ──────────────────────────────────────────────────────────────────────────────────────────────────


async def one_result(b: Any, path: str, item: dict[str, Any]) -> Any:
    """The problem of the single item of a batch."""
    return (await b.ok("POST", path, json=[item]))["results"][0]["error"]


async def test_an_execution_named_in_a_body_is_not_there(two: Two) -> None:
    a, b, ids = two
    before, execution = await picture(a, ids), ids["execution"]
    for name in (execution, "0" * len(execution)):
        alone = await b.refused("POST", "/v1/work-items", "not-found", json={"execution_id": name})
        child = await b.refused("POST", "/v1/executions", "not-found", json={"workflow_id": "w", "parent_id": name})
        batched = await one_result(b, "/v1/work-items:batch", {"execution_id": name})
        moved = await one_result(b, "/v1/transitions:batch", CHANGES | {"execution_id": name})
        told = {one["detail"].replace(name, "?") for one in (alone, child, batched, moved)}
        assert told == {"There is no execution '?' here."}
    assert await picture(a, ids) == before
    assert (await b.ok("GET", "/v1/work-items"))["items"] == []


async def test_a_lease_named_in_a_body_is_not_there(two: Two, service: Any) -> None:
    a, _, ids = two
    b, before = await service.tenant(), await picture(two[0], ids)
    own = (await b.start())["execution_id"]
    told = []
    for name in (ids["leased"], "0" * len(ids["leased"])):
        lease = {"work_item_id": name, "epoch": 1}
        under = CHANGES | {"lease": lease}
        problems = [
            await b.refused("POST", f"/v1/executions/{own}/transitions", "not-found", json=under),
            await b.refused("POST", f"/v1/executions/{ids['execution']}/transitions", "not-found", json=under),
            await one_result(b, "/v1/transitions:batch", under),
            await one_result(b, "/v1/transitions:batch", under | {"execution_id": ids["execution"]}),
            await one_result(b, "/v1/work-items:complete", {"id": name, "epoch": 1}),
            await one_result(b, "/v1/leases:renew", {"id": name, "epoch": 1}),
            await one_result(b, "/v1/activities:complete", {"id": name, "epoch": 1}),
            await one_result(b, "/v1/workflow-tasks:submit", {"id": name, "epoch": 1, "history_sequence": 1}),
        ]
        told.append([one["detail"].replace(name, "?") for one in problems])
    assert told[0] == told[1]
    assert await picture(a, ids) == before
    assert len(await b.events(own)) == 1


async def test_items_of_another_tenant_cannot_be_cancelled_by_id(two: Two) -> None:
    a, b, ids = two
    before, own = await picture(a, ids), (await b.start())["execution_id"]
    cancel = {"changes": [{"type": "cancel_items", "ids": [ids["open"], ids["leased"]]}, {"type": "cancel_items"}]}
    await b.ok("POST", f"/v1/executions/{own}/transitions", json=cancel)
    assert await picture(a, ids) == before


async def test_a_definition_of_another_tenant_cannot_be_run(two: Two) -> None:
    _, b, ids = two
    for version in ("1", "latest"):
        await b.refused(
            "POST", "/v1/executions", "not-found", json={"workflow_id": ids["definition"], "version": version}
        )


async def test_an_id_that_is_taken_next_door_is_free_here(two: Two, service: Any) -> None:
    a, _, ids = two
    b, before = await service.tenant(), await picture(two[0], ids)
    started = await b.start(execution_id=ids["execution"], workflow_id="other")
    assert started["created"] is True
    made = await b.ok("POST", "/v1/work-items", json={"id": ids["open"], "queue": "mine", "dedup_key": "k"})
    assert made["created"] is True
    await b.ok("POST", f"/v1/executions/{ids['execution']}/status", json={"status": "cancelled"})
    assert await picture(a, ids) == before


async def test_a_dedup_key_of_another_tenant_means_nothing(two: Two, service: Any) -> None:
    a, b = two[0], await service.tenant()
    first = await a.ok("POST", "/v1/work-items", json={"queue": "dedup", "dedup_key": "same"})
    second = await b.ok("POST", "/v1/work-items", json={"queue": "dedup", "dedup_key": "same"})
    assert (second["created"], second["id"] == first["id"]) == (True, False)
    await a.ok("POST", f"/v1/work-items/{first['id']}/dead-letter", json={"error": ERROR})
    await a.ok("DELETE", f"/v1/dead-letters/{first['id']}")


async def test_tokens_are_minted_and_listed_for_ones_own_tenant_only(two: Two) -> None:
    a, b, ids = two
    before, token = await picture(a, ids), ids["token"]
    await b.refused("POST", "/v1/tokens", "auth/forbidden", json={"name": "x", "role": "viewer", "tenant_id": a.tenant})
    await b.refused("POST", "/v1/tokens", "auth/forbidden", json={"name": "x", "role": "admin"})
    for tenant in (a.tenant, "system", "nothing"):
        at = f"tenant_id={tenant}"
        await b.refused("GET", f"/v1/tokens?{at}", "auth/forbidden")
        await b.refused("GET", f"/v1/tokens/{token}?{at}", "auth/forbidden")
        await b.refused("DELETE", f"/v1/tokens/{token}?{at}", "auth/forbidden")
        await b.refused("POST", f"/v1/tokens/{token}/rotate?{at}", "auth/forbidden", json={})
    assert await picture(a, ids) == before


# ── lists, feeds, cursors ──────────────────────────────────────────────────────────────────────────────────────────


LISTS = {
    "listTokens": "/v1/tokens",
    "listDefinitions": "/v1/definitions",
    "listExecutions": "/v1/executions",
    "readFeed": "/v1/events",
    "listSnapshots": None,  # named by an execution, tried above
    "listWorkItems": "/v1/work-items",
    "listDeadLetters": "/v1/dead-letters",
    "listQueues": "/v1/queues",
    "listAudit": "/v1/audit",
    "listSchedules": "/v1/schedules",
    "listNamespaces": "/v1/namespaces",
    "listWorkers": "/v1/workers",
    "listChain": None,  # as the snapshots
    "listChildren": None,
    "listTenants": None,  # the administrator's
}


def test_every_list_is_tried() -> None:
    found = {name for name, endpoint in OPERATIONS.items() if any(query.name == "limit" for query in endpoint.query)}
    assert found - set(LISTS) - {"getEvents"} == set()


async def test_lists_show_nothing_of_another_tenant(two: Two, service: Any) -> None:
    a, _, ids = two
    b = await service.tenant()
    for path in filter(None, LISTS.values()):
        seen = (await b.http.get(path)).text
        for name in [*ids.values(), "secret of A"]:
            assert name not in seen, path
    for query in (
        f"parent_id={ids['execution']}",
        f"workflow_id={ids['definition']}",
        f"filter=id = '{ids['execution']}'",
    ):
        assert (await b.ok("GET", f"/v1/executions?{query}"))["items"] == []
    for query in (f"execution_id={ids['execution']}", f"queue={ids['open']}", f"filter=queue = '{ids['open']}'"):
        assert (await b.ok("GET", f"/v1/work-items?{query}"))["items"] == []
        assert (await b.ok("GET", f"/v1/dead-letters?{query}"))["items"] == []
    assert a.tenant not in (await b.http.get("/v1/tokens/self")).text


async def test_a_filter_cannot_reach_beyond_the_tenant(two: Two, service: Any) -> None:
    b = await service.tenant()
    mine = (await b.start())["execution_id"]
    for text in ("status = 'running' OR status != 'running'", "NOT status = 'failed'", "id >= ''"):
        found = await b.http.get("/v1/executions", params={"filter": text})
        assert [one["execution_id"] for one in found.json()["items"]] == [mine], text
    for text in (
        "tenant_id != ''",
        "e.tenant_id = 'x'",
        "1 = 1",
        "status = 'running') OR (1 = 1",
        "id = (SELECT id FROM executions)",
    ):
        await b.refused("GET", "/v1/executions", "request/filter", params={"filter": text})


@pytest.mark.parametrize("path", [path for path in LISTS.values() if path not in (None, "/v1/events")])
async def test_a_cursor_of_another_tenant_is_refused(path: str, service: Any) -> None:
    a, b = await service.tenant(), await service.tenant()
    for api in (a, b):
        for number in (1, 2):
            await api.start(execution_id=f"run-{number}")
            await api.ok("PUT", f"/v1/definitions/wf/{number}?validate=false", json={"n": number})
            await api.ok("POST", "/v1/work-items", json={"id": f"i{number}", "queue": f"q{number}"})
            await api.ok("POST", f"/v1/work-items/i{number}/dead-letter", json={"error": ERROR})
            await api.ok("POST", "/v1/tokens", json={"name": "x", "role": "viewer"})
            schedule = {"spec": {"every_ms": 60_000}, "action": {"workflow_type": "w", "task_queue": "q"}}
            await api.ok("POST", "/v1/schedules", json={"schedule_id": f"s{number}"} | schedule)
            await api.ok("POST", "/v1/namespaces", json={"name": f"n{number}"})
            await api.ok("PUT", f"/v1/workers/w{number}", json={"queues": ["q"]})
    cursor = (await a.ok("GET", f"{path}?limit=1"))["next_cursor"]
    assert (await a.ok("GET", f"{path}?limit=1&cursor={cursor}"))["items"]
    await b.refused("GET", f"{path}?limit=1&cursor={cursor}", "request/cursor")


async def test_a_place_in_the_feed_of_another_tenant_is_refused(two: Two) -> None:
    a, b, _ = two
    after = (await a.ok("GET", "/v1/events?limit=1"))["next_cursor"]
    await b.refused("GET", f"/v1/events?after={after}", "request/cursor")


# ── keys, claims ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_idempotency_key_of_another_tenant_means_nothing(two: Two, service: Any) -> None:
    a, b = await service.tenant(), await service.tenant()
    key = {"idempotency-key": "the same for both"}
    first = await a.http.post("/v1/executions", json={"workflow_id": "w", "input": "A's"}, headers=key)
    same = await b.http.post("/v1/executions", json={"workflow_id": "w", "input": "A's"}, headers=key)
    assert (first.status_code, same.status_code) == (201, 201)
    assert "idempotent-replayed" not in same.headers
    assert first.json()["execution_id"] != same.json()["execution_id"]
    c = await service.tenant()
    other = await c.http.post("/v1/executions", json={"workflow_id": "w", "input": "C's"}, headers=key)
    assert other.status_code == 201, "another body under A's key is no mismatch here"


async def test_claims_never_get_what_is_another_tenants(two: Two, service: Any) -> None:
    a, b = await service.tenant(), await service.tenant()
    for api in (a, b):
        for number in range(3):
            await api.ok(
                "POST", "/v1/work-items", json={"queue": f"q{number}", "payload": api.tenant, "priority": number}
            )
    got = await b.claim("*", "q0", "q1", max_items=1000)
    assert [item["payload"] for item in got] == [b.tenant] * 3
    assert await b.claim("*", max_items=1000) == []
    assert len(await a.claim("*", max_items=1000)) == 3


async def test_claims_that_share_a_batch_share_no_items(service: Any) -> None:
    """Claims of many tenants at once go to the store in one transaction."""
    tenants = [await service.tenant() for _ in range(4)]
    for api in tenants:
        await api.ok("POST", "/v1/work-items:batch", json=[{"queue": "q", "payload": api.tenant}] * 5)
    claimers = tenants * 3
    got = await asyncio.gather(*(api.claim("*", max_items=2) for api in claimers))
    for api, items in zip(claimers, got, strict=True):
        assert {item["payload"] for item in items} <= {api.tenant}
    assert sum(len(items) for items in got) == 20


async def test_a_pause_of_another_tenants_queue_stops_nobody_else(service: Any) -> None:
    a, b = await service.tenant(), await service.tenant()
    await a.ok("POST", "/v1/work-items", json={"queue": "q"})
    await b.ok("POST", "/v1/queues/q/pause")
    assert len(await a.claim("q")) == 1
