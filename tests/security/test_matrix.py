"""Every operation with every kind of caller: the role table of the specification, written out once more.

The table here is on purpose not the one of `service.kernel.principal`: what a role may do is said twice, and the two
must agree. An operation without a row fails, so no route comes into being without somebody saying who may call it.
"""

import asyncio
import json
import re
from typing import Any

import httpx
import pytest

from service import capabilities
from service.tokens.secret import mint

ROLES = ("owner", "operator", "developer", "worker", "reviewer", "viewer", "auditor", "admin", "scheduler")
ROWS = {
    "read": "owner operator developer reviewer viewer",
    "read work": "owner operator developer reviewer viewer worker",  # a worker its own items, by queue
    "write": "owner operator developer",
    "operate": "owner operator",
    "work": "owner developer worker",
    "write, or work under a lease": "owner operator developer worker",
    "operate, or work under a lease": "owner operator developer worker",
    "answer": "owner operator reviewer",
    "tokens": "owner admin",
    "own token": " ".join(ROLES),
    "audit": "owner auditor admin",
    "own tenant": "owner admin",
    "own tenant's rows": "owner",
    "namespaces": "owner",
    "tenants": "admin",
    "jobs": "owner operator admin",  # a redrive is an operator's, the deletion of a tenant the administrator's
    "time": "admin scheduler",
    "public": "",
}
ROW_OF = {
    **dict.fromkeys(["createTenant", "listTenants", "updateTenant", "deleteTenant"], "tenants"),
    **dict.fromkeys(["beginImport", "writeImportPart", "finishImport", "abandonImport"], "tenants"),
    **dict.fromkeys(["getTenant", "getUsage"], "own tenant"),
    "exportTenant": "own tenant's rows",
    **dict.fromkeys(["mintToken", "listTokens", "getToken", "rotateToken", "revokeToken"], "tokens"),
    **dict.fromkeys(["getOwnToken", "revokeOwnToken"], "own token"),
    **dict.fromkeys(["storeDefinition", "deleteDefinition"], "write"),
    **dict.fromkeys(["getDefinition", "getLatestDefinition", "listDefinitions", "validateDefinition"], "read"),
    **dict.fromkeys(["startExecution", "startExecutions", "setExecutionStatus", "replaceState"], "write"),
    **dict.fromkeys(["mergeState", "appendState", "setAttributes", "appendEvents", "writeSnapshot"], "write"),
    **dict.fromkeys(["listExecutions", "getExecution", "getEvents", "latestSequence", "tailEvents"], "read"),
    **dict.fromkeys(["readFeed", "latestSnapshot", "listSnapshots", "verifySnapshots"], "read"),
    **dict.fromkeys(["transition", "transitionBatch"], "write, or work under a lease"),
    **dict.fromkeys(["enqueueWork", "enqueueWorkItems"], "write"),
    **dict.fromkeys(["claimWork", "renewLease", "renewLeases", "completeWork", "completeWorkItems"], "work"),
    **dict.fromkeys(["failWork", "releaseWork"], "work"),
    **dict.fromkeys(["claimWorkflowTasks", "submitCommands", "submitWorkflowTasks"], "work"),
    **dict.fromkeys(["renewWorkflowTask", "claimActivities", "completeActivity", "completeActivities"], "work"),
    **dict.fromkeys(["failActivity", "heartbeatActivity"], "work"),
    **dict.fromkeys(["scheduleActivity", "scheduleTimer", "sendSignal", "signalWithStart"], "write"),
    **dict.fromkeys(["startChild", "continueExecution", "completeExecution", "failExecution"], "write"),
    **dict.fromkeys(["listChildren", "listChain", "getOutcome"], "read"),
    "resetExecution": "operate",
    **dict.fromkeys(["createSchedule", "changeSchedule", "deleteSchedule", "pauseSchedule"], "write"),
    **dict.fromkeys(["resumeSchedule", "triggerSchedule", "backfillSchedule"], "write"),
    **dict.fromkeys(["listSchedules", "getSchedule", "nextTimes"], "read"),
    **dict.fromkeys(["createNamespace", "deleteNamespace"], "namespaces"),
    **dict.fromkeys(["listNamespaces", "getNamespace", "getNamespaceStats", "listWorkers"], "read"),
    **dict.fromkeys(["registerWorker", "heartbeatWorker"], "work"),
    "getWorker": "read work",
    **dict.fromkeys(["cancelExecution", "terminateExecution"], "operate"),
    "deadLetterWork": "operate, or work under a lease",
    **dict.fromkeys(["listWorkItems", "listDeadLetters", "getDeadLetter", "listQueues"], "read"),
    **dict.fromkeys(["getWorkItem", "getActivity"], "read work"),
    **dict.fromkeys(["requeueDeadLetter", "discardDeadLetter", "redriveDeadLetters"], "operate"),
    **dict.fromkeys(["pauseQueue", "resumeQueue"], "operate"),
    "reclaimLeases": "time",
    **dict.fromkeys(["getSweeper", "getMetrics"], "time"),
    **dict.fromkeys(["listAudit", "exportAudit", "verifyAudit"], "audit"),
    **dict.fromkeys(["getJob", "cancelJob"], "jobs"),
    **dict.fromkeys(["revokeExposedToken", "health", "ready", "version"], "public"),
    **dict.fromkeys(["getContract", "getDocs", "getPagePart", "getProblem", "getPlainProblem"], "public"),
}
OPERATIONS = {endpoint.operation: endpoint for endpoint in capabilities.endpoints()}
PRIVATE = [name for name in OPERATIONS if ROW_OF.get(name) != "public"]
STRANGER = mint("tenant")[0]
JSON = {"content-type": "application/json"}
READS = [name for name in OPERATIONS if ROW_OF.get(name) in ("read", "read work", "own tenant's rows")]


def path_of(operation: str) -> str:
    """The operation's path with parts that name nothing."""
    path = OPERATIONS[operation].path.replace("{sequence}", "1")
    return re.sub(r"\{\w+\}", "nothing", path)


async def send(client: httpx.AsyncClient, operation: str, **more: Any) -> httpx.Response:
    """The operation on things that do not exist, without a body: whoever may do it meets another refusal, or none."""
    return await client.request(OPERATIONS[operation].method, path_of(operation), **more)


@pytest.fixture(scope="session")
async def callers(service: Any) -> dict[str, httpx.AsyncClient]:
    """A client for each role: the tenant's and the system's."""
    api = await service.tenant()
    found = {role: await api.as_role(role) for role in ROLES if role not in ("admin", "scheduler")}
    scheduler = await service.token("", "scheduler")
    return found | {
        "admin": service.client(service.admin),
        "scheduler": service.client(scheduler),
        "none": service.client(None),
    }


def code(answer: httpx.Response) -> Any:
    """The code of a problem, None for any other answer."""
    return answer.json()["code"] if answer.headers["content-type"] == "application/problem+json" else None


def test_every_operation_has_a_row_and_every_row_an_operation() -> None:
    assert set(OPERATIONS) - set(ROW_OF) == set(), "say in ROW_OF who may call these"
    assert set(ROW_OF) - set(OPERATIONS) == set(), "these are no operations any more"


@pytest.mark.parametrize("operation", PRIVATE)
async def test_nobody_without_a_token_gets_in(operation: str, callers: dict[str, httpx.AsyncClient]) -> None:
    answer = await send(callers["none"], operation)
    assert (answer.status_code, code(answer)) == (401, "auth/missing")
    assert answer.headers["www-authenticate"] == 'Bearer realm="holdfast"'


@pytest.mark.parametrize("operation", PRIVATE)
async def test_a_header_that_cannot_be_read_is_malformed(operation: str, callers: dict[str, httpx.AsyncClient]) -> None:
    for header in ("", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", STRANGER):
        answer = await send(callers["none"], operation, headers={"authorization": header})
        assert (answer.status_code, code(answer)) == (400, "auth/malformed"), header
        assert 'error="invalid_request"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize("operation", PRIVATE)
async def test_a_token_that_is_not_ours_is_invalid(operation: str, callers: dict[str, httpx.AsyncClient]) -> None:
    answers = [
        await send(callers["none"], operation, headers={"authorization": f"Bearer {token}"})
        for token in (STRANGER, mint("system")[0], STRANGER[:-1] + "x", "nonsense")
    ]
    assert {(answer.status_code, code(answer)) for answer in answers} == {(401, "auth/invalid")}
    assert len({answer.content for answer in answers}) == 1
    assert 'error="invalid_token"' in answers[0].headers["www-authenticate"]


@pytest.mark.parametrize("operation", PRIVATE)
async def test_a_role_may_do_what_its_row_says_and_nothing_else(
    operation: str, callers: dict[str, httpx.AsyncClient], service: Any
) -> None:
    allowed = ROWS[ROW_OF[operation]].split()
    for role in ROLES:
        client = callers[role]
        if operation == "revokeOwnToken":  # it would end the caller
            tenant = "" if role in ("admin", "scheduler") else "default"
            client = service.client(await service.token(tenant, role))
        answer = await send(client, operation)
        if role in allowed:
            assert answer.status_code not in (401, 403), f"{role}: {answer.text}"
            assert answer.status_code < 500, answer.text
        else:
            assert (answer.status_code, code(answer)) == (403, "auth/forbidden"), f"{role}: {answer.text}"
            assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize("operation", [name for name in OPERATIONS if ROW_OF.get(name) == "public"])
async def test_a_public_operation_asks_for_no_token(operation: str, callers: dict[str, httpx.AsyncClient]) -> None:
    for header in ({}, {"authorization": "Basic x"}, {"authorization": f"Bearer {STRANGER}"}):
        assert (await send(callers["none"], operation, headers=header)).status_code not in (401, 403)


# ── an administrator who names a tenant ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("operation", PRIVATE)
async def test_support_names_a_tenant_and_a_reason_and_only_reads(operation: str, service: Any, api: Any) -> None:
    named = {"holdfast-tenant": api.tenant, "holdfast-reason": "ticket 7"}
    answer = await send(api.admin, operation, headers=named)
    if operation in READS:
        assert answer.status_code not in (401, 403), answer.text
    else:
        assert (answer.status_code, code(answer)) == (403, "auth/forbidden")


async def test_support_sees_the_tenant_that_it_names(api: Any) -> None:
    started = await api.start()
    named = {"holdfast-tenant": api.tenant, "holdfast-reason": "ticket 7"}
    seen = await api.admin.get("/v1/executions", headers=named)
    assert [one["execution_id"] for one in seen.json()["items"]] == [started["execution_id"]]


async def test_support_without_a_reason_reads_nothing(api: Any) -> None:
    for reason in ({}, {"holdfast-reason": ""}, {"holdfast-reason": "  "}):
        answer = await api.admin.get("/v1/executions", headers={"holdfast-tenant": api.tenant} | reason)
        assert (answer.status_code, code(answer)) == (403, "auth/forbidden")


async def test_a_role_that_may_not_is_told_which_may_and_an_administrator_how_to_read(api: Any) -> None:
    told = (await api.admin.get("/v1/executions")).json()["detail"]
    assert "held by: owner, operator, developer, reviewer, viewer. An administrator names the tenant in Holdf" in told
    assert (await api.http.get("/v1/tenants")).json()["detail"].endswith("needs; it is held by: admin.")


async def test_nobody_else_may_name_a_tenant(api: Any, other: Any, callers: dict[str, httpx.AsyncClient]) -> None:
    for role in set(ROLES) - {"admin"}:
        for tenant in (api.tenant, other.tenant, "nothing"):
            named = {"holdfast-tenant": tenant, "holdfast-reason": "curiosity"}
            answer = await callers[role].get("/v1/executions", headers=named)
            assert (answer.status_code, code(answer)) == (403, "auth/forbidden")


async def test_support_of_a_tenant_that_does_not_exist_finds_nothing(api: Any) -> None:
    answer = await api.admin.get("/v1/executions", headers={"holdfast-tenant": "nothing", "holdfast-reason": "x"})
    assert (answer.status_code, code(answer)) == (404, "not-found")
    for name in ("", "NO", "a b", "a" * 64, "é", "\x00"):
        named = [(b"holdfast-tenant", name.encode()), (b"holdfast-reason", b"x")]
        answer = await api.admin.get("/v1/executions", headers=named)
        assert (answer.status_code, code(answer)) == (400, "request/malformed"), name


# ── where one operation serves two rows ────────────────────────────────────────────────────────────────────────────


async def leased(api: Any) -> tuple[str, dict[str, Any]]:
    """An execution with a claimed item, and the item's lease."""
    started = await api.start(start={"queue": "q"})
    (item,) = await api.claim("q")
    return started["execution_id"], {"work_item_id": item["id"], "epoch": item["epoch"]}


@pytest.mark.parametrize("role", ROLES[:7])
async def test_a_transition_without_a_lease_is_for_those_who_write(role: str, api: Any) -> None:
    execution, _ = await leased(api)
    body = {"changes": [{"type": "append", "kind": "noted"}]}
    client = await api.as_role(role)
    alone = await client.post(f"/v1/executions/{execution}/transitions", json=body)
    batch = await client.post("/v1/transitions:batch", json=[body | {"execution_id": execution}])
    if role in ROWS["write"].split():
        assert alone.status_code == 200, alone.text
        assert "ok" in batch.json()["results"][0]
    else:
        assert (alone.status_code, code(alone)) == (403, "auth/forbidden")
        assert "auth/forbidden" in batch.text
        assert len(await api.events(execution)) == 1


@pytest.mark.parametrize("role", ROLES[:7])
async def test_a_transition_under_a_lease_is_for_those_who_work(role: str, api: Any) -> None:
    execution, lease = await leased(api)
    body = {"lease": lease, "changes": [{"type": "append", "kind": "noted"}]}
    answer = await (await api.as_role(role)).post(f"/v1/executions/{execution}/transitions", json=body)
    if role in ROWS["work"].split():
        assert answer.status_code == 200, answer.text
    else:
        assert (answer.status_code, code(answer)) == (403, "auth/forbidden")
        assert len(await api.events(execution)) == 1


@pytest.mark.parametrize("role", ROLES[:7])
async def test_a_holder_or_an_operator_gives_an_item_up(role: str, api: Any) -> None:
    client, error = await api.as_role(role), {"type": "broken"}
    _, lease = await leased(api)
    path = f"/v1/work-items/{lease['work_item_id']}/dead-letter"
    without = await client.post(path, json={"error": error})
    assert (without.status_code == 200) is (role in ROWS["operate"].split()), without.text
    _, lease = await leased(api)
    path = f"/v1/work-items/{lease['work_item_id']}/dead-letter"
    with_it = await client.post(path, json={"error": error, "epoch": lease["epoch"]})
    assert (with_it.status_code == 200) is (role in ROWS["work"].split()), with_it.text
    assert {code(answer) for answer in (without, with_it)} <= {None, "auth/forbidden"}


@pytest.mark.parametrize("role", ROLES[:7])
@pytest.mark.parametrize("status", ["cancelled", "terminated", "paused"])
async def test_only_operators_cancel_terminate_and_pause(role: str, status: str, api: Any) -> None:
    client = await api.as_role(role)
    for path, body in (
        ("status", {"status": status}),
        ("transitions", {"changes": [{"type": "set_status", "status": status}]}),
    ):
        execution = (await api.start())["execution_id"]
        answer = await client.post(f"/v1/executions/{execution}/{path}", json=body)
        assert (answer.status_code == 200) is (role in ROWS["operate"].split()), answer.text
        if answer.status_code != 200:
            assert (answer.status_code, code(answer)) == (403, "auth/forbidden")
            assert (await api.ok("GET", f"/v1/executions/{execution}"))["status"] == "running"


@pytest.mark.parametrize("role", ROLES[:7])
async def test_only_operators_resume(role: str, api: Any) -> None:
    execution = (await api.start())["execution_id"]
    await api.ok("POST", f"/v1/executions/{execution}/status", json={"status": "paused"})
    client = await api.as_role(role)
    answer = await client.post(f"/v1/executions/{execution}/status", json={"status": "running"})
    assert (answer.status_code == 200) is (role in ROWS["operate"].split()), answer.text


async def test_a_worker_cannot_end_an_execution_as_an_operator_under_its_lease(api: Any) -> None:
    execution, lease = await leased(api)
    worker = await api.as_role("worker")
    for status in ("cancelled", "terminated", "paused"):
        body = {"lease": lease, "changes": [{"type": "set_status", "status": status}]}
        answer = await worker.post(f"/v1/executions/{execution}/transitions", json=body)
        assert (answer.status_code, code(answer)) == (403, "auth/forbidden")


# ── a tenant that may only be read ─────────────────────────────────────────────────────────────────────────────────


async def test_a_suspended_tenant_is_read_and_not_written(api: Any) -> None:
    execution, lease = await leased(api)
    await api.admin.patch(f"/v1/tenants/{api.tenant}", json={"status": "suspended"})
    assert (await api.ok("GET", f"/v1/executions/{execution}"))["status"] == "running"
    item = f"/v1/work-items/{lease['work_item_id']}"
    writes: list[tuple[str, str, Any]] = [
        ("POST", "/v1/executions", {"workflow_id": "wf"}),
        ("POST", "/v1/work-items", {"queue": "q"}),
        ("POST", "/v1/work-items:claim", {"worker_id": "w", "queues": ["q"]}),
        ("POST", f"{item}/complete", {"epoch": lease["epoch"]}),
        ("POST", f"{item}/renew", {"epoch": lease["epoch"]}),
        ("PUT", f"/v1/executions/{execution}/state", {"a": 1}),
        ("POST", f"/v1/executions/{execution}/transitions", {"changes": [{"type": "append", "kind": "x"}]}),
        ("POST", "/v1/tokens", {"name": "more", "role": "viewer"}),
        ("PUT", "/v1/definitions/w/1?validate=false", {"a": 1}),
        ("POST", "/v1/queues/q/pause", {}),
    ]
    for method, path, body in writes:
        await api.refused(method, path, "tenant/suspended", content=json.dumps(body), headers=JSON)
    assert len(await api.events(execution)) == 1


async def test_reads_of_a_suspended_tenant_are_those_of_any_other(api: Any) -> None:
    await api.admin.patch(f"/v1/tenants/{api.tenant}", json={"status": "suspended"})
    answers = await asyncio.gather(*(send(api.http, name) for name in READS))
    assert {answer.status_code for answer in answers} <= {200, 400, 404}
