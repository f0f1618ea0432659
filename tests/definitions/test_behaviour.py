"""What callers may rely on of definitions: immutable versions, every error at once, bytes kept as they were sent."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backends.protocol import Tx
from service.executions.model import Execution
from tests.conftest import Api

JSON = {"content-type": "application/json"}
REAL = Path(__file__).parents[3] / "shared" / "data" / "ir"


def ir(workflow_id: str = "wf", version: str = "1", **changes: Any) -> dict[str, Any]:
    """A valid definition of two nodes."""
    return {
        "workflow_id": workflow_id, "version": version, "start_node": "a",
        "nodes": {"a": {"id": "a", "kind": {"type": "model"}}, "b": {"id": "b", "kind": {"type": "tool"}}},
        "edges": [{"from": "a", "to": "b"}, {"from": "b", "to": "end"}], "retry_policies": {},
    } | changes  # fmt: skip


def path(workflow_id: str = "wf", version: str = "1") -> str:
    return f"/v1/definitions/{workflow_id}/{version}"


async def store(api: Api, workflow_id: str = "wf", version: str = "1", **params: Any) -> Any:
    return await api.ok("PUT", path(workflow_id, version), json=ir(workflow_id, version), params=params)


async def versions(api: Api, **params: Any) -> list[tuple[str, str]]:
    found = await api.ok("GET", "/v1/definitions", params=params)
    return [(one["workflow_id"], one["version"]) for one in found["items"]]


# ── immutable ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_version_is_stored_and_read(api: Api) -> None:
    answer = await api.http.put(path(), json=ir())
    stored = answer.json()
    assert (answer.status_code, stored["created"], stored["revision"]) == (201, True, 1)
    found = await api.ok("GET", path())
    assert (found["workflow_id"], found["version"], found["definition"]) == ("wf", "1", ir())
    assert (found["digest"], found["created_at"], found["validated"]) == (stored["digest"], api.clock.now, True)


async def test_the_same_digest_again_changes_nothing(api: Api) -> None:
    first = await store(api)
    api.clock.advance(5)
    turned = msgspec.json.format(msgspec.json.encode(dict(reversed(ir().items()))), indent=3)
    again = await api.http.put(path(), content=turned, headers=JSON)
    assert (again.status_code, again.json()) == (200, first | {"created": False})
    assert (await api.ok("GET", path()))["created_at"] == api.clock.now - 5
    assert (await api.http.get(path())).content.count(b"\n") == 0


async def test_another_body_for_the_same_version_is_refused(api: Api) -> None:
    first = await store(api)
    problem = await api.refused("PUT", path(), "definition/conflict", json=ir(description="new"))
    assert (problem["status"], problem["current_digest"]) == (409, first["digest"])
    assert problem["offered_digest"] != first["digest"]
    assert (await api.ok("GET", path()))["definition"] == ir()


async def test_stores_at_once_of_one_version_make_one(api: Api) -> None:
    bodies = [ir(), ir(description="other")]
    answers = await asyncio.gather(*(api.http.put(path(), json=bodies[n % 2]) for n in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [201] + [409] * 4
    assert len(await versions(api)) == 1


async def test_stores_at_once_of_many_versions_each_have_a_revision(api: Api) -> None:
    made = await asyncio.gather(*(store(api, version=str(n)) for n in range(12)))
    assert sorted(one["revision"] for one in made) == list(range(1, 13))


async def test_definitions_come_back_byte_for_byte(api: Api) -> None:
    text = msgspec.json.format(
        msgspec.json.encode(ir(extra={"null": None, "deep": [1.50, {"é": None}]}, description=None))
    )
    odd = text.replace(b"1.5,", b"1.50,").replace(b'"deep"', b'"d\\u0065ep"').replace(b"\n", b"\r\n\t")
    answer = await api.http.put(path(), content=odd, headers=JSON)
    assert answer.status_code == 201, answer.text
    assert b'"definition":' + odd in (await api.http.get(path())).content
    assert (await api.ok("GET", path()))["definition"]["extra"] == {"null": None, "deep": [1.5, {"é": None}]}


async def test_unknown_kinds_and_keys_and_explicit_nulls_are_nobodys_mistake(api: Api) -> None:
    node = {"id": "a", "kind": {"type": "not.yet.known", "x": [None]}, "retry_policy": None, "mine": {"y": None}}
    body = ir(nodes={"a": node}, edges=[{"from": "a", "to": "end", "condition": None, "z": 1}], timeouts=None, own=None)
    await api.ok("PUT", path(), json=body)
    assert (await api.ok("GET", path()))["definition"] == body


@pytest.mark.parametrize("name", ["hello_agent.json", "fleet_researcher.json"])
async def test_real_definitions_are_valid_and_kept(api: Api, name: str) -> None:
    if not REAL.is_dir():
        pytest.skip(f"{REAL} is not there")
    text = (REAL / name).read_bytes()
    document = msgspec.json.decode(text)
    assert (await api.ok("POST", "/v1/definitions:validate", content=text, headers=JSON)) == {
        "valid": True,
        "errors": [],
    }
    where = path(document["workflow_id"], document["version"])
    await api.ok("PUT", where, content=text, headers=JSON)
    assert b'"definition":' + text in (await api.http.get(where)).content
    made = await api.start(workflow_id=document["workflow_id"], version=document["version"], start={})
    start = document["nodes"][document["start_node"]]
    [item] = await api.claim(start["kind"]["type"])
    assert (item["execution_id"], item["node_id"]) == (made["execution_id"], document["start_node"])


# ── latest ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_latest_is_the_one_stored_last_whatever_its_name(api: Api) -> None:
    await store(api, version="2")
    await store(api, version="10")
    await store(api, version="1")
    await store(api, version="10")
    for where in ("/v1/definitions/wf", path(version="latest")):
        assert (await api.ok("GET", where))["version"] == "1"


async def test_when_the_latest_is_deleted_the_one_before_is(api: Api) -> None:
    await store(api, version="1")
    await store(api, version="2")
    await api.ok("DELETE", path(version="2"))
    assert (await api.ok("GET", "/v1/definitions/wf"))["version"] == "1"
    assert (await store(api, version="3"))["revision"] == 3


async def test_nothing_can_be_called_latest(api: Api) -> None:
    await api.refused("PUT", path(version="latest"), "request/malformed", json=ir(version="latest"))


@pytest.mark.parametrize("version", ["%2E", "%2e%2E", "latest", "a%2Fb"])
@pytest.mark.parametrize("validate", ["true", "false"])
async def test_a_version_that_no_path_can_name_is_not_stored(api: Api, version: str, validate: str) -> None:
    code = "request/route" if "%2F" in version else "request/malformed"
    said = await api.refused("PUT", path(version=version), code, json=ir(), params={"validate": validate})
    assert "%2F" in version or "`latest`, `.` and `..` are taken" in said["detail"]
    assert await versions(api) == []


@pytest.mark.parametrize("where", [path(), "/v1/definitions/wf", path(version="latest")])
async def test_what_is_not_there_or_anothers_is_the_same_404(api: Api, other: Api, where: str) -> None:
    missing = await api.refused("GET", where, "not-found")
    await store(other)
    assert await api.refused("GET", where, "not-found") == missing
    await api.refused("DELETE", path(), "not-found")
    assert (await store(api))["created"]


@pytest.mark.parametrize("version", ["0.1.0+sha.9", "2026-06-29", "v 1", "é", "x" * 64, "..."])
async def test_a_version_is_any_short_text(api: Api, version: str) -> None:
    await api.ok("PUT", path(version=version), json=ir(version=version))
    assert (await api.start(version=version))["version"] == version


@pytest.mark.parametrize(("workflow_id", "version"), [("wf", "x" * 65), ("x" * 129, "1"), ("a b", "1"), ("ü", "1")])
async def test_names_that_no_start_could_name_are_refused(api: Api, workflow_id: str, version: str) -> None:
    body = ir(workflow_id, version)
    await api.refused("PUT", path(workflow_id, version), "request/malformed", json=body)


# ── validation ─────────────────────────────────────────────────────────────────────────────────────────────────────


WRONG = ir(
    workflow_id="other",
    start_node="nowhere",
    nodes={
        "a": {"id": "not-a", "kind": {"type": "model"}, "retry_policy": "unheard-of", "node_timeout_secs": 0},
        "c": {"id": "c", "kind": {"type": "condition", "branches": [{"target": "lost"}, {"target": "a"}]}},
    },
    edges=[{"from": "a", "to": "nobody"}, {"from": "nobody", "to": "end"}],
    retry_policies={"bad": {"max_attempts": 0, "backoff": "sideways"}},
)


async def test_all_errors_are_told_at_once_with_their_places(api: Api) -> None:
    problem = await api.refused("PUT", path(version="2"), "definition/invalid", json=WRONG)
    assert problem["status"] == 422
    pointers = {error["pointer"] for error in problem["errors"]}
    assert pointers >= {
        "/workflow_id", "/version", "/start_node", "/nodes/a/id", "/nodes/a/retry_policy", "/nodes/a/node_timeout_secs",
        "/nodes/c/kind/branches/0/target", "/nodes/c/kind/branches/1/target", "/edges/0/to", "/edges/1/from",
        "/retry_policies/bad/max_attempts", "/retry_policies/bad/backoff",
    }  # fmt: skip
    assert all(error["detail"] for error in problem["errors"])
    assert await versions(api) == []


@pytest.mark.parametrize(
    ("edges", "said"), [(1, "has 1 error;"), (2, "has 2 errors;"), (1_500, "has 1000 errors; there may be more;")]
)
async def test_how_many_errors_there_are_is_told_as_far_as_it_is_known(api: Api, edges: int, said: str) -> None:
    nowhere = [{"from": "a", "to": f"nowhere-{n}"} for n in range(edges)]
    problem = await api.refused("PUT", path(), "definition/invalid", json=ir(edges=ir()["edges"] + nowhere))
    assert said in problem["detail"], problem["detail"]


async def test_validation_tells_the_same_and_stores_nothing(api: Api) -> None:
    found = await api.ok("POST", "/v1/definitions:validate", json=WRONG)
    assert found["valid"] is False
    assert len(found["errors"]) >= 10
    assert await api.ok("POST", "/v1/definitions:validate", json=ir()) == {"valid": True, "errors": []}
    assert await versions(api) == []


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"nodes": {}}, "/nodes"),
        ({"edges": [{"from": "a", "to": "b"}]}, "/nodes/b"),
        ({"edges": [{"from": "a", "to": "end"}, {"from": "b", "to": "end"}]}, "/nodes/b"),
        ({"edges": [{"from": "a", "to": "b"}, {"from": "b", "to": "a"}, {"from": "b", "to": "end"}]}, "/edges/1"),
        ({"timeouts": {"workflow_timeout_secs": -1}}, "/timeouts/workflow_timeout_secs"),
        ({"start_node": None}, "/start_node"),
    ],
)
async def test_a_graph_that_cannot_run_is_refused(api: Api, changes: Any, pointer: str) -> None:
    problem = await api.refused("PUT", path(), "definition/invalid", json=ir(**changes))
    assert pointer in {error["pointer"] for error in problem["errors"]}


async def test_without_validation_any_object_is_kept(api: Api) -> None:
    body = {"steps": ["mine"], "nodes": None, "start_node": 5}
    stored = await api.http.put(path(), json=body, params={"validate": "false"})
    assert stored.status_code == 201
    found = await api.ok("GET", path())
    assert (found["definition"], found["validated"]) == (body, False)
    made = await api.start(version="1", start={})
    [item] = await api.claim("default")
    assert (item["execution_id"], item["node_id"]) == (made["execution_id"], None)


@pytest.mark.parametrize("text", [b"[]", b"1", b"null", b'"x"'])
async def test_a_definition_is_an_object(api: Api, text: bytes) -> None:
    for params in ({}, {"validate": "false"}):
        answer = await api.http.put(path(), content=text, headers=JSON, params=params)
        assert answer.status_code == 422, answer.text


@pytest.mark.parametrize("text", [b"", b"{", b'{"a":}', b'\xff{"a":1}', b'{"a":"\\u0000"}', b"[" * 200 + b"]" * 200])
async def test_a_definition_is_json_that_can_be_kept(api: Api, text: bytes) -> None:
    for where in (path(), "/v1/definitions:validate"):
        method = "PUT" if where == path() else "POST"
        await api.refused(method, where, "request/json", content=text, headers=JSON)


@pytest.mark.parametrize(
    "query",
    [
        {"snapshot_events": "-1"}, {"snapshot_events": "x"}, {"snapshot_bytes": "-1"}, {"snapshot_bytes": "1.5"},
        {"snapshot_bytes": "1073741825"}, {"snapshot_keep": "0"}, {"snapshot_keep": "101"}, {"snapshot_keep": ""},
        {"validate": "maybe"}, {"dry": "1"},
    ],
)  # fmt: skip
async def test_parameters_that_nobody_knows_are_refused(api: Api, query: dict[str, str]) -> None:
    await api.refused("PUT", path(), "request/malformed", json=ir(), params=query)


POLICY = ("snapshot_events", "snapshot_bytes", "snapshot_keep")


async def policy(api: Api) -> tuple[int, ...]:
    """The snapshot policy that a run of the stored version is pinned to."""
    made = await api.start(version="1")

    async def read(tx: Tx) -> Any:
        return await tx.all("load_executions", rows=[(api.tenant, made["execution_id"], None)])

    [row] = await api.service.services.backend.write(read)
    execution = Execution(*row)
    return tuple(getattr(execution, name) for name in POLICY)


@pytest.mark.parametrize(
    ("asked", "pinned"),
    [
        ({}, (200, 0, 3)), ({"snapshot_bytes": 1 << 30}, (200, 1 << 30, 3)),
        ({"snapshot_events": 0, "snapshot_bytes": 0, "snapshot_keep": 1}, (0, 0, 1)),
        ({"snapshot_events": 7, "snapshot_bytes": 65_536, "snapshot_keep": 100}, (7, 65_536, 100)),
        ({"validate": "false", "snapshot_keep": 5}, (200, 0, 5)),
    ],
)  # fmt: skip
async def test_a_run_is_pinned_to_the_snapshot_policy_of_its_version(
    api: Api, asked: dict[str, Any], pinned: tuple[int, ...]
) -> None:
    await store(api, **asked)
    assert await policy(api) == pinned


async def test_a_stored_version_keeps_its_snapshot_policy(api: Api) -> None:
    await store(api, snapshot_events=5, snapshot_bytes=100, snapshot_keep=2)
    assert (await store(api, snapshot_events=6, snapshot_bytes=101, snapshot_keep=4))["created"] is False
    assert await policy(api) == (5, 100, 2)


# ── lists ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_lists_are_newest_first_and_filtered(api: Api, other: Api) -> None:
    await store(other, "theirs")
    for workflow_id, version in (("wf", "1"), ("wf", "2"), ("order-x", "1"), ("order-y", "1")):
        api.clock.advance(1)
        await store(api, workflow_id, version)
    assert await versions(api) == [("order-y", "1"), ("order-x", "1"), ("wf", "2"), ("wf", "1")]
    assert await versions(api, workflow_id="wf") == [("wf", "2"), ("wf", "1")]
    assert await versions(api, filter="workflow_id LIKE 'order-%'") == [("order-y", "1"), ("order-x", "1")]
    assert await versions(api, filter="version = '2'") == [("wf", "2")]
    assert await versions(api, filter=f"created_at >= {api.clock.now}") == [("order-y", "1")]


async def test_pages_are_stable_while_versions_come_in(api: Api) -> None:
    for n in range(5):
        await store(api, version=str(n))
    seen: list[tuple[str, str]] = []
    params: dict[str, Any] = {"limit": 2}
    while params.get("cursor", "") is not None:
        page = await api.ok("GET", "/v1/definitions", params=params)
        seen += [(one["workflow_id"], one["version"]) for one in page["items"]]
        params["cursor"] = page["next_cursor"]
        api.clock.advance(1)
        await store(api, version=f"late-{len(seen)}")
    assert seen == [("wf", str(n)) for n in (4, 3, 2, 1, 0)]


async def test_a_list_leaves_bodies_out(api: Api) -> None:
    await store(api)
    [item] = (await api.ok("GET", "/v1/definitions"))["items"]
    assert set(item) == {"workflow_id", "version", "revision", "digest", "validated", "created_at", "created_by"}


@pytest.mark.parametrize(
    ("query", "code"),
    [("?filter=colour = 'red'", "request/filter"), ("?status=x", "request/malformed"), ("?cursor=x", "request/cursor")],
)
async def test_what_a_list_does_not_know_is_refused(api: Api, query: str, code: str) -> None:
    assert (await api.refused("GET", f"/v1/definitions{query}", code))["status"] == 400


# ── deletion ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_version_in_use_is_not_deleted_also_after_the_end(api: Api) -> None:
    await store(api)
    made = await api.start(version="1")
    assert (await api.refused("DELETE", path(), "definition/in-use"))["executions"] == 1
    await api.ok("POST", f"/v1/executions/{made['execution_id']}/status", json={"status": "completed"})
    assert (await api.refused("DELETE", path(), "definition/in-use"))["status"] == 409
    assert (await api.ok("GET", path()))["version"] == "1"


async def test_a_version_that_nothing_uses_is_deleted(api: Api) -> None:
    await store(api, version="1")
    await store(api, version="2")
    await api.start(version="2")
    await api.start()
    assert await api.ok("DELETE", path()) == {"workflow_id": "wf", "version": "1"}
    await api.refused("GET", path(), "not-found")
    await api.refused("DELETE", path(), "not-found")
    await api.refused("POST", "/v1/executions", "not-found", json={"workflow_id": "wf", "version": "1"})
    await api.ok("PUT", path(), json=ir(description="another body now"))


async def test_the_same_version_of_another_tenant_does_not_count_as_use(api: Api, other: Api) -> None:
    await store(api)
    await store(other)
    await other.start(version="1")
    await api.ok("DELETE", path())
    assert (await other.ok("GET", path()))["version"] == "1"


async def test_a_start_and_a_deletion_at_once_leave_no_run_without_its_version(api: Api) -> None:
    for n in range(5):
        version = str(n)
        await store(api, version=version)
        start = api.http.post("/v1/executions", json={"workflow_id": "wf", "version": version})
        started, deleted = await asyncio.gather(start, api.http.delete(path(version=version)))
        assert sorted((started.status_code, deleted.status_code)) in ([200, 404], [201, 409])
        if started.status_code == 201:
            assert (await api.ok("GET", path(version=version)))["version"] == version


async def test_a_limit_of_definitions_counts_versions(api: Api) -> None:
    await store(api, version="1")
    answer = await api.admin.patch(f"/v1/tenants/{api.tenant}", json={"limits": {"definitions": 2}})
    assert answer.status_code == 200, answer.text
    await store(api, version="2")
    problem = await api.refused("PUT", path(version="3"), "limit/definitions", json=ir(version="3"))
    assert (problem["limit"], problem["current"]) == (2, 2)
    await store(api, version="2")
    await api.ok("DELETE", path(version="1"))
    await store(api, version="3")


async def test_a_stored_version_is_repeated_under_its_key(api: Api) -> None:
    headers = {"idempotency-key": "k"}
    first = await api.http.put(path(), json=ir(), headers=headers)
    again = await api.http.put(path(), json=ir(), headers=headers)
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    assert again.headers["idempotent-replayed"] == "true"
