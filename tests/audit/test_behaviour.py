"""What auditors may rely on: a line for each act, a chain that nobody changes unseen, an export that proves itself."""

import json
from typing import Any

import httpx
import pytest

from backends.protocol import Tx
from service.audit import exported, sweeps
from service.kernel import chain
from tests.audit.steps import DAY_MS, acts, lines_of, received, tamper, verdict
from tests.conftest import Api, Service, serving
from tests.work.steps import bury


async def export(client: httpx.AsyncClient, after: int = 0) -> list[bytes]:
    """The lines of an export."""
    answer = await client.get(f"/v1/audit:export?after={after}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
    assert answer.headers["cache-control"] == "no-store"
    return answer.content.splitlines(keepends=True)


# ── what is told ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_an_operator_does_to_an_execution_is_a_line(api: Api) -> None:
    operator = await api.as_role("operator")
    run = (await api.start())["execution_id"]
    for status in ("paused", "running", "cancelled"):
        body = {"status": status, "reason": "ticket 7"}
        assert (await operator.post(f"/v1/executions/{run}/status", json=body)).status_code == 200
    other = (await api.start())["execution_id"]
    ending = {"changes": [{"type": "set_status", "status": "terminated"}]}
    assert (await operator.post(f"/v1/executions/{other}/transitions", json=ending)).status_code == 200
    ended = {way: (await api.start())["execution_id"] for way in ("cancel", "terminate")}
    for way, one in ended.items():
        answer = await operator.post(f"/v1/executions/{one}/{way}", json={"reason": "ticket 8"})
        assert answer.status_code == 200, answer.text
    told = [(line["action"], line["target"], line["detail"]["from"]) for line in await acts(api, "execution.")]
    assert told == [
        ("execution.paused", run, "running"), ("execution.resumed", run, "paused"),
        ("execution.cancelled", run, "running"), ("execution.terminated", other, "running"),
        ("execution.cancelled", ended["cancel"], "running"), ("execution.terminated", ended["terminate"], "running"),
    ]  # fmt: skip
    assert [line["detail"]["reason"] for line in (await acts(api, "execution."))[-2:]] == ["ticket 8"] * 2
    assert (await acts(api, "execution.paused"))[0]["detail"]["reason"] == "ticket 7"
    assert {line["actor"] for line in await acts(api, "execution.")} != {"system"}


async def test_a_line_tells_the_request_and_where_it_came_from(api: Api) -> None:
    named = {"x-request-id": "ticket-7"}
    await api.http.put("/v1/definitions/wf/1?validate=false", json={"a": 1}, headers=named)
    support = {"holdfast-tenant": api.tenant, "holdfast-reason": "ticket 7", "x-request-id": "ticket-8"}
    await api.admin.get("/v1/executions", headers=support)
    minted, stored, read = await lines_of(api.http)
    assert (stored["request_id"], stored["source"]) == ("ticket-7", "127.0.0.1")
    assert (read["action"], read["request_id"], read["source"]) == ("support.read", "ticket-8", "127.0.0.1")
    assert (minted["request_id"], minted["source"]) == (None, None), "the service itself"


async def test_what_runs_an_execution_is_no_line(api: Api) -> None:
    run = (await api.start(start={"queue": "q"}))["execution_id"]
    [item] = await api.claim("q")
    await api.ok("POST", f"/v1/work-items/{item['id']}/complete", json={"epoch": item["epoch"]})
    await api.ok("POST", f"/v1/executions/{run}/status", json={"status": "completed"})
    assert {line["action"] for line in await lines_of(api.http)} == {"token.minted"}


async def test_every_act_of_an_operator_is_a_line(api: Api) -> None:
    await api.ok("PUT", "/v1/definitions/wf/1?validate=false", json={"a": 1})
    await api.ok("DELETE", "/v1/definitions/wf/1")
    await api.ok("POST", "/v1/queues/q/pause")
    await api.ok("POST", "/v1/queues/q/resume")
    await api.ok("POST", f"/v1/dead-letters/{await bury(api, 'p')}/requeue", json={})
    await api.ok("DELETE", f"/v1/dead-letters/{await bury(api, 'p')}")
    await api.ok("POST", "/v1/work-items", json={"id": "w", "queue": "z"})
    await api.ok("POST", "/v1/work-items/w/dead-letter", json={"error": {"type": "broken"}})
    job = await api.ok("POST", "/v1/dead-letters:redrive", json={"rate_per_second": 1})
    await api.ok("POST", f"/v1/jobs/{job['job_id']}/cancel")
    token = (await api.ok("POST", "/v1/tokens", json={"name": "n", "role": "viewer"}))["token"]["id"]
    await api.ok("POST", f"/v1/tokens/{token}/rotate", json={})
    await api.ok("DELETE", f"/v1/tokens/{token}")
    told = {line["action"] for line in await lines_of(api.http)}
    assert told == {
        "definition.stored", "definition.deleted", "queue.paused", "queue.resumed", "work.requeued", "work.discarded",
        "work.dead_lettered", "work.redriven", "job.cancelled", "token.minted", "token.rotated", "token.revoked",
    }  # fmt: skip


async def test_what_happens_to_a_tenant_is_a_line_of_the_systems_log(api: Api) -> None:
    path = f"/v1/tenants/{api.tenant}"
    await api.admin.patch(path, json={"status": "suspended", "limits": {"tokens": 7}})
    await api.admin.delete(path)
    told = [line for line in await lines_of(api.admin) if line["target"] == api.tenant]
    assert [line["action"] for line in told] == ["tenant.created", "tenant.updated", "tenant.deleting"]
    assert told[1]["detail"] == {"status": "suspended", "version": 2, "changed": ["status", "limits"]}


async def test_a_refused_act_leaves_no_line(api: Api) -> None:
    run = (await api.start())["execution_id"]
    await api.ok("POST", f"/v1/executions/{run}/status", json={"status": "cancelled"})
    before = await lines_of(api.http)
    await api.refused("POST", f"/v1/executions/{run}/status", "execution/terminal", json={"status": "terminated"})
    await api.refused("POST", "/v1/dead-letters/none/requeue", "not-found", json={})
    assert await lines_of(api.http) == before


async def test_an_act_whose_line_cannot_be_written_does_not_happen(service: Service) -> None:
    api = await service.tenant()
    await tamper(service, "UPDATE audit_heads SET sequence = sequence - 1 WHERE tenant_id = '{}'", api.tenant)
    answer = await api.http.put("/v1/definitions/wf/1?validate=false", json={"a": 1})
    assert answer.status_code == 503
    await api.refused("GET", "/v1/definitions/wf/1", "not-found")


# ── whole or not ───────────────────────────────────────────────────────────────────────────────────────────────────


async def written(api: Api, count: int = 5) -> None:
    """Some lines in the tenant's log."""
    for number in range(count):
        await api.ok("POST", "/v1/tokens", json={"name": f"n{number}", "role": "viewer"})


async def test_a_chain_that_nobody_touched_is_whole(api: Api) -> None:
    await written(api)
    found = await verdict(api)
    assert (found["whole"], found["lines"], found["after"]["sequence"], found["fault"]) == (True, 6, 0, None)
    assert found["through"] == {"sequence": 6, "hash": (await lines_of(api.http))[-1]["hash"]}


TAMPERED = {
    "changed": ["UPDATE audit SET actor = 'nobody' WHERE tenant_id = '{}' AND sequence = 3"],
    "a detail changed": ["UPDATE audit SET detail = NULL WHERE tenant_id = '{}' AND sequence = 3"],
    "another source": ["UPDATE audit SET source = 'x' WHERE tenant_id = '{}' AND sequence = 3"],
    "another request": ["UPDATE audit SET request_id = 'x' WHERE tenant_id = '{}' AND sequence = 3"],
    "another time": ["UPDATE audit SET at = at - 1 WHERE tenant_id = '{}' AND sequence = 3"],
    "removed": ["DELETE FROM audit WHERE tenant_id = '{}' AND sequence = 3"],
    "removed and closed up": [
        "DELETE FROM audit WHERE tenant_id = '{}' AND sequence = 3",
        "UPDATE audit SET sequence = 3 WHERE tenant_id = '{}' AND sequence = 4",
    ],
    "two in the other order": [
        "UPDATE audit SET sequence = 99 WHERE tenant_id = '{}' AND sequence = 3",
        "UPDATE audit SET sequence = 3 WHERE tenant_id = '{}' AND sequence = 4",
        "UPDATE audit SET sequence = 4 WHERE tenant_id = '{}' AND sequence = 99",
    ],
    "a copy at the end": [
        "INSERT INTO audit SELECT tenant_id, 7, at, actor, action, target, detail, hash, request_id, source FROM audit"
        " WHERE tenant_id = '{}' AND sequence = 6"
    ],
    "a copy before the beginning": [
        "INSERT INTO audit SELECT tenant_id, -1, at, actor, action, target, detail, hash, request_id, source FROM audit"
        " WHERE tenant_id = '{}' AND sequence = 6"
    ],
    "the end cut off": ["DELETE FROM audit WHERE tenant_id = '{}' AND sequence > 4"],
    "the end cut off, and the head told so": [
        "UPDATE audit_heads SET sequence = 4 WHERE tenant_id = '{}'",
        "DELETE FROM audit WHERE tenant_id = '{}' AND sequence > 4",
    ],
    "the beginning cut off": ["DELETE FROM audit WHERE tenant_id = '{}' AND sequence < 3"],
    "the beginning cut off, and a checkpoint written": [
        "INSERT INTO audit_checkpoints SELECT tenant_id, sequence, hash, at FROM audit"
        " WHERE tenant_id = '{}' AND sequence = 2",
        "DELETE FROM audit WHERE tenant_id = '{}' AND sequence < 3",
    ],
    "all gone": ["DELETE FROM audit WHERE tenant_id = '{}'"],
}


@pytest.mark.parametrize("statements", TAMPERED.values(), ids=TAMPERED)
@pytest.mark.parametrize("page", [2, 1000])
async def test_a_chain_that_was_tampered_with_is_not_whole(
    api: Api, other: Api, statements: list[str], page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "PAGE", page)
    await written(api)
    for statement in statements:
        await tamper(api.service, statement, api.tenant)
    found = await verdict(api)
    assert found["whole"] is False
    assert found["fault"]
    assert (await verdict(other))["whole"] is True


async def test_another_tenants_line_does_not_fit_in(api: Api, other: Api) -> None:
    await written(api)
    await written(other, 7)
    statement = (
        f"INSERT INTO audit SELECT '{api.tenant}', sequence, at, actor, action, target, detail, hash,"
        " request_id, source FROM audit WHERE tenant_id = '{}' AND sequence = 7"
    )
    await tamper(api.service, statement, other.tenant)
    assert (await verdict(api))["whole"] is False


# ── export ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("page", [2, 1000])
async def test_an_export_holds_every_line_and_proves_itself(
    api: Api, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    await written(api)
    with monkeypatch.context() as patch:
        patch.setattr(chain, "PAGE", page)
        lines = await export(api.http)
    head, *rest = [json.loads(line) for line in lines]
    assert (head["format"], head["tenant_id"], head["after"]["sequence"]) == ("holdfast.audit", api.tenant, 0)
    assert rest == await lines_of(api.http)
    manifest, followed = exported.verified(lines)
    assert (manifest.tenant_id, followed.lines, followed.fault) == (api.tenant, 6, None)


async def test_an_export_goes_on_where_an_earlier_one_ended(api: Api) -> None:
    await written(api)
    first, second = await export(api.http), await export(api.http, after=4)
    assert second[1:] == first[5:]
    assert exported.verified(second)[1].fault is None
    assert json.loads(second[0])["after"] == {"sequence": 4, "hash": json.loads(first[4])["hash"]}
    [nothing] = await export(api.http, after=99)
    assert json.loads(nothing)["after"] == json.loads(nothing)["through"] == json.loads(first[0])["through"]


async def test_an_export_ends_with_its_token(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    await written(api)
    made = await api.ok("POST", "/v1/tokens", json={"name": "auditor", "role": "auditor"})
    monkeypatch.setattr(chain, "PAGE", 2)
    parts: list[bytes] = []

    async def ends_after_a_page(part: bytes) -> None:
        parts.append(part)
        if len(parts) == 2:
            await api.ok("DELETE", f"/v1/tokens/{made['token']['id']}")

    said, whole = await received(api, "/v1/audit:export", made["secret"], ends_after_a_page)
    lines = said.splitlines()
    assert (len(lines), whole) == (3, False), "the manifest, and the lines of one page"
    assert exported.verified(lines)[1].fault is not None


SPOILT: dict[str, Any] = {
    "a line changed": lambda lines: [*lines[:2], lines[2].replace(b"token.minted", b"token.kepted"), *lines[3:]],
    "a line taken out": lambda lines: [*lines[:2], *lines[3:]],
    "two in the other order": lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]],
    "a line twice": lambda lines: [*lines[:3], lines[2], *lines[3:]],
    "cut off": lambda lines: lines[:-1],
    "another tenant": lambda lines: [lines[0].replace(b'"tenant_id":"t', b'"tenant_id":"u'), *lines[1:]],
    "another end": lambda lines: [lines[0].replace(b'"sequence":6', b'"sequence":5'), *lines[1:-1]],
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
async def test_an_export_that_was_tampered_with_is_not_whole(api: Api, spoil: Any) -> None:
    await written(api)
    lines = await export(api.http)
    assert spoil(lines) != lines
    assert exported.verified(spoil(lines))[1].fault is not None


@pytest.mark.parametrize("lines", [[], [b"{}"], [b"no json"], [b'{"format":"x"}'], [b"\xff"]])
def test_a_file_that_is_no_export_is_said_to_be_none(lines: list[bytes]) -> None:
    with pytest.raises(exported.NotAnExport):
        exported.verified(lines)


async def test_a_line_with_a_number_that_no_store_holds_is_none_of_an_export(api: Api) -> None:
    await written(api)
    lines = await export(api.http)
    lines[1] = lines[1].replace(b'"at":', b'"at":99999999')
    with pytest.raises(exported.NotAnExport, match="line 2"):
        exported.verified(lines)


async def test_the_systems_log_is_exported_to_its_administrator_and_no_tenants(api: Api) -> None:
    lines = await export(api.admin)
    assert json.loads(lines[0])["tenant_id"] is None
    assert exported.verified(lines)[1].fault is None
    assert api.tenant in {json.loads(line)["target"] for line in lines[1:]}


# ── retention ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def trim(api: Api, days: int) -> None:
    """One round of the sweep, with so many days to keep."""
    services = api.service.services
    settings = type("Kept", (), {"audit_days": days})
    await sweeps.let_go(type("Of", (), {"backend": services.backend, "settings": settings}))


@pytest.fixture
async def own(fresh_url: str) -> Any:
    """A tenant in a store of its own, whose clock may be moved by years."""
    async with serving(fresh_url) as service:
        yield await service.tenant()


async def test_lines_past_their_days_go_and_the_chain_is_still_whole(own: Api) -> None:
    await written(own)
    own.clock.advance(10 * DAY_MS)
    await own.ok("PUT", "/v1/definitions/wf/1?validate=false", json={"a": 1})
    last = (await lines_of(own.http))[5]
    await trim(own, 5)
    kept = await lines_of(own.http)
    assert [line["action"] for line in kept] == ["definition.stored", "audit.trimmed"]
    assert kept[-1]["detail"] == {"sequence": 6, "hash": last["hash"], "lines": 6}
    found = await verdict(own)
    assert (found["whole"], found["lines"], found["after"]) == (True, 2, {"sequence": 6, "hash": last["hash"]})
    lines = await export(own.http)
    assert (json.loads(lines[0])["after"], exported.verified(lines)[1].fault) == (found["after"], None)
    system = (await own.admin.post("/v1/audit:verify")).json()
    assert (system["whole"], system["after"]["sequence"]) == (True, 2), "the system's own lines go too"
    await own.ok("DELETE", "/v1/definitions/wf/1")
    assert (await verdict(own))["lines"] == 3, "and the chain goes on"


async def test_zero_days_keep_everything_and_young_lines_stay(own: Api) -> None:
    await written(own)
    own.clock.advance(10 * DAY_MS)
    for days in (0, 10, 11):
        await trim(own, days)
    assert len(await lines_of(own.http)) == 6


async def test_a_trimming_is_no_reason_for_another(own: Api) -> None:
    await written(own)
    for _ in range(5):
        own.clock.advance(10 * DAY_MS)
        await trim(own, 5)
    assert [line["action"] for line in await lines_of(own.http)] == ["audit.trimmed"]
    await written(own, 1)
    own.clock.advance(10 * DAY_MS)
    await trim(own, 5)
    [line] = await lines_of(own.http)
    assert line["detail"]["lines"] == 2
    assert (await verdict(own))["whole"] is True


async def test_pages_of_old_lines_go_one_after_another(own: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "PAGE", 2)
    await written(own, 6)
    own.clock.advance(10 * DAY_MS)
    await trim(own, 5)
    kept = await lines_of(own.http)
    assert {line["action"] for line in kept} == {"audit.trimmed"}
    assert kept[-1]["detail"]["sequence"] == 7
    assert (await verdict(own))["whole"] is True


async def test_a_chain_that_is_broken_is_not_trimmed(own: Api) -> None:
    await written(own)
    await tamper(own.service, "UPDATE audit SET actor = 'nobody' WHERE tenant_id = '{}' AND sequence = 2", own.tenant)
    own.clock.advance(10 * DAY_MS)
    await trim(own, 5)
    assert len(await lines_of(own.http)) == 6
    assert (await verdict(own))["whole"] is False


FORGED = {
    "the checkpoint moved on": [
        "UPDATE audit_checkpoints SET sequence = 7, hash = (SELECT a.hash FROM audit a"
        " WHERE a.tenant_id = '{}' AND a.sequence = 7) WHERE tenant_id = '{}'",
        "DELETE FROM audit WHERE tenant_id = '{}' AND sequence <= 7",
    ],
    "the checkpoint taken away": ["DELETE FROM audit_checkpoints WHERE tenant_id = '{}'"],
    "another hash": ["UPDATE audit_checkpoints SET hash = 'x' WHERE tenant_id = '{}'"],
    "a line put back": [
        "INSERT INTO audit SELECT tenant_id, 3, at, actor, action, target, detail, hash, request_id, source FROM audit"
        " WHERE tenant_id = '{}' AND sequence = 7"
    ],
}


@pytest.mark.parametrize("statements", FORGED.values(), ids=FORGED)
async def test_a_checkpoint_that_was_tampered_with_is_found(own: Api, statements: list[str]) -> None:
    await written(own)
    own.clock.advance(10 * DAY_MS)
    await written(own, 3)
    await trim(own, 5)
    assert (await verdict(own))["whole"] is True
    for statement in statements:
        await tamper(own.service, statement.replace("{}", own.tenant), own.tenant)
    assert (await verdict(own))["whole"] is False


async def test_an_export_is_cut_off_when_its_lines_go_meanwhile(own: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has begun cannot become another status: it ends before the line that its manifest names."""
    monkeypatch.setattr(chain, "PAGE", 2)
    await written(own)
    backend = own.service.services.backend
    read, asked = backend.read, []

    async def trimming(work: Any, **how: Any) -> Any:
        asked.append(work)
        if len(asked) == 4:  # the caller's standing, both ends, the first page; then

            async def let_go(tx: Tx) -> int:
                return await chain.trim(tx, own.tenant, own.clock.now + 1)

            await backend.write(let_go)
            await backend.write(let_go)
        return await read(work, **how)

    with monkeypatch.context() as patch:
        patch.setattr(backend, "read", trimming)
        sent, whole = await received(own, "/v1/audit:export")
    lines = sent.splitlines()
    assert not whole
    assert 1 < len(lines) < 7
    assert exported.verified(lines)[1].fault is not None
