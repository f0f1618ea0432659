"""What administrators and tenants may rely on: made, changed, suspended, limited, deleted."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest

from backends.errors import TooSlow
from service.kernel.chain import trim
from service.kernel.gcra import Rate
from service.kernel.jobs import due
from service.kernel.slices import SharedRates
from service.tenants import sweeps
from service.tenants.model import IMPORT_JOB, LimitChanges, Limits
from service.tenants.rules import DELETE_JOB
from service.work import sweeps as work
from tests.conftest import Api, Clock, Service
from tests.runs.engine import started, submit, tasks
from tests.tidy import house
from tests.work.steps import QUICK, bury, enqueue, settle, shown


async def change(api: Api, **body: Any) -> Any:
    """Change the tenant as the administrator."""
    answer = await api.admin.patch(f"/v1/tenants/{api.tenant}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def code(answer: httpx.Response) -> tuple[int, str]:
    """The status and the code of a refusal."""
    return answer.status_code, answer.json()["code"]


async def test_a_tenant_is_made_once_and_read_back(service: Service, api: Api) -> None:
    admin, name = api.admin, f"{api.tenant}-two"
    body = {"id": name, "name": "Two", "policy": {"a": [1]}, "limits": {"tokens": 3}}
    made = await admin.post("/v1/tenants", json=body)
    assert made.status_code == 201
    found = (await admin.get(f"/v1/tenants/{name}")).json()
    assert found == made.json()
    assert (found["name"], found["status"], found["policy"], found["version"]) == ("Two", "active", {"a": [1]}, 1)
    assert (found["limits"]["tokens"], found["limits"]["definitions"]) == (3, None)
    assert code(await admin.post("/v1/tenants", json=body)) == (409, "tenant/exists")


@pytest.mark.parametrize("name", ["", "Upper", "with space", "a" * 64, "under_score", "ünicode", "a/b"])
async def test_an_id_that_is_no_slug_is_refused(api: Api, name: str) -> None:
    assert code(await api.admin.post("/v1/tenants", json={"id": name})) == (422, "request/invalid")


async def test_makers_of_one_tenant_at_once_make_one(api: Api) -> None:
    body = {"id": f"{api.tenant}-race"}
    answers = await asyncio.gather(*(api.admin.post("/v1/tenants", json=body) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 4


async def test_a_limit_that_is_not_named_stays_and_null_lifts_one(api: Api) -> None:
    await change(api, limits={"execution_days": 0, "requests_per_second": 500, "burst": 900})
    limits = (await change(api, limits={"requests_per_second": 50, "tokens": 9}))["limits"]
    named = {name: most for name, most in limits.items() if most is not None}
    assert named == {"execution_days": 0, "requests_per_second": 50, "burst": 900, "tokens": 9}
    problem = await api.admin.patch(f"/v1/tenants/{api.tenant}", json={"limits": {"requests_per_second": None}})
    assert (code(problem), problem.json()["errors"][0]["pointer"]) == ((422, "request/invalid"), "/limits/burst")
    limits = (await change(api, limits={"requests_per_second": None, "burst": None, "execution_days": None}))["limits"]
    assert {name for name, most in limits.items() if most is not None} == {"tokens"}


def test_every_limit_can_be_changed_by_itself() -> None:
    assert LimitChanges.__struct_fields__ == Limits.__struct_fields__
    assert LimitChanges().on(Limits(tokens=3)) == Limits(tokens=3)


async def test_a_change_replaces_what_is_given_and_nothing_else(api: Api, clock: Clock) -> None:
    await change(api, policy={"p": 1}, limits={"tokens": 9, "definitions": 0})
    clock.advance(5)
    changed = await change(api, name="New")
    assert (changed["name"], changed["policy"], changed["limits"]["tokens"], changed["limits"]["definitions"]) == (
        "New",
        {"p": 1},
        9,
        0,
    )
    assert (changed["version"], changed["updated_at"], changed["updated_at"] - changed["created_at"]) == (
        3,
        clock.now,
        5,
    )
    assert (await change(api, limits={}))["limits"]["tokens"] == 9
    assert (await change(api, policy=None))["policy"] is None


async def test_an_unknown_status_limit_or_field_is_refused(api: Api) -> None:
    path = f"/v1/tenants/{api.tenant}"
    for body in (
        {"status": "frozen"},
        {"status": "deleting"},
        {"limits": {"cows": 1}},
        {"limits": {"tokens": -1}},
        {"colour": 1},
    ):
        assert code(await api.admin.patch(path, json=body)) == (422, "request/invalid")
    idle = {"limits": {"burst": 5}}
    assert code(await api.admin.patch(path, json=idle)) == (422, "request/invalid")
    assert code(await api.admin.post("/v1/tenants", json={"id": "idle-burst"} | idle)) == (422, "request/invalid")
    assert code(await api.admin.patch("/v1/tenants/nobody-here", json={})) == (404, "not-found")


async def test_a_change_to_another_version_than_expected_is_refused(api: Api) -> None:
    path = f"/v1/tenants/{api.tenant}"
    await change(api, name="two", expected_version=1)
    answer = await api.admin.patch(path, json={"name": "three", "expected_version": 1})
    assert (code(answer), answer.json()["current_version"]) == ((412, "version/mismatch"), 2)
    assert code(await api.admin.patch(path, json={"name": "x"}, headers={"if-match": '"1"'})) == (
        412,
        "version/mismatch",
    )
    assert (await api.admin.patch(path, json={"name": "x"}, headers={"if-match": '"2"'})).status_code == 200
    for match in ("*", '"3', '""3"', 'W/"3"'):
        assert code(await api.admin.patch(path, json={}, headers={"if-match": match})) == (400, "request/malformed")
    answer = await api.admin.patch(path, json={"expected_version": 2}, headers={"if-match": '"3"'})
    assert code(answer) == (422, "request/invalid")


async def test_of_changes_at_once_from_one_version_one_wins(api: Api) -> None:
    path, body = f"/v1/tenants/{api.tenant}", {"expected_version": 1}
    answers = await asyncio.gather(*(api.admin.patch(path, json=body | {"name": f"n{n}"}) for n in range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 5


async def test_tenants_are_listed_in_pages_and_by_status(api: Api, other: Api) -> None:
    await change(other, status="suspended")
    names, cursor = [], None
    while True:
        query = {"limit": 50, **({"cursor": cursor} if cursor else {})}
        page = (await api.admin.get("/v1/tenants", params=query)).json()
        names += [tenant["id"] for tenant in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert names == sorted(set(names))
    assert {api.tenant, other.tenant, "default"} <= set(names)
    assert "" not in names
    suspended = (await api.admin.get("/v1/tenants?status=suspended&limit=1000")).json()["items"]
    assert other.tenant in [tenant["id"] for tenant in suspended]
    assert {tenant["status"] for tenant in suspended} == {"suspended"}
    assert code(await api.admin.get("/v1/tenants?status=frozen")) == (400, "request/malformed")


async def test_a_tenant_sees_itself_and_no_other(api: Api, other: Api) -> None:
    assert (await api.ok("GET", f"/v1/tenants/{api.tenant}"))["id"] == api.tenant
    for path in (f"/v1/tenants/{other.tenant}", f"/v1/tenants/{other.tenant}/usage", "/v1/tenants/nobody-here"):
        await api.refused("GET", path, "not-found")
    for method, path in (
        ("GET", "/v1/tenants"),
        ("POST", "/v1/tenants"),
        ("PATCH", f"/v1/tenants/{api.tenant}"),
        ("DELETE", f"/v1/tenants/{api.tenant}"),
    ):
        body = {"json": {}} if method in ("POST", "PATCH") else {}
        await api.refused(method, path, "auth/forbidden", **body)


# ── suspended, archived ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", ["suspended", "archived"])
async def test_a_tenant_that_is_not_active_is_read_and_not_changed(api: Api, clock: Clock, status: str) -> None:
    run = (await api.start(start={"queue": "q", "max_attempts": 9, "retry": QUICK}))["execution_id"]
    letter = await bury(api, "p")
    [held] = await api.claim("q", lease_ms=1_000)
    await enqueue(api)
    await change(api, status=status)
    refused: list[tuple[str, str, Any]] = [
        ("POST", "/v1/executions", {"workflow_id": "wf"}),
        ("POST", f"/v1/executions/{run}/events", {"events": [{"kind": "a"}]}),
        ("POST", f"/v1/executions/{run}/status", {"status": "cancelled"}),
        ("PUT", f"/v1/executions/{run}/state", {}),
        ("POST", "/v1/work-items", {"queue": "q"}),
        ("POST", "/v1/work-items:claim", {"worker_id": "w", "queues": ["q"]}),
        ("POST", "/v1/work-items:claim", {"worker_id": "w", "queues": ["q"], "wait_ms": 60_000}),
        ("POST", f"/v1/work-items/{held['id']}/renew", {"epoch": 1}),
        ("POST", f"/v1/work-items/{held['id']}/complete", {"epoch": 1}),
        ("POST", f"/v1/dead-letters/{letter}/requeue", {}),
        ("POST", "/v1/dead-letters:redrive", {}),
        ("POST", "/v1/queues/q/pause", {}),
        ("POST", "/v1/tokens", {"name": "n", "role": "viewer"}),
    ]
    for method, path, body in refused:
        problem = await api.refused(method, path, f"tenant/{status}", json=body)
        assert problem["status"] == 403, path
    for path in (
        f"/v1/executions/{run}",
        f"/v1/executions/{run}/events",
        "/v1/work-items",
        f"/v1/dead-letters/{letter}",
        "/v1/queues",
    ):
        await api.ok("GET", path)
    clock.advance(1_000)
    await work.reclaim(api.service.services)
    assert (await shown(api, held["id"]))["status"] == "ready"  # leases lapse as they always do
    await change(api, status="active")
    assert len(await api.claim("q", max_items=9)) == 2


async def test_another_tenant_goes_on_while_one_is_suspended(api: Api, other: Api) -> None:
    await change(api, status="suspended")
    body = {"workflow_id": "wf"}
    answers = await asyncio.gather(*(one.http.post("/v1/executions", json=body) for one in (api, other) * 10))
    assert [answer.status_code for answer in answers] == [403, 201] * 10


# ── limits ─────────────────────────────────────────────────────────────────────────────────────────────────────────

ADDING: dict[str, tuple[str, str, Any]] = {
    "running_executions": ("POST", "/v1/executions", {"workflow_id": "wf"}),
    "ready_work_items": ("POST", "/v1/work-items", {"queue": "q"}),
    "definitions": ("PUT", "/v1/definitions/wf{n}/1?validate=false", {"any": "thing"}),
    "tokens": ("POST", "/v1/tokens", {"name": "n", "role": "viewer"}),
    "namespaces": ("POST", "/v1/namespaces", {"name": "n{n}"}),
    "workers": ("PUT", "/v1/workers/w{n}", {"queues": ["q"]}),
}
"""For each counted limit, a request that adds one."""


async def add(api: Api, name: str, n: int = 0) -> httpx.Response:
    """Add one of what a limit counts; a token again as long as too many of them wait to be made."""
    method, path, body = ADDING[name]
    named = {key: value.format(n=n) if isinstance(value, str) else value for key, value in body.items()}
    while True:
        answer = await api.http.request(method, path.format(n=n), json=named)
        if answer.status_code != 503 or answer.json()["code"] != "auth/busy":
            return answer


async def have(api: Api, name: str) -> int:
    """How many there are, by the tenant's own usage."""
    return int((await api.ok("GET", f"/v1/tenants/{api.tenant}/usage"))[name])


@pytest.mark.parametrize("name", ADDING)
async def test_additions_at_once_never_pass_a_limit(api: Api, name: str) -> None:
    there = await have(api, name)
    await change(api, limits={name: there + 5})
    answers = await asyncio.gather(*(add(api, name, n) for n in range(20)))
    assert sorted(answer.status_code for answer in answers) == [201] * 5 + [409] * 15
    problem = next(answer for answer in answers if answer.status_code == 409).json()
    assert problem["code"] == f"limit/{name.replace('_', '-')}"
    assert (problem["limit"], problem["current"], await have(api, name)) == (there + 5, there + 5, there + 5)


@pytest.mark.parametrize("name", ADDING)
async def test_zero_allows_none_and_null_any_number(api: Api, name: str) -> None:
    await change(api, limits={name: 0})
    assert (await add(api, name)).status_code == 409
    await change(api, limits={name: None})
    assert (await add(api, name)).status_code == 201


async def test_a_place_that_is_freed_is_usable_again(api: Api) -> None:
    await change(api, limits={"running_executions": 2})
    runs = [(await api.start(start={"queue": "q", "drives": "execution"}))["execution_id"] for _ in range(2)]
    await api.refused("POST", "/v1/executions", "limit/running-executions", json={"workflow_id": "wf"})
    await api.ok("POST", f"/v1/executions/{runs[0]}/status", json={"status": "completed"})
    third = (await api.start())["execution_id"]
    await api.refused("POST", "/v1/executions", "limit/running-executions", json={"workflow_id": "wf"})
    await api.ok("POST", f"/v1/executions/{third}/status", json={"status": "cancelled"})
    [item] = await api.claim("q")
    await settle(api, item, "complete")
    starts = [api.http.post("/v1/executions", json={"workflow_id": "wf"}) for _ in range(4)]
    assert sorted(answer.status_code for answer in await asyncio.gather(*starts)) == [201, 201, 409, 409]


async def test_starts_and_endings_at_once_stay_within_the_limit(api: Api) -> None:
    await change(api, limits={"running_executions": 3})
    runs = [(await api.start())["execution_id"] for _ in range(3)]
    ends = [api.ok("POST", f"/v1/executions/{run}/status", json={"status": "completed"}) for run in runs]
    starts = [api.http.post("/v1/executions", json={"workflow_id": "wf"}) for _ in range(9)]
    await asyncio.gather(*starts[:4], *ends, *starts[4:])
    assert await have(api, "running_executions") <= 3


async def test_pending_and_paused_executions_count_as_running(api: Api) -> None:
    await change(api, limits={"running_executions": 2})
    await api.start(pending=True)
    run = (await api.start())["execution_id"]
    await api.ok("POST", f"/v1/executions/{run}/status", json={"status": "paused"})
    await api.refused("POST", "/v1/executions", "limit/running-executions", json={"workflow_id": "wf"})


async def test_a_repeated_start_takes_no_second_place(api: Api) -> None:
    await change(api, limits={"running_executions": 1})
    body = {"workflow_id": "wf", "execution_id": "mine"}
    answers = await asyncio.gather(*(api.http.post("/v1/executions", json=body) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200] * 4 + [201]


async def test_a_refusal_tells_where_the_tenant_stands_without_what_it_refuses(api: Api) -> None:
    await change(api, limits={"ready_work_items": 3, "events_per_execution": 6})
    path = f"/v1/executions/{(await api.start())['execution_id']}"
    await api.ok("POST", "/v1/work-items", json={"queue": "q"})
    body = {"changes": [{"type": "enqueue", "queue": "q"}] * 3}
    problem = await api.refused("POST", f"{path}/transitions", "limit/ready-work-items", json=body)
    assert (problem["limit"], problem["current"]) == (3, 1)
    body = {"events": [{"kind": "a"}] * 6}
    problem = await api.refused("POST", f"{path}/events", "limit/events-per-execution", json=body)
    assert (problem["limit"], problem["current"]) == (6, 1)
    body = {"changes": [{"type": "append", "kind": "a"}] * 6}
    problem = await api.refused("POST", f"{path}/transitions", "limit/events-per-execution", json=body)
    assert (problem["limit"], problem["current"]) == (6, 1)
    await api.ok("POST", f"{path}/transitions", json={"changes": [{"type": "enqueue", "queue": "q"}] * 2})
    await api.ok("POST", f"{path}/events", json={"events": [{"kind": "a"}] * 3})


async def test_events_states_and_payloads_keep_to_their_limits(api: Api) -> None:
    await change(api, limits={"events_per_execution": 3, "payload_bytes": 20, "state_bytes": 20})
    run = (await api.start())["execution_id"]
    path = f"/v1/executions/{run}"
    two = {"events": [{"kind": "a"}, {"kind": "b"}]}
    await api.ok("POST", f"{path}/events", json=two)
    problem = await api.refused("POST", f"{path}/events", "limit/events-per-execution", json=two)
    assert (problem["limit"], problem["current"]) == (3, 3)
    big = {"x": "y" * 20}
    fresh = f"/v1/executions/{(await api.start())['execution_id']}"
    await api.refused("POST", f"{fresh}/events", "limit/payload-bytes", json={"events": [{"kind": "a", "body": big}]})
    await api.refused("PUT", f"{fresh}/state", "limit/state-bytes", json=big)
    await api.refused("PATCH", f"{fresh}/state", "limit/state-bytes", json=big)
    await api.refused("POST", "/v1/executions", "limit/payload-bytes", json={"workflow_id": "wf", "input": big})
    await api.refused("POST", "/v1/executions", "limit/state-bytes", json={"workflow_id": "wf", "state": big})
    assert (await api.ok("GET", fresh))["sequence"] == 1


async def test_requests_past_the_rate_are_told_when_to_come_again(api: Api, clock: Clock) -> None:
    await change(api, limits={"requests_per_second": 5})
    clock.advance(10_000)
    for method, path, body in (("GET", "/v1/queues", None), ("POST", "/v1/work-items", {"queue": "q"})):
        answers = [await api.http.request(method, path, json=body) for _ in range(8)]
        assert sorted(answer.status_code >= 400 for answer in answers) == [False] * 5 + [True] * 3
        refused = answers[-1]
        assert code(refused) == (429, "limit/requests-per-second")
        assert int(refused.headers["retry-after"]) == refused.json()["retry_after"] >= 1
        clock.advance(2_000)
    await change(api, limits={"requests_per_second": 0})
    clock.advance(10_000)
    assert code(await api.http.get("/v1/queues")) == (429, "limit/requests-per-second")


async def test_usage_counts_what_limits_count(api: Api) -> None:
    await api.start(start={"queue": "q"})
    await enqueue(api, delay_ms=5)
    await add(api, "definitions")
    await add(api, "tokens")
    await add(api, "namespaces")
    await add(api, "workers")
    usage = await api.ok("GET", f"/v1/tenants/{api.tenant}/usage")
    counted = {name: usage[name] for name in ADDING}
    expected = {"running_executions": 1, "ready_work_items": 2, "definitions": 1, "tokens": 2, "namespaces": 1}
    expected["workers"] = 1
    assert counted == expected
    assert (await api.admin.get(f"/v1/tenants/{api.tenant}/usage")).json() == usage


@pytest.mark.parametrize("name", ADDING)
async def test_usage_names_the_limits_of_which_four_fifths_are_used(name: str, api: Api) -> None:
    """Whoever looks learns of it before something is refused."""
    for number in range(4):
        await add(api, name, number)
    used = await have(api, name)
    for most, near in ((used * 5 // 4 + 1, []), (used * 5 // 4, [name]), (used, [name]), (1, [name]), (None, [])):
        await change(api, limits={name: most})
        usage = await api.ok("GET", f"/v1/tenants/{api.tenant}/usage")
        assert (usage["limits"][name], usage["near"]) == (most, near)


async def test_a_limit_of_none_is_not_near_while_there_is_nothing(api: Api) -> None:
    await change(api, limits={"workers": 0})
    assert (await api.ok("GET", f"/v1/tenants/{api.tenant}/usage"))["near"] == []


# ── delete ─────────────────────────────────────────────────────────────────────────────────────────────────────────

OURS_ALONE = {"sweep_leases", "secrets"}
"""Tables in which no tenant but the system has rows."""
MADE_UP = {"TEXT": "'x'", "INTEGER": "1", "BLOB": "{}"}
EMPTY_JSON = {"sqlite": "X'7B7D'", "postgres": "'\\x7b7d'"}


@contextlib.asynccontextmanager
async def at_large(service: Service) -> AsyncIterator[Any]:
    """A connection to the service's Postgres that no fence holds back: what it does not see is not there."""
    db = await asyncpg.connect(service.services.settings.database_url)
    try:
        assert await db.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        yield db
    finally:
        await db.close()


async def rows_of(service: Service, tenant: str) -> dict[str, int]:
    """How many rows a tenant has in each table that the store itself says has a tenant_id."""
    backend = service.services.backend
    if backend.name == "sqlite":
        db = backend._db
        having = "pragma_table_info(m.name) c WHERE m.type = 'table' AND c.name = 'tenant_id'"
        tables = f"SELECT m.name FROM sqlite_master m, {having}"
        names = [name for (name,) in db.execute(tables)]
        return {
            name: db.execute(f"SELECT count(*) FROM {name} WHERE tenant_id = ?", (tenant,)).fetchone()[0]
            for name in names
        }
    async with at_large(service) as db:
        having = "column_name = 'tenant_id' AND table_schema = 'public'"
        tables = f"SELECT table_name FROM information_schema.columns WHERE {having}"
        names = [row[0] for row in await db.fetch(tables)]
        return {name: await db.fetchval(f"SELECT count(*) FROM {name} WHERE tenant_id = $1", tenant) for name in names}


async def fill(api: Api) -> None:
    """Leave something in every table of the core."""
    await add(api, "definitions")
    await add(api, "namespaces")
    run = (await api.start(labels={"l": "1"}, attributes={"a": 2}, state={"s": 1}, start={"queue": "q"}))[
        "execution_id"
    ]
    await api.ok("POST", f"/v1/executions/{run}/events", json={"events": [{"kind": "a"}]})
    await api.ok("PUT", f"/v1/executions/{run}/snapshots/2", json={})
    await api.ok("POST", "/v1/work-items", json={"queue": "q"}, headers={"idempotency-key": "k"})
    await bury(api, "p")
    await api.ok("POST", "/v1/queues/q/pause")
    await api.ok("POST", "/v1/dead-letters:redrive", json={"queue": "nothing"})
    await started(api, run_timeout_ms=3_600_000)
    [task] = await tasks(api)
    await submit(api, task, {"type": "RecordSideEffect", "seq": 1, "name": "n", "value": 1})
    plan = {"schedule_id": "plan", "spec": {"cron": "0 3 * * *"}, "action": {"workflow_type": "o", "task_queue": "t"}}
    await api.ok("POST", "/v1/schedules", json=plan)
    await api.ok("POST", "/v1/schedules/plan/trigger")
    await api.service.services.backend.write(lambda tx: trim(tx, api.tenant, api.clock.now + 1))
    await SharedRates(api.service.services.backend).take(api.tenant, Rate(1, 1), api.clock.now)
    for table, count in (await rows_of(api.service, api.tenant)).items():
        if not count and table not in OURS_ALONE:
            await make_up(api.service, table, api.tenant)


async def make_up(service: Service, table: str, tenant: str) -> None:
    """Put a row into a table that nothing above has written to, behind the service's back: none is forgotten."""
    known = house.store().execute(f"PRAGMA table_info({table})")
    blob = EMPTY_JSON[service.services.backend.name]
    values = {name: MADE_UP[kind].format(blob) for _, name, kind, needed, *_ in known if needed and name != "tenant_id"}
    columns = ", ".join(["tenant_id", *values])
    await behind(service, f"INSERT INTO {table} ({columns}) VALUES ({', '.join([repr(tenant), *values.values()])})")


async def behind(service: Service, statement: str) -> None:
    """Run a statement behind the service's back."""
    backend = service.services.backend
    if backend.name == "sqlite":
        backend._db.execute(statement)
    else:
        async with at_large(service) as db:
            await db.execute(statement)


async def erased(service: Service, clock: Clock) -> None:
    """Let the sweeps work until the deletions are through, and what tests before this one left as well."""
    await swept(service)
    clock.advance(sweeps.QUIET_MS)
    await swept(service)


async def swept(service: Service) -> None:
    """Rounds of the sweep until nothing is due."""
    while await sweeps.leaving(service.services.backend):
        await sweeps.erase(service.services)


async def test_deleting_a_tenant_leaves_no_row_in_any_table(
    service: Service, api: Api, other: Api, clock: Clock
) -> None:
    await fill(api)
    await fill(other)
    kept = await rows_of(service, other.tenant)
    filled = await rows_of(service, api.tenant)
    assert not [name for name, count in filled.items() if not count and name not in OURS_ALONE], filled
    admin = api.admin
    answer = await admin.delete(f"/v1/tenants/{api.tenant}")
    assert (answer.status_code, answer.json()["status"]) == (202, "deleting")
    job_id = answer.json()["job_id"]
    before = (await admin.get(f"/v1/jobs/{job_id}")).json()
    assert (before["kind"], before["status"], before["done"], before["detail"]) == (
        DELETE_JOB,
        "running",
        0,
        {"tenant_id": api.tenant},
    )
    await erased(service, clock)
    assert set((await rows_of(service, api.tenant)).values()) == {0}
    assert await rows_of(service, other.tenant) == kept
    after = (await admin.get(f"/v1/jobs/{job_id}")).json()
    assert (after["status"], after["total"], after["done"]) == (
        "completed",
        sum(filled.values()) - 1,
        sum(filled.values()) - 1,
    )
    assert code(await admin.get(f"/v1/tenants/{api.tenant}")) == (404, "not-found")
    lines = (await admin.get("/v1/audit?limit=1000")).json()["items"]
    told = [line["action"] for line in lines if line["target"] == api.tenant]
    assert told == ["tenant.created", "tenant.deleting", "tenant.deleted"]


async def test_a_tenant_that_is_being_deleted_is_closed_and_its_id_is_taken(
    service: Service, api: Api, clock: Clock
) -> None:
    await enqueue(api)
    admin, path = api.admin, f"/v1/tenants/{api.tenant}"
    job_id = (await admin.delete(path)).json()["job_id"]
    await api.refused("POST", "/v1/executions", "tenant/archived", json={"workflow_id": "wf"})
    await api.refused("POST", "/v1/work-items:claim", "tenant/archived", json={"worker_id": "w", "queues": ["q"]})
    assert code(await admin.patch(path, json={"status": "active"})) == (403, "tenant/archived")
    assert code(await admin.post(f"/v1/jobs/{job_id}/cancel")) == (409, "job/final")
    version = (await admin.get(path)).json()["version"]
    again = await admin.delete(path)
    assert (again.status_code, again.json()["status"], again.json()["version"]) == (202, "deleting", version)
    await swept(service)
    taken = await admin.post("/v1/tenants", json={"id": api.tenant})
    assert (code(taken), taken.json()["current_status"]) == ((409, "tenant/exists"), "deleting")
    clock.advance(sweeps.QUIET_MS)
    await swept(service)
    assert (await admin.post("/v1/tenants", json={"id": api.tenant})).status_code == 201


async def test_a_token_of_a_deleted_tenant_opens_no_new_tenant_of_that_name(
    service: Service, api: Api, clock: Clock
) -> None:
    await api.ok("GET", "/v1/queues")  # the token was proven a moment ago
    await api.admin.delete(f"/v1/tenants/{api.tenant}")
    await erased(service, clock)
    assert (await api.http.get("/v1/queues")).status_code == 401
    assert (await api.admin.post("/v1/tenants", json={"id": api.tenant})).status_code == 201
    for answer in (await api.http.get("/v1/queues"), await api.http.post("/v1/work-items", json={"queue": "q"})):
        assert answer.status_code == 401
    fresh = Api(service, api.tenant, await service.token(api.tenant, "owner"))
    item = await enqueue(fresh)
    assert [got["id"] for got in await fresh.claim("q")] == [item]


async def test_what_was_asked_of_a_tenant_while_it_was_being_deleted_hides_nothing_of_the_next_of_its_name(
    service: Service, api: Api, clock: Clock
) -> None:
    """A refused enqueue has read its shelf, which a deletion that takes long has not come to yet."""
    await enqueue(api)
    await api.admin.delete(f"/v1/tenants/{api.tenant}")
    clock.advance(sweeps.QUIET_MS - 1)
    await api.refused("POST", "/v1/work-items", "tenant/archived", json={"queue": "q"})
    while (await api.admin.post("/v1/tenants", json={"id": api.tenant})).status_code != 201:
        clock.advance(1_000)
        await swept(service)
    fresh = Api(service, api.tenant, await service.token(api.tenant, "owner"))
    item = await enqueue(fresh)
    assert [got["id"] for got in await fresh.claim("q")] == [item]


async def test_the_name_of_a_deleted_tenant_is_free_a_minute_after_its_last_row_went(
    service: Service, api: Api, clock: Clock
) -> None:
    await enqueue(api)
    await api.admin.delete(f"/v1/tenants/{api.tenant}")
    clock.advance(sweeps.QUIET_MS)
    await swept(service)
    clock.advance(sweeps.QUIET_MS - 1)
    await swept(service)
    assert code(await api.admin.post("/v1/tenants", json={"id": api.tenant})) == (409, "tenant/exists")
    clock.advance(1)
    await swept(service)
    assert (await api.admin.post("/v1/tenants", json={"id": api.tenant})).status_code == 201


async def test_a_deletion_goes_on_where_the_process_that_died_left_it(
    service: Service, api: Api, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeps, "PAGE", 4)
    for _ in range(9):
        await enqueue(api)
    rows = sum((await rows_of(service, api.tenant)).values()) - 1
    job_id = (await api.admin.delete(f"/v1/tenants/{api.tenant}")).json()["job_id"]
    backend = service.services.backend
    [mine] = [job for job in await due(backend, DELETE_JOB) if job.id == job_id]
    await sweeps.page(backend, mine)
    assert (await api.admin.get(f"/v1/jobs/{job_id}")).json()["done"] == 4
    assert sum((await rows_of(service, api.tenant)).values()) - 1 == rows - 4
    await asyncio.gather(*(erased(service, clock) for _ in range(2)))
    await erased(service, clock)
    after = (await api.admin.get(f"/v1/jobs/{job_id}")).json()
    assert (after["status"], after["done"]) == ("completed", rows)


async def test_a_tenant_that_takes_too_long_to_count_is_deleted_all_the_same(
    service: Service, api: Api, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = service.services.backend
    read = backend.read

    async def without_time(work: Any, *, scan: bool = False, **more: Any) -> Any:
        if scan:
            raise TooSlow("the scan was cut off")
        return await read(work, **more)

    monkeypatch.setattr(sweeps, "PAGE", 4)
    await enqueue(api)
    rows = sum((await rows_of(service, api.tenant)).values()) - 1
    job_id = (await api.admin.delete(f"/v1/tenants/{api.tenant}")).json()["job_id"]
    monkeypatch.setattr(backend, "read", without_time)
    for _ in range(rows):
        await sweeps.erase(service.services)
    clock.advance(sweeps.QUIET_MS)
    await sweeps.erase(service.services)
    monkeypatch.setattr(backend, "read", read)
    assert set((await rows_of(service, api.tenant)).values()) == {0}
    job = (await api.admin.get(f"/v1/jobs/{job_id}")).json()
    assert (job["status"], job["done"], job["total"]) == ("completed", rows, rows)


async def test_the_default_tenant_and_one_that_is_not_there_are_not_deleted(api: Api) -> None:
    assert (await api.admin.delete("/v1/tenants/default")).status_code == 403
    assert code(await api.admin.delete("/v1/tenants/nobody-here")) == (404, "not-found")


@pytest.mark.parametrize("kind", [DELETE_JOB, IMPORT_JOB])
async def test_a_job_that_came_with_an_import_takes_nothing_of_other_tenants_away(
    kind: str, service: Service, api: Api, other: Api, clock: Clock
) -> None:
    """A deletion is the system's; a row that a tenant brings is none, whatever it says and whosever id it has."""
    victim = await service.tenant()
    await fill(victim)
    before = await rows_of(service, victim.tenant)
    job_id = (await api.admin.delete(f"/v1/tenants/{other.tenant}")).json()["job_id"]
    detail = f'{{"tenant_id":"{victim.tenant}"}}'.encode()
    rows = [(api.tenant, id, kind, "running", detail, 0, 0, 0, 0, 0) for id in (job_id, *(f"j{n}" for n in range(30)))]

    async def bring(tx: Any) -> None:
        await tx.many("import_jobs", rows)

    await service.services.backend.write(bring, tenants=[api.tenant])
    await erased(service, clock)
    assert await rows_of(service, victim.tenant) == before
    assert not any((await rows_of(service, other.tenant)).values()), "and none stood before the one that is due"
