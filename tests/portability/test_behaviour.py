"""A tenant goes from one store to another, either engine to either, whole or not at all."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from service.errors import StateError
from service.portability import exports
from service.portability.model import IMPORT_MS
from service.tenants import sweeps
from service.tokens.secret import PATTERN
from tests.audit.steps import lines_of, received, verdict
from tests.conftest import ENGINES, Api, Service, new_store, serving
from tests.portability.steps import (
    TOLD,
    File,
    arrived,
    begin,
    export,
    import_,
    lived,
    resealed,
    send,
)
from tests.tenants.test_behaviour import code, erased, rows_of


@pytest.fixture(params=ENGINES)
async def other_store(request: pytest.FixtureRequest, tmp_path: Path, postgres_server: str) -> AsyncIterator[Service]:
    """A store of its own, of either engine: where tenants arrive."""
    url = f"sqlite:///{tmp_path / 'other.db'}" if request.param == "sqlite" else await new_store(postgres_server)
    async with serving(url) as service:
        yield service


# ── there and back ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_tenant_arrives_as_it_left(api: Api, other_store: Service) -> None:
    await lived(api)
    await api.admin.patch(f"/v1/tenants/{api.tenant}", json={"policy": {"p": [1]}, "limits": {"tokens": 50}})
    file = await export(api.http, api.tenant)
    assert not [name for name, (rows, _) in file.tables.items() if not rows], "something of everything travels"
    before = (await api.admin.get(f"/v1/tenants/{api.tenant}")).json()
    assert await import_(other_store, file) == before
    there = await arrived(other_store, api.tenant)
    again = await export(there.http, api.tenant)
    assert again.tables == file.tables
    assert again.manifest["tenant"] == file.manifest["tenant"]
    known = len(file.rows("audit"))
    assert again.rows("audit")[:known] == file.rows("audit"), "the chain goes on where it was"
    assert (await verdict(there))["whole"] is True
    for path in ("executions", "events", "definitions", "dead-letters"):
        ours, theirs = await api.ok("GET", f"/v1/{path}"), await there.ok("GET", f"/v1/{path}")
        assert theirs["items"] == ours["items"], path


async def test_a_tenant_that_comes_home_is_the_one_that_left(service: Service, api: Api, other_store: Service) -> None:
    """Out, deleted, and back: what the store holds then is what it held, byte for byte."""
    await lived(api)
    file = await export(api.http, api.tenant)
    await import_(other_store, file)
    there = await arrived(other_store, api.tenant)
    back = await export(there.http, api.tenant)
    await api.admin.delete(f"/v1/tenants/{api.tenant}")
    await erased(service, service.clock)
    await import_(service, back)
    home = await arrived(service, api.tenant)
    assert (await export(home.http, api.tenant)).tables == file.tables


async def test_work_goes_on_where_a_tenant_arrives(api: Api, other_store: Service) -> None:
    run = (await api.start(start={"queue": "q", "payload": "p"}))["execution_id"]
    await api.ok("POST", f"/v1/executions/{run}/events", json={"events": [{"kind": "noted"}]})
    await import_(other_store, await export(api.http, api.tenant))
    there = await arrived(other_store, api.tenant)
    [item] = await there.claim("q")
    changes = [{"type": "settle", "outcome": "completed"}, {"type": "set_status", "status": "completed"}]
    under = {"work_item_id": item["id"], "epoch": item["epoch"]}
    await there.ok("POST", f"/v1/executions/{run}/transitions", json={"lease": under, "changes": changes})
    sequences = [event["sequence"] for event in await there.events(run)]
    assert sequences == list(range(1, len(sequences) + 1))
    assert (await there.ok("POST", f"/v1/executions/{run}/snapshots:verify"))["matches"] is True
    fed = [(one["execution_id"], one["event"]["sequence"]) for one in (await there.ok("GET", "/v1/events"))["items"]]
    assert fed == [(run, sequence) for sequence in sequences]


async def test_the_order_of_the_feed_travels(api: Api, other_store: Service) -> None:
    for number in range(5):
        await api.start(execution_id=f"run-{number}")
    for number in (3, 1, 4, 0, 2):
        await api.ok("POST", f"/v1/executions/run-{number}/events", json={"events": [{"kind": "noted"}]})
    await import_(other_store, await export(api.http, api.tenant))
    there = await arrived(other_store, api.tenant)
    assert (await there.ok("GET", "/v1/events"))["items"] == (await api.ok("GET", "/v1/events"))["items"]
    by_change = "/v1/executions?sort=updated"
    ours, theirs = await api.ok("GET", by_change), await there.ok("GET", by_change)
    assert [one["execution_id"] for one in theirs["items"]] == [one["execution_id"] for one in ours["items"]]


async def test_a_lease_does_not_travel_and_a_stale_holder_settles_nothing(api: Api, other_store: Service) -> None:
    await api.ok("POST", "/v1/work-items", json={"id": "held", "queue": "q", "max_attempts": 1})
    [lease] = await api.claim("q")
    file = await export(api.http, api.tenant)
    [row] = file.rows("work_items")
    assert (row["status"], row["epoch"], row["attempt"], row["worker_id"]) == ("ready", lease["epoch"] + 1, 0, None)
    await import_(other_store, file)
    there = await arrived(other_store, api.tenant)
    settle = {"epoch": lease["epoch"]}
    for act in ("complete", "renew", "release"):
        answer = await there.http.post(f"/v1/work-items/held/{act}", json=settle)
        assert answer.status_code == 409, answer.text
    [mine] = await there.claim("q")
    assert mine["epoch"] == lease["epoch"] + 2
    await there.refused("POST", "/v1/work-items/held/complete", "lease/stale", json=settle)
    await there.ok("POST", "/v1/work-items/held/complete", json={"epoch": mine["epoch"]})
    await api.ok("POST", "/v1/work-items/held/complete", json=settle)  # at home the lease is as it was


async def test_a_repeated_request_is_recognised_where_the_tenant_arrives(api: Api, other_store: Service) -> None:
    body, key = {"workflow_id": "wf"}, {"idempotency-key": "once"}
    first = await api.http.post("/v1/executions", json=body, headers=key)
    await import_(other_store, await export(api.http, api.tenant))
    there = await arrived(other_store, api.tenant)
    again = await there.http.post("/v1/executions", json=body, headers=key)
    assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")


@pytest.mark.parametrize("status", ["suspended", "archived"])
async def test_a_closed_tenant_arrives_closed(api: Api, other_store: Service, status: str) -> None:
    await api.admin.patch(f"/v1/tenants/{api.tenant}", json={"status": status})
    arrivals = await import_(other_store, await export(api.http, api.tenant))
    assert (arrivals["status"], arrivals["version"]) == (status, 2)
    there = await arrived_closed(other_store, api.tenant)
    await there.refused("POST", "/v1/executions", f"tenant/{status}", json={"workflow_id": "wf"})


async def arrived_closed(service: Service, tenant: str) -> Api:
    """An owner of a tenant that is not active: only the system's administrator mints one."""
    minted = await service.client(service.admin).post(
        "/v1/tokens", json={"tenant_id": tenant, "role": "owner", "name": "o"}
    )
    return Api(service, tenant, minted.json()["secret"])


async def test_the_default_tenant_travels_to_a_store_where_nothing_is_in_it(
    fresh_url: str, other_store: Service
) -> None:
    async with serving(fresh_url) as home:
        api = await arrived(home, "default")
        await lived(api)
        file = await export(api.http, "default")
    await import_(other_store, file)
    there = await arrived(other_store, "default")
    assert (await export(there.http, "default")).tables == file.tables
    answer = await there.admin.post("/v1/imports", json=resealed(file.manifest | {"exported_at": 1}))
    assert code(answer) == (409, "tenant/exists"), "now there is something in it"


async def test_an_import_of_the_default_tenant_that_is_given_up_leaves_it_empty(
    fresh_url: str, other_store: Service
) -> None:
    async with serving(fresh_url) as home:
        api = await arrived(home, "default")
        await lived(api)
        file = await export(api.http, "default")
    admin = other_store.client(other_store.admin)
    began = await begin(admin, file)
    await send(admin, file, began["id"], last=5)
    assert (await admin.delete(f"/v1/imports/{began['id']}")).status_code == 202
    await erased(other_store, other_store.clock)
    found = (await admin.get("/v1/tenants/default")).json()
    assert (found["name"], found["status"], found["version"]) == ("default", "active", 1)
    assert sum((await rows_of(other_store, "default")).values()) == 1
    await import_(other_store, file)


# ── what an export holds ───────────────────────────────────────────────────────────────────────────────────────────


async def test_no_token_and_nothing_of_another_tenant_is_in_an_export(service: Service, api: Api, other: Api) -> None:
    await lived(api)
    await lived(other)
    key = {"idempotency-key": "mint"}
    minted = await api.http.post("/v1/tokens", json={"name": "n", "role": "viewer"}, headers=key)
    text = b"".join((await export(api.http, api.tenant)).lines).decode()
    secret = minted.json()["secret"]
    assert not [one for one in (secret, secret[23:66], api.owner_token[23:66]) if one in text]
    assert re.search(PATTERN, text) is None
    assert "$argon2" not in text
    assert other.tenant not in text


async def test_an_export_is_one_moment(api: Api) -> None:
    """What is written while it is read is not in it: no item without its execution, no event too many."""
    runs = [(await api.start())["execution_id"] for _ in range(5)]
    stop = False

    async def writing() -> None:
        while not stop:
            body = {"changes": [{"type": "append", "kind": "n"}, {"type": "enqueue", "queue": "q"}]}
            await asyncio.gather(*(api.ok("POST", f"/v1/executions/{run}/transitions", json=body) for run in runs))

    writer = asyncio.create_task(writing())
    files: list[Any] = []
    while len(files) < 5 or len({file.manifest["tables"]["events"]["rows"] for file in files}) < 2:
        assert not writer.done(), "it goes on until something was written between two exports"
        files.append(await export(api.http, api.tenant))
    stop = True
    await writer
    for file in files:
        open_items = {row["id"]: row["open_items"] for row in file.rows("executions")}
        sequences = {row["id"]: row["sequence"] for row in file.rows("executions")}
        for run in runs:
            items = [row for row in file.rows("work_items") if row["execution_id"] == run]
            events = [row for row in file.rows("events") if row["execution_id"] == run]
            assert (len(items), len(events)) == (open_items[run], sequences[run])


async def test_an_export_is_told_of_in_the_tenants_log(api: Api, other: Api) -> None:
    await export(api.http, api.tenant)
    named = {"holdfast-tenant": api.tenant, "holdfast-reason": "a move"}
    await export(api.admin, api.tenant, **named)
    told = [line for line in await lines_of(api.http) if line["action"] == "tenant.exported"]
    assert [(line["actor"], line["detail"]) for line in told] == [
        (api.owner_token[6:22], {"reason": None}), (api.service.admin[6:22], {"reason": "a move"}),
    ]  # fmt: skip
    assert not [line for line in await lines_of(other.http) if line["action"] == "tenant.exported"]


async def test_only_the_owner_and_an_administrator_with_a_reason_export(api: Api, other: Api) -> None:
    assert code(await api.admin.get(f"/v1/tenants/{api.tenant}/export")) == (403, "auth/forbidden")
    await other.refused("GET", f"/v1/tenants/{api.tenant}/export", "not-found")
    named = {"holdfast-tenant": other.tenant, "holdfast-reason": "a move"}
    answer = await api.admin.get(f"/v1/tenants/{api.tenant}/export", headers=named)
    assert code(answer) == (404, "not-found"), "the reason was given to another tenant"


async def test_a_tenant_that_is_going_is_not_exported(api: Api) -> None:
    await api.admin.delete(f"/v1/tenants/{api.tenant}")
    await api.refused("GET", f"/v1/tenants/{api.tenant}/export", "tenant/archived")


async def test_to_ask_for_the_head_of_an_export_makes_none(
    api: Api, other: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "EXPORTS_MAX", 0)
    before = await lines_of(api.http)
    for path in (f"/v1/tenants/{api.tenant}/export", "/v1/audit:export"):
        answer = await api.http.head(path)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
        assert "content-length" not in answer.headers
    assert await lines_of(api.http) == before
    assert (await api.http.head(f"/v1/tenants/{other.tenant}/export")).status_code == 404
    assert (await api.admin.delete(f"/v1/tenants/{api.tenant}")).status_code == 202
    assert (await api.http.head(f"/v1/tenants/{api.tenant}/export")).status_code == 403


async def test_pages_of_any_length_give_the_same_export(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    await lived(api)
    whole = (await export(api.http, api.tenant)).tables
    for rows_first, most in ((1, 1), (2, 3), (1000, 1000)):
        monkeypatch.setattr(exports, "ROWS_FIRST", rows_first)
        monkeypatch.setattr(exports, "ROWS_MOST", most)
        assert (await export(api.http, api.tenant)).tables == whole


async def test_more_exports_than_may_be_at_once_are_told_to_wait(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "EXPORTS_MAX", 0)
    problem = await api.refused("GET", f"/v1/tenants/{api.tenant}/export", "server/busy")
    assert problem["retry_after"] == 10


def test_a_tenant_that_takes_its_time_leaves_a_place_to_another_one() -> None:
    extra: dict[str, Any] = {}
    slow = exports.room(extra, "slow")
    with pytest.raises(StateError, match="1 exports"):
        exports.room(extra, "slow")
    other = exports.room(extra, "other")
    with pytest.raises(StateError, match="2 exports"):
        exports.room(extra, "third")
    slow.file.close()
    exports.room(extra, "third")
    other.file.close()


async def test_where_there_is_no_place_for_temporary_files_an_export_is_told_so(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(exports.tempfile, "TemporaryFile", fails)
    await api.refused("GET", f"/v1/tenants/{api.tenant}/export", "store/full")


# ── what an import refuses ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def file(api: Api) -> File:
    """An export of a tenant that has been deleted since."""
    await lived(api)
    found = await export(api.http, api.tenant)
    await api.admin.delete(f"/v1/tenants/{api.tenant}")
    await erased(api.service, api.clock)
    return found


UNFIT: dict[str, Any] = {
    "another tenant": lambda m: m | {"tenant_id": "somebody-else"},
    "another status": lambda m: m | {"tenant": m["tenant"] | {"status": "suspended"}},
    "fewer rows": lambda m: m | {"tables": m["tables"] | {"events": m["tables"]["events"] | {"rows": 1}}},
    "another schema": lambda m: resealed(m | {"schema": m["schema"] + 1}),
    "no events": lambda m: resealed(m | {"tables": {n: t for n, t in m["tables"].items() if n != "events"}}),
    "a table more": lambda m: resealed(m | {"tables": m["tables"] | {"tokens": m["tables"]["events"]}}),
    "other columns": lambda m: resealed(
        m | {"tables": m["tables"] | {"queues": m["tables"]["queues"] | {"columns": ["name"]}}}
    ),
    "limits that are none": lambda m: resealed(m | {"tenant": m["tenant"] | {"limits": '{"cows": 1}'}}),
    "a policy that is no JSON": lambda m: resealed(m | {"tenant": m["tenant"] | {"policy": "{"}}),
}


@pytest.mark.parametrize("change", UNFIT.values(), ids=UNFIT)
async def test_a_manifest_that_does_not_fit_begins_nothing(api: Api, change: Any) -> None:
    manifest = change((await export(api.http, api.tenant)).manifest)
    answer = await api.admin.post("/v1/imports", json=manifest)
    assert code(answer) == (422, "import/unfit")
    assert answer.json()["errors"]
    assert code(await api.admin.get("/v1/tenants/somebody-else")) == (404, "not-found")


@pytest.mark.parametrize(
    "change",
    [{"format": "x"}, {"tenant_id": ""}, {"tenant_id": "Not A Slug"}, {"more": 1}, {"tables": None}, {"schema": -1}],
)
async def test_what_is_no_manifest_is_refused(api: Api, change: dict[str, Any]) -> None:
    manifest = (await export(api.http, api.tenant)).manifest | change
    assert code(await api.admin.post("/v1/imports", json=manifest)) == (422, "request/invalid")


async def test_a_tenant_that_is_there_is_not_imported_over(api: Api) -> None:
    file = await export(api.http, api.tenant)
    answer = await api.admin.post("/v1/imports", json=file.manifest)
    assert (code(answer), answer.json()["current_status"]) == ((409, "tenant/exists"), "active")


def changed_row(parts: list[Any]) -> list[Any]:
    """One text of one event, other than it was."""
    found = [(n, t, [[*row[:3], "forged", *row[4:]] if t == "audit" else row for row in rows]) for n, t, rows in parts]
    assert found != parts
    return found


SPOILT: dict[str, Any] = {
    "cut off": lambda parts: parts[:-1],
    "a row less": lambda parts: (
        [*parts[:-1], (*parts[-1][:2], parts[-1][2][:-1])] if len(parts[-1][2]) > 1 else parts[:-1]
    ),
    "a row changed": changed_row,
    "rows in another order": lambda parts: [(n, t, rows[::-1] if t == "events" else rows) for n, t, rows in parts],
    "nothing at all": lambda _: [],
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
async def test_a_file_that_was_changed_or_cut_off_opens_no_tenant(
    service: Service, api: Api, file: File, spoil: Any
) -> None:
    admin = api.admin
    import_id = (await begin(admin, file))["id"]
    for number, table, rows in spoil(list(file.parts)):
        body = {"part": number, "table": table, "rows": rows}
        answer = await admin.post(f"/v1/imports/{import_id}/parts", json=body)
        assert answer.status_code == 200, answer.text
    answer = await admin.post(f"/v1/imports/{import_id}/finish")
    assert code(answer) == (422, "import/unfit")
    assert {one["pointer"].split("/")[1] for one in answer.json()["errors"]} == {"tables"}
    assert (await admin.get(f"/v1/tenants/{api.tenant}")).json()["status"] == "deleting"


async def test_rows_that_do_not_fit_are_refused_and_nothing_of_their_part_is_kept(
    service: Service, api: Api, file: File
) -> None:
    admin = api.admin
    import_id = (await begin(admin, file))["id"]
    path = f"/v1/imports/{import_id}/parts"
    good = ["run", '{"a":1}', 1]
    for body, said in (
        ({"part": 1, "table": "tokens", "rows": [good]}, (422, "request/invalid")),
        ({"part": 1, "table": "no_such", "rows": [good]}, (422, "request/invalid")),
        ({"part": 1, "table": "states", "rows": []}, (422, "request/invalid")),
        ({"part": 0, "table": "states", "rows": [good]}, (422, "request/invalid")),
        ({"part": 1, "table": "states", "rows": [good, ["run", 1, 1]]}, (422, "request/invalid")),
        ({"part": 1, "table": "states", "rows": [good, good]}, (422, "import/unfit")),
        ({"part": 1, "table": "snapshots", "rows": [["no-such-run", 1, "{}", 1]]}, (422, "import/unfit")),
        ({"part": 2, "table": "states", "rows": [good]}, (409, "import/part")),
        ({"part": 1, "table": "states", "rows": [good], "tenant_id": "default"}, (422, "request/invalid")),
    ):
        answer = await admin.post(path, json=body)
        assert code(answer) == said, (body, answer.text)
    assert sum((await rows_of(service, api.tenant)).values()) == 1
    await send(admin, file, import_id)
    assert (await admin.post(f"/v1/imports/{import_id}/finish")).status_code == 200


async def test_a_part_is_not_written_for_a_token_that_was_revoked_while_it_came(
    service: Service, api: Api, file: File
) -> None:
    """It was good when the request came: the part's own transaction looks again, as those of commands do."""
    import_id = (await begin(api.admin, file))["id"]
    path, whose = f"/v1/imports/{import_id}", "?tenant_id=system"
    made = (await api.admin.post("/v1/tokens", json={"name": "importer", "role": "admin"})).json()
    number, table, rows = next(iter(file.parts))
    part = json.dumps({"part": number, "table": table, "rows": rows}).encode()

    async def body() -> AsyncIterator[bytes]:
        yield part[:1]
        answer = await api.admin.delete(f"/v1/tokens/{made['token']['id']}{whose}")
        assert answer.status_code == 200, answer.text
        yield part[1:]

    headers = {"content-type": "application/json"}
    answer = await service.client(made["secret"]).post(f"{path}/parts", content=body(), headers=headers)
    assert code(answer) == (401, "auth/revoked")
    assert (await begin(api.admin, file))["next_part"] == number, "nothing of it was written"
    assert (await api.admin.delete(path)).status_code == 202


async def test_an_import_that_is_not_there_takes_nothing(api: Api) -> None:
    part = {"part": 1, "table": "states", "rows": [["run", "{}", 1]]}
    job = (await api.admin.delete(f"/v1/tenants/{api.tenant}")).json()["job_id"]
    for name in ("nothing", job):
        for answer in (
            await api.admin.post(f"/v1/imports/{name}/parts", json=part),
            await api.admin.post(f"/v1/imports/{name}/finish"),
            await api.admin.delete(f"/v1/imports/{name}"),
        ):
            assert code(answer) == (404, "not-found")


# ── until it is finished ───────────────────────────────────────────────────────────────────────────────────────────


async def test_nobody_can_use_a_tenant_before_its_import_is_finished(service: Service, api: Api, file: File) -> None:
    admin = api.admin
    began = await begin(admin, file)
    await send(admin, file, began["id"])
    path = f"/v1/tenants/{api.tenant}"
    assert (await api.http.get("/v1/queues")).status_code == 401, "its tokens did not travel"
    mint = {"tenant_id": api.tenant, "role": "owner", "name": "o"}
    assert code(await admin.post("/v1/tokens", json=mint)) == (404, "not-found")
    assert code(await admin.patch(path, json={"status": "active"})) == (403, "tenant/archived")
    assert code(await admin.post("/v1/tenants", json={"id": api.tenant})) == (409, "tenant/exists")
    assert (await admin.post(f"/v1/jobs/{began['id']}/cancel")).json()["code"] == "job/final"
    named = {"holdfast-tenant": api.tenant, "holdfast-reason": "curious"}
    assert code(await admin.get(f"{path}/export", headers=named)) == (403, "tenant/archived")
    await admin.post(f"/v1/imports/{began['id']}/finish")
    assert (await admin.get(path)).json()["status"] == "active"


async def test_an_import_goes_on_where_it_stopped(service: Service, api: Api, file: File) -> None:
    """An answer that was lost, a client that has lost everything but the file: nothing comes twice."""
    admin = api.admin
    began = await begin(admin, file)
    assert (began["created"], began["next_part"], began["rows_written"]) == (True, 1, 0)
    await send(admin, file, began["id"], last=4)
    await send(admin, file, began["id"], first=4, last=4)
    again = await begin(admin, file)
    assert (again["id"], again["created"], again["next_part"]) == (began["id"], False, 5)
    await send(admin, file, began["id"], first=5)
    finished = [(await admin.post(f"/v1/imports/{began['id']}/finish")) for _ in range(2)]
    assert finished[0].json() == finished[1].json()
    there = await arrived(service, api.tenant)
    assert (await export(there.http, api.tenant)).tables == file.tables
    job = (await admin.get(f"/v1/jobs/{began['id']}")).json()
    rows = sum(table["rows"] for table in file.manifest["tables"].values())
    assert (job["kind"], job["status"], job["done"], job["total"]) == ("tenant.import", "completed", rows, rows)


async def test_the_same_part_from_many_at_once_is_written_once(service: Service, api: Api, file: File) -> None:
    admin = api.admin
    import_id = (await begin(admin, file))["id"]
    for number, table, rows in file.parts:
        body = {"part": number, "table": table, "rows": rows}
        sent = [admin.post(f"/v1/imports/{import_id}/parts", json=body) for _ in range(4)]
        assert {answer.status_code for answer in await asyncio.gather(*sent)} == {200}
    finished = [admin.post(f"/v1/imports/{import_id}/finish") for _ in range(4)]
    assert {answer.status_code for answer in await asyncio.gather(*finished)} == {200}
    there = await arrived(service, api.tenant)
    assert (await export(there.http, api.tenant)).tables == file.tables


@pytest.mark.parametrize("how", ["late", "given up", "deleted"])
async def test_an_import_that_does_not_go_on_leaves_not_one_row(
    service: Service, api: Api, file: File, how: str
) -> None:
    admin = api.admin
    import_id = (await begin(admin, file))["id"]
    parts = list(file.parts)
    await send(admin, file, import_id, last=len(parts) - 1)
    if how == "late":
        service.clock.advance(IMPORT_MS - 1)
        await sweeps.erase(service.services)
        await send(admin, file, import_id, first=len(parts) - 1, last=len(parts) - 1)
        assert sum((await rows_of(service, api.tenant)).values()) > 1
        service.clock.advance(1)
    elif how == "given up":
        assert (await admin.delete(f"/v1/imports/{import_id}")).status_code == 202
    else:
        assert (await admin.delete(f"/v1/tenants/{api.tenant}")).status_code == 202
        service.clock.advance(IMPORT_MS)
    number, table, rows = parts[-1]
    late = await admin.post(f"/v1/imports/{import_id}/parts", json={"part": number, "table": table, "rows": rows})
    assert code(late) == (409, "import/ended")
    assert code(await admin.post(f"/v1/imports/{import_id}/finish")) == (409, "import/ended")
    await erased(service, service.clock)
    assert set((await rows_of(service, api.tenant)).values()) == {0}
    job = (await admin.get(f"/v1/jobs/{import_id}")).json()
    assert job["status"] == "failed"
    assert code(await admin.get(f"/v1/tenants/{api.tenant}")) == (404, "not-found")
    await import_(service, file)
    there = await arrived(service, api.tenant)
    assert (await export(there.http, api.tenant)).tables == file.tables


async def test_a_part_that_comes_between_two_pages_of_the_erasure_is_refused(
    service: Service, api: Api, file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeps, "PAGE", 3)
    monkeypatch.setattr(sweeps, "PAGES_A_ROUND", 1)
    admin = api.admin
    import_id = (await begin(admin, file))["id"]
    await send(admin, file, import_id, last=3)
    service.clock.advance(IMPORT_MS)
    while sum((await rows_of(service, api.tenant)).values()) > 1:
        await sweeps.erase(service.services)
        number, table, rows = list(file.parts)[3]
        late = await admin.post(f"/v1/imports/{import_id}/parts", json={"part": number, "table": table, "rows": rows})
        assert code(late) == (409, "import/ended")


async def test_the_systems_log_tells_of_imports(service: Service, api: Api, file: File) -> None:
    await import_(service, file)
    told = [line for line in await lines_of(api.admin) if line["target"] == api.tenant]
    assert [line["action"] for line in told][-2:] == ["tenant.importing", "tenant.imported"]
    assert told[-1]["detail"]["sha256"] == file.manifest["sha256"]
    assert (await api.admin.post("/v1/audit:verify")).json()["whole"] is True


async def test_sweeps_leave_an_import_alone(service: Service, api: Api, file: File) -> None:
    """Due work of a tenant that is half there waits, or is done as it would be later; either way all of it arrives."""
    from service.work import sweeps as work

    admin = api.admin
    began = await begin(admin, file)
    for number, table, rows in file.parts:
        await admin.post(f"/v1/imports/{began['id']}/parts", json={"part": number, "table": table, "rows": rows})
        await work.promote(service.services)
        await work.reclaim(service.services)
        await sweeps.erase(service.services)
    assert (await admin.post(f"/v1/imports/{began['id']}/finish")).status_code == 200
    there = await arrived(service, api.tenant)
    again = await export(there.http, api.tenant)
    assert {name: rows for name, (rows, _) in again.tables.items()} == {
        name: rows for name, (rows, _) in file.tables.items()
    }
    assert set(again.manifest["tables"]) - set(again.tables) == TOLD
    assert json.loads(file.lines[0])["tenant_id"] == api.tenant


async def test_an_export_ends_with_its_token_while_it_is_sent(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await api.ok("POST", "/v1/tokens", json={"name": "thief", "role": "owner"})
    monkeypatch.setattr(exports, "CHUNK", 64)
    parts: list[bytes] = []

    async def ends_after_a_part(part: bytes) -> None:
        parts.append(part)
        if len(parts) == 2:
            await api.ok("DELETE", f"/v1/tokens/{made['token']['id']}")

    path = f"/v1/tenants/{api.tenant}/export"
    said, whole = await received(api, path, made["secret"], ends_after_a_part)
    assert (len(parts), whole, len(said)) == (2, False, len(parts[0]) + 64), "the manifest and one part"


async def test_an_export_whose_token_ended_while_it_was_made_is_not_sent(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await api.ok("POST", "/v1/tokens", json={"name": "thief", "role": "owner"})
    begin = exports.Spool.begin

    def begun(spool: exports.Spool) -> None:
        begin(spool)
        ended.append(asyncio.ensure_future(api.ok("DELETE", f"/v1/tokens/{made['token']['id']}")))

    ended: list[asyncio.Future[Any]] = []
    monkeypatch.setattr(exports.Spool, "begin", begun)
    table = exports.read_table

    async def read_once_it_has_ended(*of: Any) -> None:
        await ended[0]
        await table(*of)

    monkeypatch.setattr(exports, "read_table", read_once_it_has_ended)
    answer = await api.service.client(made["secret"]).get(f"/v1/tenants/{api.tenant}/export")
    assert code(answer) == (401, "auth/revoked")
