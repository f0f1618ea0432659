"""What callers may rely on when they start, change, end and list executions."""

import asyncio
from typing import Any

import msgspec
import pytest

from service.executions.model import ENDED, STATUS
from tests.conftest import Api

MISSING = "/v1/executions/nobody"
ROUTES: list[tuple[str, str, Any]] = [
    ("POST", "status", {"status": "running"}),
    ("PUT", "state", {"a": 1}),
    ("PATCH", "state", {"a": 1}),
    ("POST", "state:append", {"path": "/a", "value": 1}),
    ("PATCH", "attributes", {"attributes": {"a": 1}}),
    ("POST", "events", {"events": [{"kind": "x"}]}),
    ("PUT", "snapshots/1", None),
    ("POST", "transitions", {"changes": [{"type": "append", "kind": "x"}]}),
]
ROUTE_IDS = [f"{method} {path}" for method, path, _ in ROUTES]


def at(made: Any, path: str = "") -> str:
    """A route of an execution."""
    return f"/v1/executions/{made['execution_id']}{path}"


async def move(api: Api, made: Any, status: str, **body: Any) -> Any:
    return await api.ok("POST", at(made, "/status"), json={"status": status} | body)


def document(value: Any) -> dict[str, Any]:
    """A body that may also be null, which the client takes for none."""
    return {"content": msgspec.json.encode(value), "headers": {"content-type": "application/json"}}


async def verified(api: Api, made: Any) -> None:
    """Replay agrees with what is stored."""
    found = await api.ok("POST", at(made, "/snapshots:verify"))
    assert found["matches"], found["differences"]


async def ids(api: Api, query: str = "", **params: Any) -> list[str]:
    found = await api.ok("GET", f"/v1/executions{query}", params=params or None)
    return [item["execution_id"] for item in found["items"]]


# ── start ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_start_is_one_commit_with_its_first_item(api: Api) -> None:
    made = await api.start(input={"a": 1}, start={"queue": "q", "payload": {"x": 1}})
    shown = await api.ok("GET", f"/v1/executions/{made['execution_id']}")
    assert (shown["status"], shown["input"], shown["sequence"], shown["open_items"]) == ("running", {"a": 1}, 1, 1)
    [event] = await api.events(made["execution_id"])
    assert event["kind"] == "execution.started"
    [item] = await api.claim("q")
    assert item["execution_id"] == made["execution_id"]
    assert item["payload"] == {"x": 1}


async def test_the_same_start_again_is_the_same_execution(api: Api) -> None:
    body = {"workflow_id": "wf", "execution_id": "mine", "input": [1], "start": {"queue": "q"}}
    first = await api.http.post("/v1/executions", json=body)
    again = await api.http.post("/v1/executions", json=body)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["work_item_id"] == first.json()["work_item_id"]
    await api.refused("POST", "/v1/executions", "execution/conflict", json=body | {"input": [2]})


async def test_a_start_leaves_no_trace_when_its_first_item_is_refused(api: Api) -> None:
    await api.ok("POST", "/v1/work-items", json={"id": "taken", "queue": "q"})
    body = {"workflow_id": "wf", "execution_id": "mine", "start": {"id": "taken", "queue": "other"}}
    await api.refused("POST", "/v1/executions", "work/conflict", json=body)
    await api.refused("GET", "/v1/executions/mine", "not-found")
    assert (await api.start(execution_id="mine"))["created"]


async def test_key_order_spaces_and_spelt_out_defaults_make_no_other_start(api: Api) -> None:
    await api.start(execution_id="mine", input={"a": 1, "b": [2]})
    text = b'{ "namespace": "main",\n "input": {"b": [2], "a": 1}, "execution_id": "mine", "workflow_id": "wf" }'
    again = await api.http.post("/v1/executions", content=text, headers={"content-type": "application/json"})
    assert (again.status_code, again.json()["created"]) == (200, False)


async def test_a_repeated_start_names_the_item_whose_id_was_chosen(api: Api) -> None:
    first = await api.start(execution_id="mine", start={"id": "first-item", "queue": "q"})
    again = await api.start(execution_id="mine", start={"id": "first-item", "queue": "q"})
    assert first["work_item_id"] == again["work_item_id"] == "first-item"


async def test_a_repeated_start_after_the_end_still_answers(api: Api) -> None:
    made = await api.start(execution_id="mine")
    await move(api, made, "completed")
    again = await api.start(execution_id="mine")
    assert (again["created"], again["status"], again["sequence"]) == (False, "completed", 2)


async def test_starts_at_once_with_one_id_make_one_execution(api: Api) -> None:
    body = {"execution_id": "mine", "start": {"queue": "q"}}
    made = await asyncio.gather(*(api.start(**body) for _ in range(8)))
    assert sorted(one["created"] for one in made) == [False] * 7 + [True]
    assert len({one["work_item_id"] for one in made}) == 1
    assert len(await api.claim("q", max_items=10)) == 1


async def test_an_id_that_nobody_chose_is_a_new_execution_each_time(api: Api) -> None:
    first, second = await api.start(), await api.start()
    assert first["execution_id"] != second["execution_id"]
    assert first["created"] and second["created"]


async def test_input_state_and_results_come_back_byte_for_byte(api: Api) -> None:
    odd = b'{"b": 1.50,  "a": [null, "\\u00e9", 9007199254740993], "b": 2}'
    body = b'{"workflow_id": "wf", "execution_id": "mine", "input": %s, "state": %s}' % (odd, odd)
    answer = await api.http.post("/v1/executions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 201, answer.text
    shown = (await api.http.get("/v1/executions/mine")).content
    assert b'"input":' + odd in shown
    assert b'"state":' + odd in shown
    end = b'{"status": "completed", "result": %s}' % odd
    ended = await api.http.post("/v1/executions/mine/status", content=end, headers={"content-type": "application/json"})
    assert ended.status_code == 200, ended.text
    assert b'"result":' + odd in (await api.http.get("/v1/executions/mine")).content


async def test_an_execution_of_code_has_no_version(api: Api) -> None:
    assert (await api.start())["version"] is None


async def test_a_start_names_a_parent_that_exists(api: Api) -> None:
    parent = await api.start()
    child = await api.start(parent_id=parent["execution_id"])
    assert (await api.ok("GET", at(child)))["parent_id"] == parent["execution_id"]
    await api.refused("POST", "/v1/executions", "not-found", json={"workflow_id": "wf", "parent_id": "nobody"})


async def test_a_parent_of_another_tenant_is_not_found(api: Api, other: Api) -> None:
    parent = await other.start(execution_id="theirs")
    body = {"workflow_id": "wf", "parent_id": parent["execution_id"]}
    await api.refused("POST", "/v1/executions", "not-found", json=body)


async def test_the_first_item_stands_in_for_nobody_else(api: Api) -> None:
    await api.ok("POST", "/v1/work-items", json={"queue": "q", "dedup_key": "one"})
    body = {"workflow_id": "wf", "execution_id": "mine", "start": {"queue": "q", "dedup_key": "one"}}
    await api.refused("POST", "/v1/executions", "work/conflict", json=body)
    await api.refused("GET", "/v1/executions/mine", "not-found")


async def test_unknown_fields_of_a_start_are_refused(api: Api) -> None:
    await api.refused("POST", "/v1/executions", "request/invalid", json={"workflow_id": "wf", "inputs": 1})


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"digest": "d"}, ["/digest"]),
        ({"memo": None, "run_timeout_ms": 5, "workflow_retry": {}}, ["/memo", "/run_timeout_ms", "/workflow_retry"]),
        ({"task_queue": "a", "queue": "b", "memo": 1}, ["/queue"]),
        ({"attributes": {"a": 1, "b": 1}, "search_attributes": {"a": True, "b": 1}}, ["/search_attributes/a"]),
        (
            {"attributes": {f"a{n}": 1 for n in range(64)}, "search_attributes": {"b": 1}},
            ["/search_attributes"],
        ),
    ],
)
async def test_what_a_start_says_is_never_passed_over(api: Api, body: Any, pointers: list[str]) -> None:
    problem = await api.refused("POST", "/v1/executions", "request/invalid", json={"workflow_id": "wf"} | body)
    assert [error["pointer"] for error in problem["errors"]] == pointers


async def test_the_same_id_of_two_tenants_is_two_executions(api: Api, other: Api) -> None:
    await api.start(execution_id="same", input=1)
    await other.start(execution_id="same", input=2)
    assert (await api.ok("GET", "/v1/executions/same"))["input"] == 1
    assert (await other.ok("GET", "/v1/executions/same"))["input"] == 2


async def test_a_batch_of_starts_keeps_its_order_and_each_stands_alone(api: Api) -> None:
    await api.start(execution_id="taken", input=1)
    bodies = [
        {"workflow_id": "wf", "execution_id": "a", "input": {"x": 1}, "start": {"queue": "q"}},
        {"workflow_id": "wf", "execution_id": "taken", "input": 2},
        {"workflow_id": "wf", "version": "9"},
        {"workflow_id": "wf", "execution_id": "b"},
    ]
    results = (await api.ok("POST", "/v1/executions:batch", json=bodies))["results"]
    assert [one["ok"]["execution_id"] if "ok" in one else one["error"]["code"] for one in results] == [
        "a", "execution/conflict", "not-found", "b",
    ]  # fmt: skip


async def test_a_start_is_the_same_by_either_route(api: Api) -> None:
    body = {"workflow_id": "wf", "execution_id": "mine", "input": {"a": 1}, "start": {"queue": "q", "payload": [1]}}
    first = await api.ok("POST", "/v1/executions", json=body)
    [again] = (await api.ok("POST", "/v1/executions:batch", json=[body]))["results"]
    assert again == {"ok": first | {"created": False}}


# ── start from a definition ────────────────────────────────────────────────────────────────────────────────────────


def ir(version: str = "1", **node: Any) -> dict[str, Any]:
    """A definition of one node."""
    first = {"id": "first", "kind": {"type": "model"}} | node
    return {
        "workflow_id": "wf", "version": version, "start_node": "first", "nodes": {"first": first},
        "edges": [{"from": "first", "to": "end"}], "retry_policies": {},
    }  # fmt: skip


async def define(api: Api, version: str = "1", **node: Any) -> None:
    await api.ok("PUT", f"/v1/definitions/wf/{version}", json=ir(version, **node))


async def test_a_start_begins_with_the_definitions_start_node(api: Api) -> None:
    await define(api, retry_policy="io_default")
    made = await api.start(version="1", start={"payload": {"x": 1}})
    [item] = await api.claim("model")
    assert (item["node_id"], item["max_attempts"], item["payload"]) == ("first", 5, {"x": 1})
    [event] = await api.events(made["execution_id"])
    assert event["body"]["node_id"] == "first"
    assert event["body"]["work_item_id"] == item["id"]


async def test_the_start_nodes_own_retry_policy_is_used(api: Api) -> None:
    policy = {"max_attempts": 2, "backoff": "fixed", "initial_delay_ms": 7, "max_delay_ms": 10**12, "jitter": False}
    await define(api, retry_policy=policy)
    await api.start(version="1", start={})
    [item] = await api.claim("model")
    failed = await api.ok(
        "POST", f"/v1/work-items/{item['id']}/fail", json={"epoch": item["epoch"], "error": {"type": "x"}}
    )
    assert (failed["outcome"], failed["ready_at"]) == ("retry_scheduled", api.clock.now + 7)
    assert item["max_attempts"] == 2


async def test_what_the_caller_says_of_the_first_item_goes_before_the_node(api: Api) -> None:
    await define(api, retry_policy="io_default")
    await api.start(version="1", start={"queue": "mine", "max_attempts": 9})
    [item] = await api.claim("mine")
    assert (item["node_id"], item["max_attempts"]) == ("first", 9)
    await api.start(version="1", start={"queue": "default"})
    assert [item["node_id"] for item in await api.claim("default")] == ["first"]
    await api.start(version="1", start={"node_id": "other"})
    assert [(item["node_id"], item["max_attempts"]) for item in await api.claim("default")] == [("other", 3)]


async def test_a_kind_that_is_no_name_for_a_queue_goes_to_the_default_one(api: Api) -> None:
    await define(api, kind={"type": "a kind, in words"})
    await api.start(version="1", start={})
    assert len(await api.claim("default")) == 1


async def test_a_run_is_pinned_to_its_version(api: Api) -> None:
    await define(api, "1")
    made = await api.start(version="latest")
    await define(api, "2")
    assert (await api.ok("GET", at(made)))["version"] == "1"
    assert (await api.start(version="latest"))["version"] == "2"


async def test_a_repeated_start_of_latest_is_the_same_run(api: Api) -> None:
    await define(api, "1")
    await api.start(version="latest", execution_id="mine")
    await define(api, "2")
    again = await api.start(version="latest", execution_id="mine")
    assert (again["created"], again["version"]) == (False, "1")


async def test_a_start_of_an_unknown_version_is_refused(api: Api, other: Api) -> None:
    await define(other)
    for version in ("1", "latest"):
        await api.refused("POST", "/v1/executions", "not-found", json={"workflow_id": "wf", "version": version})


# ── status ─────────────────────────────────────────────────────────────────────────────────────────────────────────


PATHS_TO = {"pending": [], "running": [], "paused": ["paused"]} | {status: [status] for status in ENDED}


@pytest.mark.parametrize("old", sorted(STATUS.statuses - ENDED))
async def test_every_move_of_the_table_is_made_and_every_other_refused(api: Api, old: str) -> None:
    for new in sorted(STATUS.statuses):
        made = await api.start(pending=old == "pending")
        for status in PATHS_TO[old]:
            await move(api, made, status)
        if new in STATUS.table[old]:
            assert (await move(api, made, new))["status"] == new
            await verified(api, made)
            continue
        problem = await api.refused("POST", at(made, "/status"), "execution/transition", json={"status": new})
        assert (problem["current_status"], problem["offered"]) == (old, new)
        assert problem["allowed"] == sorted(STATUS.table[old])


@pytest.mark.parametrize("status", sorted(ENDED))
async def test_an_end_is_told_with_its_result_and_error(api: Api, status: str) -> None:
    made = await api.start()
    api.clock.advance(5)
    moved = await move(api, made, status, result={"r": 1}, error={"e": 2}, reason="so")
    shown = await api.ok("GET", at(made))
    assert (shown["status"], shown["result"], shown["error"]) == (status, {"r": 1}, {"e": 2})
    assert shown["completed_at"] == api.clock.now
    event = (await api.events(made["execution_id"]))[-1]
    assert event["sequence"] == moved["sequence"]
    assert event["kind"] == ("execution.status_changed" if status == "limit_exceeded" else f"execution.{status}")
    assert event["body"] == {"from": "running", "to": status, "result": {"r": 1}, "error": {"e": 2}, "reason": "so"}


@pytest.mark.parametrize("status", sorted(ENDED))
@pytest.mark.parametrize(("method", "path", "body"), ROUTES, ids=ROUTE_IDS)
async def test_terminal_is_final_for_every_write(api: Api, status: str, method: str, path: str, body: Any) -> None:
    made = await api.start()
    ended = await move(api, made, status)
    problem = await api.refused(method, at(made, f"/{path}"), "execution/terminal", json=body)
    assert (problem["status"], problem["outcome"], problem["current_sequence"]) == (409, status, ended["sequence"])
    assert len(await api.events(made["execution_id"])) == ended["sequence"]


async def test_no_work_is_enqueued_for_an_execution_that_has_ended(api: Api) -> None:
    made = await api.start()
    await move(api, made, "completed")
    body = {"execution_id": made["execution_id"], "queue": "q"}
    problem = await api.refused("POST", "/v1/work-items", "execution/terminal", json=body)
    assert problem["outcome"] == "completed"
    assert await api.claim("q") == []


@pytest.mark.parametrize(("method", "path", "body"), ROUTES, ids=ROUTE_IDS)
async def test_a_write_to_what_is_not_there_or_anothers_is_the_same_404(
    api: Api, other: Api, method: str, path: str, body: Any
) -> None:
    await other.start(execution_id="nobody-s")
    theirs = await api.refused(method, f"/v1/executions/nobody-s/{path}", "not-found", json=body)
    missing = await api.refused(method, f"{MISSING}-x/{path}", "not-found", json=body)
    assert theirs["detail"].replace("nobody-s", "") == missing["detail"].replace("nobody-x", "")
    assert (await other.ok("GET", "/v1/executions/nobody-s"))["sequence"] == 1


async def test_pause_and_resume_go_on_where_they_were(api: Api) -> None:
    made = await api.start(state={"a": 1})
    await move(api, made, "paused")
    await move(api, made, "running")
    shown = await api.ok("GET", at(made))
    assert (shown["status"], shown["state"], shown["completed_at"]) == ("running", {"a": 1}, None)


async def test_a_pending_execution_starts_its_time_when_it_runs(api: Api) -> None:
    made = await api.start(pending=True)
    assert (await api.ok("GET", at(made)))["started_at"] is None
    api.clock.advance(1_000)
    await move(api, made, "running")
    assert (await api.ok("GET", at(made)))["started_at"] == api.clock.now
    await verified(api, made)


async def test_a_result_belongs_to_an_end(api: Api) -> None:
    made = await api.start()
    for field in ("result", "error"):
        body = {"status": "paused", field: 1}
        problem = await api.refused("POST", at(made, "/status"), "request/invalid", json=body)
        assert problem["errors"][0]["pointer"] == f"/{field}"
    assert (await api.ok("GET", at(made)))["status"] == "running"


async def test_an_unknown_status_is_refused(api: Api) -> None:
    made = await api.start()
    await api.refused("POST", at(made, "/status"), "request/invalid", json={"status": "done"})


@pytest.mark.parametrize(("method", "path", "body"), [r for r in ROUTES if "snapshots" not in r[1]])
async def test_an_expected_sequence_that_has_moved_changes_nothing(api: Api, method: str, path: str, body: Any) -> None:
    made = await api.start()
    in_query = path == "state"
    if not in_query:
        body = body | {"expected_sequence": 0}
    params = {"expected_sequence": 0} if in_query else None
    problem = await api.refused(method, at(made, f"/{path}"), "sequence/mismatch", json=body, params=params)
    assert (problem["status"], problem["current_sequence"], problem["current_status"]) == (409, 1, "running")
    assert len(await api.events(made["execution_id"])) == 1


@pytest.mark.parametrize(("method", "path", "body"), [r for r in ROUTES if r[1] not in ("snapshots/1", "status")])
async def test_the_expected_sequence_is_the_last_event(api: Api, method: str, path: str, body: Any) -> None:
    made = await api.start()
    params = {"expected_sequence": 1} if path == "state" else None
    if params is None:
        body = body | {"expected_sequence": 1}
    await api.ok(method, at(made, f"/{path}"), json=body, params=params)


async def test_of_many_writers_with_one_expected_sequence_one_wins(api: Api) -> None:
    made = await api.start()
    body = {"events": [{"kind": "x"}], "expected_sequence": 1}
    answers = await asyncio.gather(*(api.http.post(at(made, "/events"), json=body) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    assert len(await api.events(made["execution_id"])) == 2


# ── ending what is open ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", ["cancelled", "terminated", "completed", "failed", "timed_out", "limit_exceeded"])
async def test_an_end_revokes_ready_delayed_and_leased_items_in_its_own_commit(api: Api, status: str) -> None:
    made = await api.start(start={"queue": "held"})
    [leased] = await api.claim("held")
    for extra in ({"queue": "ready"}, {"queue": "later", "delay_ms": 60_000}):
        await api.ok("POST", "/v1/work-items", json=extra | {"execution_id": made["execution_id"]})
    await move(api, made, status)
    events = await api.events(made["execution_id"])
    assert [event["kind"] for event in events[-4:-1]] == ["work.cancelled"] * 3
    shown = await api.ok("GET", at(made))
    assert (shown["open_items"], shown["sequence"]) == (0, events[-1]["sequence"])
    api.clock.advance(120_000)
    assert await api.claim("ready", "later", "held", max_items=10) == []
    settle = f"/v1/work-items/{leased['id']}"
    problem = await api.refused("POST", f"{settle}/complete", "lease/stale", json={"epoch": leased["epoch"]})
    assert (problem["current_epoch"], problem["current_status"]) == (leased["epoch"] + 1, "cancelled")
    await api.refused("POST", f"{settle}/renew", "lease/stale", json={"epoch": leased["epoch"]})
    await verified(api, made)


async def test_items_of_another_execution_survive_an_end(api: Api) -> None:
    made, bystander = await api.start(start={"queue": "q"}), await api.start(start={"queue": "q"})
    await move(api, made, "cancelled")
    [item] = await api.claim("q", max_items=10)
    assert item["execution_id"] == bystander["execution_id"]


@pytest.mark.parametrize("before", ["pending", "running", "paused"])
@pytest.mark.parametrize("outcome", ["completed", "failed"])
async def test_an_item_that_drives_the_execution_ends_it(api: Api, before: str, outcome: str) -> None:
    made = await api.start(start={"queue": "q", "drives": "execution", "max_attempts": 1}, pending=before == "pending")
    [item] = await api.claim("q")
    if before == "paused":
        await move(api, made, "paused")
    body = {"result": {"r": 1}} if outcome == "completed" else {"error": {"type": "boom"}}
    verb = {"completed": "complete", "failed": "fail"}[outcome]
    settled = await api.ok("POST", f"/v1/work-items/{item['id']}/{verb}", json={"epoch": item["epoch"]} | body)
    assert settled["execution_status"] == outcome
    shown = await api.ok("GET", at(made))
    assert shown["status"] == outcome
    assert (shown["result"], shown["error"]) == (({"r": 1}, None) if outcome == "completed" else (None, shown["error"]))
    await verified(api, made)


# ── state ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def state(api: Api, made: Any) -> Any:
    return (await api.ok("GET", at(made)))["state"]


async def test_a_state_that_nobody_wrote_is_an_empty_object(api: Api) -> None:
    assert await state(api, await api.start()) == {}


@pytest.mark.parametrize("value", [{"a": {"b": [1]}}, [], "text", 0, None, False])
async def test_a_state_is_replaced_by_any_json(api: Api, value: Any) -> None:
    made = await api.start(state={"old": 1})
    await api.ok("PUT", at(made, "/state"), **document(value))
    assert await state(api, made) == value
    event = (await api.events(made["execution_id"]))[-1]
    assert (event["kind"], event["body"]) == ("state.replaced", value)
    await verified(api, made)


@pytest.mark.parametrize(
    ("before", "patch", "after"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
async def test_a_state_is_merged_by_rfc_7396(api: Api, before: Any, patch: Any, after: Any) -> None:
    made = await api.start(state=before)
    await api.ok("PATCH", at(made, "/state"), **document(patch))
    assert await state(api, made) == after
    event = (await api.events(made["execution_id"]))[-1]
    assert (event["kind"], event["body"]) == ("state.merged", patch)
    await verified(api, made)


async def test_a_patch_of_another_kind_is_not_taken_for_a_merge_patch(api: Api) -> None:
    made = await api.start(state={"a": 1})
    patch = {
        "content": b'[{"op":"add","path":"/b","value":2}]',
        "headers": {"content-type": "application/json-patch+json"},
    }
    await api.refused("PATCH", at(made, "/state"), "request/media-type", **patch)
    assert await state(api, made) == {"a": 1}


async def test_a_patch_may_say_that_it_is_a_merge_patch(api: Api) -> None:
    made = await api.start()
    headers = {"content-type": "application/merge-patch+json"}
    await api.ok("PATCH", at(made, "/state"), content=b'{"a":1}', headers=headers)
    assert await state(api, made) == {"a": 1}


async def test_an_append_makes_the_array_and_then_adds_to_it(api: Api) -> None:
    made = await api.start()
    for value in ({"n": 1}, None):
        await api.ok("POST", at(made, "/state:append"), json={"path": "/log/lines", "value": value})
    assert await state(api, made) == {"log": {"lines": [{"n": 1}, None]}}
    event = (await api.events(made["execution_id"]))[-1]
    assert (event["kind"], event["body"]) == ("state.appended", {"path": "/log/lines", "value": None})
    await verified(api, made)


async def test_appends_at_once_all_survive(api: Api) -> None:
    made = await api.start()
    await asyncio.gather(
        *(api.ok("POST", at(made, "/state:append"), json={"path": "/xs", "value": n}) for n in range(20))
    )
    assert sorted((await state(api, made))["xs"]) == list(range(20))
    await verified(api, made)


async def test_merges_at_once_all_survive(api: Api) -> None:
    made = await api.start()
    await asyncio.gather(*(api.ok("PATCH", at(made, "/state"), json={f"k{n}": n}) for n in range(20)))
    assert await state(api, made) == {f"k{n}": n for n in range(20)}
    await verified(api, made)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/text", "state/not-an-array"),
        ("", "state/not-an-array"),
        ("/text/deeper", "state/path"),
        ("/xs/7", "state/path"),
    ],
)
async def test_an_append_to_what_is_no_array_changes_nothing(api: Api, path: str, code: str) -> None:
    made = await api.start(state={"text": "t", "xs": [1]})
    problem = await api.refused("POST", at(made, "/state:append"), code, json={"path": path, "value": 1})
    assert problem["status"] == 409
    assert await state(api, made) == {"text": "t", "xs": [1]}
    assert len(await api.events(made["execution_id"])) == 1


async def test_a_state_cannot_grow_deeper_than_bodies_may_be(api: Api) -> None:
    deep: Any = []
    for _ in range(60):
        deep = [deep]
    made = await api.start()
    body = {"path": "/a" * 60, "value": deep}
    await api.refused("POST", at(made, "/state:append"), "request/json", json=body)
    assert await state(api, made) == {}


async def test_every_kind_of_change_of_the_state_replays(api: Api) -> None:
    made = await api.start(state={"n": 0})
    changes: list[tuple[str, str, Any]] = [
        ("PATCH", "/state", {"a": {"b": 1.5, "c": None}}),
        ("POST", "/state:append", {"path": "/a/xs", "value": {"é": "\u2028"}}),
        ("PUT", "/state", [1, {"x": []}]),
        ("POST", "/state:append", {"path": "/1/x", "value": 2}),
        ("POST", "/state:append", {"path": "", "value": None}),
        ("PATCH", "/state", None),
        ("PATCH", "/state", {"again": True}),
    ]
    for method, path, body in changes:
        await api.ok(method, at(made, path), **document(body))
        await verified(api, made)
    assert await state(api, made) == {"again": True}


async def test_a_document_that_is_not_json_is_refused(api: Api) -> None:
    made = await api.start()
    for method in ("PUT", "PATCH"):
        headers = {"content-type": "application/json"}
        await api.refused(method, at(made, "/state"), "request/json", content=b'{"a":', headers=headers)
        await api.refused(method, at(made, "/state"), "request/json", content=b"", headers=headers)


# ── attributes and labels ──────────────────────────────────────────────────────────────────────────────────────────


async def test_attributes_and_labels_merge_and_null_removes(api: Api) -> None:
    made = await api.start(attributes={"a": 1, "b": "x", "none": None}, labels={"l": "v"})
    shown = await api.ok("GET", at(made))
    assert (shown["attributes"], shown["labels"]) == ({"a": 1, "b": "x"}, {"l": "v"})
    body = {"attributes": {"a": None, "b": "y", "c": True, "never": None}, "labels": {"l": None, "m": "w"}}
    await api.ok("PATCH", at(made, "/attributes"), json=body)
    shown = await api.ok("GET", at(made))
    assert (shown["attributes"], shown["labels"]) == ({"b": "y", "c": True}, {"m": "w"})
    event = (await api.events(made["execution_id"]))[-1]
    assert (event["kind"], event["body"]) == ("attributes.set", body)
    await verified(api, made)


async def test_an_execution_has_so_many_names_whoever_sets_them(api: Api) -> None:
    made = await api.start(labels={"l0": "v"}, attributes={"a0": 1})
    many = {"attributes": {f"a{n}": n for n in range(64)}, "labels": {f"l{n}": "v" for n in range(64)}}
    await api.ok("PATCH", at(made, "/attributes"), json=many)
    for family, value in (("attributes", 1), ("labels", "v")):
        one_more: dict[str, Any] = {family: {"b": value}}
        problem = await api.refused("PATCH", at(made, "/attributes"), "request/invalid", json=one_more)
        assert problem["errors"][0]["pointer"] == f"/{family}"
        await api.ok("PATCH", at(made, "/attributes"), json={family: {"b": value, many[family].popitem()[0]: None}})


async def test_lists_filter_by_attributes_and_labels_as_they_are_now(api: Api) -> None:
    one = await api.start(attributes={"customer": "a", "size": 5, "vip": True}, labels={"team": "x"})
    api.clock.advance(1)
    two = await api.start(attributes={"customer": "b", "size": 50})
    for text, expected in {
        "attr.customer = 'a'": [one],
        "attr.customer IN ('a', 'b')": [two, one],
        "attr.customer != 'a'": [two],
        "attr.size > 5": [two],
        "attr.size BETWEEN 5 AND 50": [two, one],
        "attr.vip = TRUE": [one],
        "attr.customer LIKE 'a%'": [one],
        "label.team = 'x'": [one],
        "label.team != 'x'": [two],
        "attr.team = 'x'": [],
    }.items():
        assert await ids(api, filter=text) == [made["execution_id"] for made in expected], text
    body = {"attributes": {"customer": "z", "size": None}, "labels": {"team": None}}
    await api.ok("PATCH", at(one, "/attributes"), json=body)
    assert await ids(api, filter="attr.customer = 'a' OR attr.size = 5 OR label.team = 'x'") == []
    assert await ids(api, filter="attr.customer = 'z'") == [one["execution_id"]]


async def test_a_number_is_found_as_a_number_and_a_text_as_a_text(api: Api) -> None:
    await api.start(execution_id="number", attributes={"size": 50})
    await api.start(execution_id="text", attributes={"size": "50"})
    for text, found in {
        "attr.size = 50": ["number"],
        "attr.size = '50'": ["text"],
        "attr.size LIKE '5%'": ["text"],
        "attr.size > '4'": ["text"],
        "attr.size != '50'": ["number"],
    }.items():
        assert await ids(api, filter=text) == found, text
    await api.ok("PATCH", "/v1/executions/text/attributes", json={"attributes": {"size": 7}})
    assert await ids(api, filter="attr.size IN ('50', '7')") == []


async def test_attributes_of_one_execution_and_tenant_are_not_anothers(api: Api, other: Api) -> None:
    await other.start(execution_id="theirs", attributes={"a": 1})
    await api.start(execution_id="mine", attributes={"a": 1})
    assert await ids(api, filter="attr.a = 1") == ["mine"]


@pytest.mark.parametrize("value", [1.5, [1], {"x": 1}, "y" * 513, 2**63])
async def test_an_attribute_is_a_short_text_an_integer_or_a_truth_value(api: Api, value: Any) -> None:
    answer = await api.http.post("/v1/executions", json={"workflow_id": "wf", "attributes": {"a": value}})
    assert answer.status_code in (400, 422), answer.text


async def test_the_longest_attributes_can_be_stored_and_found(api: Api) -> None:
    made = await api.start(attributes={"a" * 128: "\U0010fffd" * 512}, labels={"l" * 128: "é" * 256})
    assert await ids(api, filter=f"attr.{'a' * 128} = '{chr(0x10FFFD) * 512}'") == [made["execution_id"]]


# ── lists ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def three(api: Api) -> list[str]:
    """Three executions, a millisecond apart, oldest first."""
    made = []
    for n in range(3):
        api.clock.advance(1)
        await api.ok("POST", "/v1/namespaces", json={"name": f"ns{n}"})
        body = {"workflow_id": f"wf{n}", "namespace": f"ns{n}", "queue": f"q{n}"}
        made.append((await api.start(**body))["execution_id"])
    return made


async def test_lists_are_newest_first_and_sort_by_age_or_last_change(api: Api) -> None:
    first, second, third = await three(api)
    await api.ok("PATCH", f"/v1/executions/{second}/state", json={})
    assert await ids(api) == [third, second, first]
    assert await ids(api, sort="created") == [third, second, first]
    assert await ids(api, sort="created_asc") == [first, second, third]
    assert await ids(api, sort="updated") == [second, third, first]


async def test_lists_filter_by_every_field(api: Api) -> None:
    first, second, third = await three(api)
    await define(api)
    pinned = (await api.start(version="1", parent_id=first, namespace="ns0"))["execution_id"]
    await api.ok("POST", f"/v1/executions/{second}/status", json={"status": "failed"})
    started = (await api.ok("GET", f"/v1/executions/{third}"))["created_at"]
    for params, expected in (
        ({"status": "failed"}, [second]),
        ({"status": "completed"}, []),
        ({"status": "running"}, [pinned, third, first]),
        ({"workflow_id": "wf0"}, [first]),
        ({"namespace": "ns1"}, [second]),
        ({"version": "1"}, [pinned]),
        ({"parent_id": first}, [pinned]),
        ({"status": "running", "workflow_id": "wf0"}, [first]),
        ({"filter": "queue = 'q2'"}, [third]),
        ({"workflow_type": "wf0"}, [first]),
        ({"task_queue": "q2"}, [third]),
        ({"filter": "workflow_type = 'wf0' OR task_queue = 'q2'"}, [third, first]),
        ({"filter": f"id = '{first}'"}, [first]),
        ({"filter": f"created_at >= {started}"}, [pinned, third]),
        ({"filter": f"created_at < {started}"}, [second, first]),
        ({"filter": "completed_at IS NULL", "workflow_id": "wf1"}, []),
        ({"filter": "completed_at IS NOT NULL"}, [second]),
        ({"filter": "status IN ('failed', 'cancelled')"}, [second]),
        ({"filter": f"updated_at BETWEEN {started} AND {started} AND status = 'running'"}, [pinned, third]),
        ({"filter": "NOT (workflow_id = 'wf' OR status = 'failed')"}, [third, first]),
    ):
        for sort in ("created", "created_asc", "updated"):
            found = await ids(api, **params, sort=sort)
            assert sorted(found) == sorted(expected), (params, sort)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("?status=done", "request/malformed"),
        ("?state=running", "request/malformed"),
        ("?sort=status", "request/malformed"),
        ("?limit=0", "request/malformed"),
        ("?limit=1001", "request/malformed"),
        ("?limit=ten", "request/malformed"),
        ("?filter=status = 'done'", "request/filter"),
        ("?filter=colour = 'red'", "request/filter"),
        ("?filter=", "request/filter"),
        ("?filter=1 = 1", "request/filter"),
        ("?cursor=abc", "request/cursor"),
    ],
)
async def test_what_a_list_does_not_know_is_refused_and_never_ignored(api: Api, query: str, code: str) -> None:
    problem = await api.refused("GET", f"/v1/executions{query}", code)
    assert problem["status"] == 400


@pytest.mark.parametrize("sort", ["created", "created_asc", "updated"])
async def test_pages_are_stable_while_executions_come_in(api: Api, sort: str) -> None:
    made = [(await api.start())["execution_id"] for _ in range(7)]  # all of one millisecond
    seen: list[str] = []
    params: dict[str, Any] = {"limit": 2, "sort": sort}
    while True:
        page = await api.ok("GET", "/v1/executions", params=params)
        seen += [item["execution_id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]
        if len(seen) < 7:
            await api.start()
    expected = {"created": sorted(made, reverse=True), "created_asc": sorted(made), "updated": made[::-1]}
    assert [one for one in seen if one in made] == expected[sort]
    assert len(seen) == len(set(seen))


async def test_a_cursor_fits_its_own_tenant_list_and_filter_only(api: Api, other: Api) -> None:
    for _ in range(3):
        await api.start()
        await other.start()
    cursor = (await api.ok("GET", "/v1/executions", params={"limit": 1}))["next_cursor"]
    await api.ok("GET", "/v1/executions", params={"limit": 2, "cursor": cursor})
    await api.refused("GET", "/v1/executions", "request/cursor", params={"cursor": cursor, "status": "running"})
    await api.refused("GET", "/v1/executions", "request/cursor", params={"cursor": cursor, "sort": "updated"})
    await api.refused("GET", "/v1/definitions", "request/cursor", params={"cursor": cursor})
    await other.refused("GET", "/v1/executions", "request/cursor", params={"cursor": cursor})


async def test_a_list_leaves_documents_out(api: Api) -> None:
    await api.start(input={"big": 1}, state={"big": 1}, attributes={"a": 1})
    [item] = (await api.ok("GET", "/v1/executions"))["items"]
    assert item["attributes"] == {"a": 1}
    assert not {"input", "state", "result", "error"} & set(item)


async def test_more_than_a_hundred_running_executions_are_all_listed(api: Api) -> None:
    bodies = [{"workflow_id": "wf"} for _ in range(150)]
    await api.ok("POST", "/v1/executions:batch", json=bodies)
    assert len(await ids(api, status="running", limit=1000)) == 150


# ── repeated requests ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_idempotency_key_makes_a_start_once(api: Api) -> None:
    headers, body = {"idempotency-key": "k1"}, {"workflow_id": "wf", "start": {"queue": "q"}}
    first = await api.http.post("/v1/executions", json=body, headers=headers)
    again = await api.http.post("/v1/executions", json=body, headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert len(await ids(api)) == 1
    assert len(await api.claim("q", max_items=10)) == 1


async def test_an_idempotency_key_for_another_request_is_refused(api: Api) -> None:
    headers = {"idempotency-key": "k1"}
    await api.ok("POST", "/v1/executions", json={"workflow_id": "wf"}, headers=headers)
    refused = await api.refused(
        "POST", "/v1/executions", "idempotency/mismatch", json={"workflow_id": "other"}, headers=headers
    )
    assert refused["status"] == 422
    assert len(await ids(api)) == 1


async def test_the_query_belongs_to_the_request_that_a_key_names(api: Api) -> None:
    made, headers = await api.start(), {"idempotency-key": "k1"}
    await api.ok("PUT", at(made, "/state"), json=1, params={"expected_sequence": 1}, headers=headers)
    other = {"expected_sequence": 2}
    await api.refused("PUT", at(made, "/state"), "idempotency/mismatch", json=1, params=other, headers=headers)


async def test_a_refusal_is_not_stored_under_its_key(api: Api) -> None:
    headers, body = {"idempotency-key": "k1"}, {"workflow_id": "wf", "version": "1"}
    await api.refused("POST", "/v1/executions", "not-found", json=body, headers=headers)
    await define(api)
    made = await api.http.post("/v1/executions", json=body, headers=headers)
    assert (made.status_code, "idempotent-replayed" in made.headers) == (201, False)


async def test_keys_of_two_tenants_never_meet(api: Api, other: Api) -> None:
    headers = {"idempotency-key": "k1"}
    first = await api.ok("POST", "/v1/executions", json={"workflow_id": "wf"}, headers=headers)
    second = await other.ok("POST", "/v1/executions", json={"workflow_id": "theirs"}, headers=headers)
    assert first["execution_id"] != second["execution_id"]


async def test_a_status_whose_answer_was_lost_can_be_asked_again_under_its_key(api: Api) -> None:
    made, headers = await api.start(), {"idempotency-key": "k1"}
    first = await api.http.post(at(made, "/status"), json={"status": "completed"}, headers=headers)
    again = await api.http.post(at(made, "/status"), json={"status": "completed"}, headers=headers)
    assert (first.json(), again.headers["idempotent-replayed"]) == (again.json(), "true")
    problem = await api.refused("POST", at(made, "/status"), "execution/terminal", json={"status": "completed"})
    assert problem["outcome"] == "completed"


async def test_a_batch_is_made_once_under_its_key(api: Api) -> None:
    headers = {"idempotency-key": "k1"}
    bodies = [{"workflow_id": "wf"}, {"workflow_id": "wf", "version": "9"}]
    first = await api.http.post("/v1/executions:batch", json=bodies, headers=headers)
    again = await api.http.post("/v1/executions:batch", json=bodies, headers=headers)
    assert first.json()["results"][0] == again.json()["results"][0]
    assert again.headers["idempotent-replayed"] == "true"
    assert len(await ids(api)) == 1


async def test_a_batch_key_for_another_batch_runs_nothing_of_it(api: Api) -> None:
    headers = {"idempotency-key": "k1"}
    await api.ok("POST", "/v1/executions:batch", json=[{"workflow_id": "wf"}], headers=headers)
    other = [{"workflow_id": "other"}, {"workflow_id": "other"}]
    refused = await api.refused("POST", "/v1/executions:batch", "idempotency/mismatch", json=other, headers=headers)
    assert refused["status"] == 422
    assert len(await ids(api)) == 1


# ── limits ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def limit(api: Api, **limits: int) -> None:
    answer = await api.admin.patch(f"/v1/tenants/{api.tenant}", json={"limits": limits})
    assert answer.status_code == 200, answer.text


async def test_an_execution_at_its_limit_of_events_can_still_end(api: Api) -> None:
    made = await api.start(start={"queue": "q"})
    await limit(api, events_per_execution=2)
    await api.ok("POST", at(made, "/events"), json={"events": [{"kind": "x"}]})
    problem = await api.refused(
        "POST", at(made, "/events"), "limit/events-per-execution", json={"events": [{"kind": "x"}]}
    )
    assert (problem["limit"], problem["current"]) == (2, 2)
    await move(api, made, "limit_exceeded")
    assert (await api.ok("GET", at(made)))["status"] == "limit_exceeded"
    await verified(api, made)


async def test_an_execution_that_was_paused_at_its_limit_of_events_can_be_resumed(api: Api) -> None:
    made = await api.start()
    await move(api, made, "paused")
    await limit(api, events_per_execution=2)
    await move(api, made, "running")
    await api.refused("POST", at(made, "/status"), "limit/events-per-execution", json={"status": "paused"})
    await verified(api, made)


async def test_every_write_announces_the_limit_of_events(api: Api) -> None:
    made = await api.start(pending=True)
    await limit(api, events_per_execution=1)
    for method, path, body in ROUTES:
        await api.refused(method, at(made, f"/{path}"), "limit/events-per-execution", json=body)
    await limit(api, events_per_execution=0)
    await api.refused("POST", "/v1/executions", "limit/events-per-execution", json={"workflow_id": "wf"})
    await limit(api, events_per_execution=None, ready_work_items=0)
    await api.refused("POST", "/v1/executions", "limit/ready-work-items", json={"workflow_id": "wf", "start": {}})


async def test_documents_past_a_limit_leave_no_trace(api: Api) -> None:
    made = await api.start()
    await limit(api, payload_bytes=20, state_bytes=20)
    long = "x" * 30
    await api.refused("POST", "/v1/executions", "limit/payload-bytes", json={"workflow_id": "wf", "input": long})
    await api.refused("POST", "/v1/executions", "limit/state-bytes", json={"workflow_id": "wf", "state": long})
    for method, body in (("PUT", long), ("PATCH", {"a": long})):
        await api.refused(method, at(made, "/state"), "limit/state-bytes", json=body)
    await api.refused("POST", at(made, "/state:append"), "limit/state-bytes", json={"path": "/a", "value": long})
    end = {"status": "completed", "result": long}
    await api.refused("POST", at(made, "/status"), "limit/payload-bytes", json=end)
    assert (await api.ok("GET", at(made)))["sequence"] == 1
