"""What callers may rely on of a transition: its changes in order, all or none, in one commit; its lease; its repeat."""

import asyncio
from typing import Any

import pytest

from service.transitions import rules
from tests.conftest import Api


def at(made: Any, path: str = "/transitions") -> str:
    """A route of an execution."""
    return f"/v1/executions/{made['execution_id']}{path}"


async def transit(api: Api, made: Any, *changes: Any, **body: Any) -> Any:
    return await api.ok("POST", at(made), json={"changes": list(changes)} | body)


async def refused(api: Api, made: Any, code: str, *changes: Any, **body: Any) -> Any:
    return await api.refused("POST", at(made), code, json={"changes": list(changes)} | body)


async def shown(api: Api, made: Any) -> Any:
    return await api.ok("GET", at(made, ""))


async def verified(api: Api, made: Any) -> None:
    """Replay agrees with what is stored."""
    found = await api.ok("POST", at(made, "/snapshots:verify"))
    assert found["matches"], found["differences"]


async def leased(api: Api, **start: Any) -> tuple[Any, Any, dict[str, Any]]:
    """An execution, its first item in hand, and the lease as a transition names it."""
    made = await api.start(start={"queue": "q", "node_id": "n1"} | start)
    [item] = await api.claim("q")
    return made, item, {"lease": {"work_item_id": item["id"], "epoch": item["epoch"]}}


APPEND = {"type": "append", "kind": "x"}
COMPLETE = {"type": "settle", "outcome": "completed", "result": {"r": 1}}


# ── each kind of change ────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_append_is_an_event(api: Api) -> None:
    made = await api.start()
    change = APPEND | {"body": {"a": 1}, "node_id": "n", "causation_id": "c"}
    told = await transit(api, made, change)
    assert told == {
        "execution_id": made["execution_id"], "status": "running", "sequence": 2,
        "changes": [{"type": "append", "first_sequence": 2, "last_sequence": 2}],
    }  # fmt: skip
    event = (await api.events(made["execution_id"]))[-1]
    assert (event["kind"], event["body"], event["node_id"], event["causation_id"]) == ("x", {"a": 1}, "n", "c")


@pytest.mark.parametrize("status", ["paused", "completed", "failed", "cancelled", "timed_out", "limit_exceeded"])
async def test_a_status_is_set_with_its_outcome(api: Api, status: str) -> None:
    made = await api.start()
    outcome = {} if status == "paused" else {"result": {"r": 1}, "error": {"e": 1}}
    told = await transit(api, made, {"type": "set_status", "status": status} | outcome)
    assert told["status"] == status
    found = await shown(api, made)
    assert (found["status"], found["result"]) == (status, outcome.get("result"))
    await verified(api, made)


async def test_states_are_replaced_merged_and_appended_to_in_order(api: Api) -> None:
    made = await api.start(state={"old": 1})
    told = await transit(
        api, made,
        {"type": "replace_state", "state": {"a": {"b": 1}, "c": 1}},
        {"type": "merge_state", "patch": {"a": {"b": None, "d": 2}, "c": None}},
        {"type": "append_state", "path": "/xs", "value": 1},
        {"type": "append_state", "path": "/xs", "value": None},
    )  # fmt: skip
    assert told["sequence"] == 5
    assert (await shown(api, made))["state"] == {"a": {"d": 2}, "xs": [1, None]}
    kinds = [event["kind"] for event in await api.events(made["execution_id"])]
    assert kinds[1:] == ["state.replaced", "state.merged", "state.appended", "state.appended"]
    await verified(api, made)


async def test_what_comes_next_is_enqueued(api: Api) -> None:
    made = await api.start()
    told = await transit(
        api, made, {"type": "enqueue", "queue": "next", "node_id": "n2", "payload": {"p": 1}, "id": "i2"}
    )
    [change] = told["changes"]
    assert (change["work_item_id"], change["created"], change["first_sequence"]) == ("i2", True, 2)
    [item] = await api.claim("next")
    assert (item["id"], item["node_id"], item["execution_id"]) == ("i2", "n2", made["execution_id"])
    event = (await api.events(made["execution_id"]))[-1]
    assert (event["kind"], event["node_id"], event["work_item_id"]) == ("work.enqueued", "n2", "i2")
    assert (await shown(api, made))["open_items"] == 1


async def test_an_item_that_stands_already_is_named_and_not_told_of_again(api: Api) -> None:
    made = await api.start()
    change = {"type": "enqueue", "queue": "next", "dedup_key": "one"}
    told = await transit(api, made, change, change)
    first, second = told["changes"]
    assert first["work_item_id"] == second["work_item_id"]
    assert (first["created"], second["created"], "first_sequence" in second) == (True, False, False)
    assert told["sequence"] == 2


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, set()),
        ({"queue": "b"}, {"a1", "a2"}),
        ({"node_id": "n1"}, {"a2", "b2"}),
        ({"ids": ["a1", "b2", "unheard-of"]}, {"a2", "b1"}),
        ({"queue": "a", "node_id": "n2"}, {"a1", "b1", "b2"}),
    ],
)
async def test_items_are_cancelled_by_id_queue_and_node(api: Api, change: Any, expected: set[str]) -> None:
    made, bystander = await api.start(), await api.start()
    for queue in "ab":
        for n in "12":
            body = {"queue": queue, "node_id": f"n{n}", "id": f"{queue}{n}"}
            await api.ok("POST", "/v1/work-items", json=body | {"execution_id": made["execution_id"]})
    await api.ok(
        "POST", "/v1/work-items", json={"queue": "a", "execution_id": bystander["execution_id"], "id": "other"}
    )
    await transit(api, made, {"type": "cancel_items"} | change)
    left = await api.claim("a", "b", max_items=10)
    assert {item["id"] for item in left} == expected | {"other"}
    assert (await shown(api, made))["open_items"] == len(expected)
    await verified(api, made)


async def test_items_of_a_namespace_are_cancelled_by_the_name_of_their_queue(api: Api) -> None:
    await api.ok("POST", "/v1/namespaces", json={"name": "blue"})
    made = await api.start(namespace="blue", start={"queue": "a"})
    await transit(api, made, {"type": "cancel_items", "queue": "a"})
    assert (await shown(api, made))["open_items"] == 0


async def test_a_snapshot_folds_the_transitions_own_events(api: Api) -> None:
    made = await api.start()
    told = await transit(
        api, made, {"type": "merge_state", "patch": {"a": 1}}, {"type": "enqueue", "node_id": "n", "id": "i"},
        {"type": "snapshot"}, {"type": "merge_state", "patch": {"a": 2}},
    )  # fmt: skip
    assert [change.get("first_sequence") for change in told["changes"]] == [2, 3, 4, 5]
    found = await api.ok("GET", at(made, "/snapshots:latest"))
    assert (found["sequence"], found["fold"]["state"], found["fold"]["active_nodes"]) == (3, {"a": 1}, {"n": ["i"]})
    await verified(api, made)


async def test_attributes_are_set_and_the_last_word_counts(api: Api) -> None:
    made = await api.start(attributes={"old": 1, "gone": 1}, labels={"l": "a"})
    await transit(
        api, made,
        {"type": "set_attributes", "attributes": {"old": None, "new": 1, "gone": None}, "labels": {"l": "b"}},
        {"type": "set_attributes", "attributes": {"old": 3, "new": None, "brief": 1}},
        {"type": "set_attributes", "attributes": {"brief": None}},
    )  # fmt: skip
    found = await shown(api, made)
    assert (found["attributes"], found["labels"]) == ({"old": 3}, {"l": "b"})
    for text, count in {
        "attr.old = 3": 1,
        "attr.old = 1": 0,
        "attr.new = 1": 0,
        "attr.gone = 1": 0,
        "attr.brief = 1": 0,
    }.items():
        listed = await api.ok("GET", "/v1/executions", params={"filter": text})
        assert len(listed["items"]) == count, text


async def test_many_attributes_are_set_at_once(api: Api) -> None:
    _, _, lease = await leased(api)
    many = {f"a{n}": n for n in range(64)}
    body = {"changes": [{"type": "set_attributes", "attributes": many}]} | lease
    [result] = (await api.ok("POST", "/v1/transitions:batch", json=[body]))["results"]
    assert "ok" in result, result
    assert len((await api.ok("GET", "/v1/executions", params={"filter": "attr.a63 = 63"}))["items"]) == 1


async def test_a_thousand_changes_are_one_transition(api: Api) -> None:
    made = await api.start()
    told = await transit(api, made, *[APPEND] * 1000)
    assert told["sequence"] == 1001
    assert [change["first_sequence"] for change in told["changes"]] == list(range(2, 1002))
    await verified(api, made)


@pytest.mark.parametrize(
    "changes",
    [
        [], [APPEND] * 1001, [{"type": "fly"}], [{"kind": "x"}], [APPEND | {"extra": 1}],
        [{"type": "settle", "outcome": "lost"}],
    ],
    ids=["none", "too many", "unknown", "untyped", "extra field", "unknown outcome"],
)  # fmt: skip
async def test_changes_that_nobody_knows_are_refused(api: Api, changes: Any) -> None:
    made = await api.start()
    await refused(api, made, "request/invalid", *changes)
    assert (await shown(api, made))["sequence"] == 1


# ── all or nothing ─────────────────────────────────────────────────────────────────────────────────────────────────

EVERYTHING = [
    APPEND,
    {"type": "merge_state", "patch": {"a": 2}},
    {"type": "append_state", "path": "/xs", "value": 1},
    {"type": "set_attributes", "attributes": {"size": 2, "more": 1}, "labels": {"l": None}},
    {"type": "enqueue", "queue": "next", "id": "next-item"},
    {"type": "cancel_items", "queue": "other"},
    {"type": "snapshot"},
    {"type": "set_status", "status": "paused"},
]
REFUSED = {
    "state/not-an-array": {"type": "append_state", "path": "/a", "value": 1},
    "state/path": {"type": "append_state", "path": "/a/b", "value": 1},
    "execution/transition": {"type": "set_status", "status": "completed"},
    "work/conflict": {"type": "enqueue", "id": "taken"},
    "request/invalid": {"type": "append", "kind": "state.merged", "body": {}},
}


@pytest.mark.parametrize("code", REFUSED)
@pytest.mark.parametrize("first", [False, True], ids=["at the end", "at the start"])
async def test_a_change_that_is_refused_takes_all_others_with_it(api: Api, code: str, first: bool) -> None:
    made, item, lease = await leased(api)
    await api.ok("PUT", at(made, "/state"), json={"a": 1})
    await api.ok("PATCH", at(made, "/attributes"), json={"attributes": {"size": 1}, "labels": {"l": "v"}})
    await api.ok("POST", "/v1/work-items", json={"queue": "other", "id": "other", "execution_id": made["execution_id"]})
    await api.ok("POST", "/v1/work-items", json={"queue": "elsewhere", "id": "taken"})
    before, log = await shown(api, made), await api.events(made["execution_id"])
    wrong = REFUSED[code]
    if first and code == "execution/transition":
        wrong = {"type": "set_status", "status": "pending"}
    changes = [wrong, *EVERYTHING] if first else [*EVERYTHING, COMPLETE, wrong]
    await refused(api, made, code, *changes, **lease)
    assert await shown(api, made) == before
    assert await api.events(made["execution_id"]) == log
    assert (await api.ok("GET", at(made, "/snapshots")))["items"] == []
    assert await api.claim("next") == []
    assert [one["id"] for one in await api.claim("other")] == ["other"]
    for text, count in {"attr.size = 1 AND label.l = 'v'": 1, "attr.more = 1": 0}.items():
        assert len((await api.ok("GET", "/v1/executions", params={"filter": text}))["items"]) == count
    await api.ok("POST", f"/v1/work-items/{item['id']}/complete", json={"epoch": item["epoch"]})
    await verified(api, made)


async def test_everything_at_once_is_one_commit(api: Api) -> None:
    made, item, lease = await leased(api)
    told = await transit(api, made, *EVERYTHING, COMPLETE, **lease)
    log = await api.events(made["execution_id"])
    assert told["sequence"] == log[-1]["sequence"] == (await shown(api, made))["sequence"]
    named = [n for one in told["changes"] if "first_sequence" in one
             for n in range(one["first_sequence"], one["last_sequence"] + 1)]  # fmt: skip
    assert named == list(range(2, told["sequence"] + 1))
    assert told["changes"][-1] == {
        "type": "settle", "work_item_id": item["id"], "outcome": "completed",
        "first_sequence": told["sequence"], "last_sequence": told["sequence"],
    }  # fmt: skip
    await verified(api, made)


async def test_a_change_after_the_end_refuses_the_whole_and_does_not_say_that_it_has_ended(api: Api) -> None:
    made = await api.start(start={"queue": "q", "drives": "execution"})
    [item] = await api.claim("q")
    lease = {"lease": {"work_item_id": item["id"], "epoch": item["epoch"]}}
    for end in ({"type": "set_status", "status": "completed"}, COMPLETE):
        problem = await refused(api, made, "request/invalid", APPEND, end, APPEND, **lease)
        assert [error["pointer"] for error in problem["errors"]] == ["/changes/2"]
        assert not problem.keys() & {"outcome", "current_status", "current_sequence"}
    assert (await shown(api, made))["status"] == "running"
    await transit(api, made, COMPLETE, **lease)
    assert (await refused(api, made, "execution/terminal", APPEND))["outcome"] == "completed"


async def test_an_expected_sequence_that_has_moved_refuses_the_whole(api: Api) -> None:
    made = await api.start()
    await transit(api, made, APPEND, expected_sequence=1)
    problem = await refused(api, made, "sequence/mismatch", APPEND, expected_sequence=1)
    assert problem["current_sequence"] == 2


async def test_of_transitions_at_once_with_one_expected_sequence_one_wins(api: Api) -> None:
    made = await api.start()
    body = {"changes": [APPEND], "expected_sequence": 1}
    answers = await asyncio.gather(*(api.http.post(at(made), json=body) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7


# ── under a lease ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("outcome", ["completed", "failed", "released"])
async def test_a_settle_settles_the_leased_item_with_the_rest(api: Api, outcome: str) -> None:
    made, item, lease = await leased(api, retry={"initial_delay_ms": 500, "jitter": False})
    settle = {"type": "settle", "outcome": outcome} | ({"error": {"type": "boom"}} if outcome == "failed" else {})
    told = await transit(api, made, APPEND, settle, {"type": "enqueue", "queue": "next"}, **lease)
    change = told["changes"][1]
    assert change["outcome"] == {"completed": "completed", "failed": "retry_scheduled", "released": "released"}[outcome]
    assert len(await api.claim("next")) == 1
    if outcome == "failed":
        assert change["ready_at"] == api.clock.now + 500
        api.clock.advance(500)
    again = await api.claim("q")
    assert [one["attempt"] for one in again] == {"completed": [], "failed": [2], "released": [1]}[outcome]
    assert all(one["epoch"] == item["epoch"] + 1 for one in again)
    await verified(api, made)


async def test_a_failure_that_must_not_be_retried_is_a_dead_letter_at_once(api: Api) -> None:
    made, item, lease = await leased(api)
    settle = {"type": "settle", "outcome": "failed", "error": {"type": "boom"}, "retry": False}
    told = await transit(api, made, settle, **lease)
    assert told["changes"][0]["outcome"] == "dead_lettered"
    kinds = [event["kind"] for event in await api.events(made["execution_id"])]
    assert kinds == ["execution.started", "work.failed", "work.dead_lettered"]
    assert (told["changes"][0]["first_sequence"], told["changes"][0]["last_sequence"]) == (2, 3)
    assert (await api.ok("GET", "/v1/dead-letters"))["items"][0]["id"] == item["id"]


async def test_an_item_that_drives_ends_its_execution_from_a_transition(api: Api) -> None:
    made, _, lease = await leased(api, drives="execution")
    told = await transit(api, made, {"type": "merge_state", "patch": {"done": True}}, COMPLETE, **lease)
    assert told["status"] == "completed"
    found = await shown(api, made)
    assert (found["status"], found["result"], found["state"]) == ("completed", {"r": 1}, {"done": True})


async def test_the_execution_comes_from_the_item(api: Api) -> None:
    made, _, lease = await leased(api)
    [result] = (await api.ok("POST", "/v1/transitions:batch", json=[{"changes": [APPEND]} | lease]))["results"]
    assert result["ok"]["execution_id"] == made["execution_id"]
    stranger = await api.start()
    problem = await refused(api, stranger, "not-found", APPEND, **lease)
    assert "does not belong to the execution" in problem["detail"]  # which is there, and is not said not to be
    nowhere = await refused(api, {"execution_id": "nowhere"}, "not-found", APPEND, **lease)
    assert nowhere["detail"] == problem["detail"].replace(stranger["execution_id"], "nowhere")
    assert (await shown(api, stranger))["sequence"] == 1


async def test_an_item_of_no_execution_is_settled_by_itself(api: Api) -> None:
    await api.ok("POST", "/v1/work-items", json={"queue": "q"})
    [item] = await api.claim("q")
    lease = {"lease": {"work_item_id": item["id"], "epoch": item["epoch"]}}
    [result] = (await api.ok("POST", "/v1/transitions:batch", json=[{"changes": [COMPLETE]} | lease]))["results"]
    assert (result["error"]["code"], "belongs to no execution" in result["error"]["detail"]) == ("not-found", True)


async def test_the_node_of_an_event_comes_from_the_item(api: Api) -> None:
    made, item, lease = await leased(api)
    await transit(api, made, APPEND, APPEND | {"node_id": "n1"}, **lease)
    told = [(event["node_id"], event["work_item_id"]) for event in (await api.events(made["execution_id"]))[1:]]
    assert told == [("n1", item["id"])] * 2
    await refused(api, made, "request/invalid", APPEND | {"node_id": "another"}, **lease)


@pytest.mark.parametrize(
    "said",
    [
        {"outcome": "completed", "error": {"type": "x"}},
        {"outcome": "completed", "retry": False},
        {"outcome": "failed", "result": 1},
        {"outcome": "released", "result": 1},
    ],
)
async def test_a_settle_says_nothing_that_its_outcome_has_no_use_for(api: Api, said: Any) -> None:
    made, _, lease = await leased(api)
    await refused(api, made, "request/invalid", {"type": "settle"} | said, **lease)
    assert (await shown(api, made))["sequence"] == 1


async def test_a_stale_fence_changes_nothing(api: Api) -> None:
    made, item, lease = await leased(api, retry={"initial_delay_ms": 0})
    api.clock.advance(30_000)
    await api.admin.post("/v1/leases:reclaim", json={"limit": 1000})
    before = await shown(api, made)
    await refused(api, made, "lease/not-held", APPEND, COMPLETE, **lease)
    [again] = await api.claim("q", worker_id="w2")
    problem = await refused(api, made, "lease/stale", APPEND, COMPLETE, **lease)
    assert (problem["current_epoch"], problem["current_status"]) == (item["epoch"] + 1, "leased")
    assert await shown(api, made) == before
    now = {"lease": {"work_item_id": again["id"], "epoch": again["epoch"]}}
    await transit(api, made, APPEND, COMPLETE, **now)


async def test_a_lease_that_ran_out_a_millisecond_ago_and_was_not_taken_still_holds(api: Api) -> None:
    made, _, lease = await leased(api)
    api.clock.advance(30_001)
    await transit(api, made, APPEND, COMPLETE, **lease)
    await verified(api, made)


@pytest.mark.parametrize("epoch", [2, 10**9])
async def test_a_fence_from_the_future_is_no_fence(api: Api, epoch: int) -> None:
    made, item, _ = await leased(api)
    await refused(api, made, "lease/stale", APPEND, lease={"work_item_id": item["id"], "epoch": epoch})


async def test_a_forged_fence_of_an_item_that_was_never_claimed_is_refused(api: Api) -> None:
    made = await api.start(start={"queue": "q"})
    for epoch, code in ((0, "request/invalid"), (1, "lease/stale")):
        lease = {"work_item_id": made["work_item_id"], "epoch": epoch}
        await refused(api, made, code, APPEND, lease=lease)
    assert len(await api.claim("q")) == 1


async def test_a_lease_of_another_tenant_is_not_found(api: Api, other: Api) -> None:
    made = await api.start()
    _, _, lease = await leased(other)
    await refused(api, made, "not-found", APPEND, **lease)


async def test_a_settle_needs_a_lease(api: Api) -> None:
    made = await api.start()
    await refused(api, made, "request/invalid", APPEND, COMPLETE)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"type": "append", "kind": "work.completed"}, "/kind"),
        ({"type": "append_state", "path": "no pointer", "value": 1}, "/path"),
        ({"type": "set_status", "status": "paused", "result": 1}, "/result"),
        ({"type": "set_attributes", "attributes": {f"a{n}": n for n in range(64)}}, "/attributes"),
        ({"type": "settle", "outcome": "completed"}, ""),
    ],
)
async def test_what_is_wrong_with_a_change_is_said_with_its_place(api: Api, change: Any, place: str) -> None:
    made = await api.start(attributes={"one": 1})
    problem = await refused(api, made, "request/invalid", APPEND, change)
    assert [error["pointer"] for error in problem["errors"]] == [f"/changes/1{place}"]


async def test_an_item_is_settled_once(api: Api) -> None:
    made, _, lease = await leased(api)
    for first in (COMPLETE, {"type": "settle", "outcome": "released"}, {"type": "settle", "outcome": "failed"}):
        problem = await refused(api, made, "request/invalid", first, COMPLETE, **lease)
        assert [error["pointer"] for error in problem["errors"]] == ["/changes/1"]
    await transit(api, made, COMPLETE, **lease)
    await refused(api, made, "lease/settled", COMPLETE | {"result": {"r": 2}}, **lease)


async def test_two_transitions_with_one_fence_settle_once(api: Api) -> None:
    made, _, lease = await leased(api)
    bodies = [{"changes": [APPEND | {"body": n}, COMPLETE]} | lease for n in range(6)]
    answers = await asyncio.gather(*(api.http.post(at(made), json=body) for body in bodies))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 5
    kinds = [event["kind"] for event in await api.events(made["execution_id"])]
    assert kinds == ["execution.started", "x", "work.completed"]


async def test_cancelling_takes_the_fence_of_a_transition(api: Api) -> None:
    made, _, lease = await leased(api)
    await api.ok("POST", at(made, "/status"), json={"status": "cancelled"})
    await refused(api, made, "lease/stale", APPEND, COMPLETE, **lease)


@pytest.mark.parametrize(
    ("role", "under_lease", "without"),
    [("owner", 200, 200), ("developer", 200, 200), ("operator", 403, 200), ("worker", 200, 403), ("viewer", 403, 403)],
)
async def test_roles_hold_for_transitions(api: Api, role: str, under_lease: int, without: int) -> None:
    made, _, lease = await leased(api)
    client = await api.as_role(role)
    assert (await client.post(at(made), json={"changes": [APPEND]} | lease)).status_code == under_lease
    assert (await client.post(at(made), json={"changes": [APPEND]})).status_code == without


async def test_a_worker_may_finish_but_not_cancel_its_execution(api: Api) -> None:
    made, _, lease = await leased(api)
    worker = await api.as_role("worker")
    for status, expected in (("cancelled", 403), ("paused", 403), ("completed", 200)):
        body = {"changes": [COMPLETE, {"type": "set_status", "status": status}]} | lease
        assert (await worker.post(at(made), json=body)).status_code == expected, status
    assert (await shown(api, made))["status"] == "completed"


# ── the answer was lost ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("outcome", ["completed", "failed", "released"])
async def test_a_settling_transition_made_again_answers_as_the_first_time(api: Api, outcome: str) -> None:
    made, _, lease = await leased(api)
    changes = [APPEND, {"type": "enqueue", "queue": "next"}, {"type": "settle", "outcome": outcome}]
    first = await transit(api, made, *changes, **lease)
    await transit(api, made, APPEND)
    assert await transit(api, made, *changes, **lease) == first
    assert (await shown(api, made))["sequence"] == first["sequence"] + 1
    assert len(await api.claim("next", max_items=10)) == 1


async def test_a_transition_that_ended_the_execution_made_again_answers_as_the_first_time(api: Api) -> None:
    for changes in (
        [COMPLETE, {"type": "set_status", "status": "completed"}],
        [APPEND, {"type": "set_status", "status": "failed"}],
    ):
        made, _, lease = await leased(api)
        first = await transit(api, made, *changes, **lease)
        assert await transit(api, made, *changes, **lease) == first
        await refused(api, made, "lease/settled" if changes[0] is COMPLETE else "lease/stale", APPEND, **lease)


async def test_a_repeat_after_the_item_was_claimed_again_is_stale(api: Api) -> None:
    made, _, lease = await leased(api)
    await transit(api, made, {"type": "settle", "outcome": "released"}, **lease)
    await api.claim("q")
    await refused(api, made, "lease/stale", {"type": "settle", "outcome": "released"}, **lease)


async def test_the_first_answer_is_told_to_nobody_else(api: Api) -> None:
    made, _, lease = await leased(api)
    await transit(api, made, COMPLETE, **lease)
    stranger = await api.start()
    await refused(api, stranger, "not-found", COMPLETE, **lease)
    viewer = await api.as_role("operator")
    assert (await viewer.post(at(made), json={"changes": [COMPLETE]} | lease)).status_code == 403


async def test_a_transition_is_made_once_under_its_key(api: Api) -> None:
    made, headers = await api.start(), {"idempotency-key": "k"}
    body: dict[str, Any] = {"changes": [APPEND, {"type": "enqueue", "queue": "next"}]}
    first = await api.http.post(at(made), json=body, headers=headers)
    again = await api.http.post(at(made), json=body, headers=headers)
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    assert ("idempotent-replayed" in first.headers, again.headers["idempotent-replayed"]) == (False, "true")
    assert (await shown(api, made))["sequence"] == 3
    problem = await api.refused("POST", at(made), "idempotency/mismatch", json={"changes": [APPEND]}, headers=headers)
    assert problem["status"] == 422


async def test_a_key_names_one_execution(api: Api) -> None:
    one, two, headers = await api.start(), await api.start(), {"idempotency-key": "k"}
    body = {"changes": [APPEND]}
    await api.ok("POST", at(one), json=body, headers=headers)
    await api.refused("POST", at(two), "idempotency/mismatch", json=body, headers=headers)


async def test_a_refused_transition_may_be_tried_again_under_its_key(api: Api) -> None:
    made, headers = await api.start(), {"idempotency-key": "k"}
    body = {"changes": [APPEND], "expected_sequence": 2}
    await api.refused("POST", at(made), "sequence/mismatch", json=body, headers=headers)
    await transit(api, made, APPEND)
    again = await api.http.post(at(made), json=body, headers=headers)
    assert (again.status_code, "idempotent-replayed" in again.headers) == (200, False)


# ── batches ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_batch_answers_each_in_order_and_each_stands_alone(api: Api) -> None:
    made = [await api.start() for _ in range(3)]
    _, _, lease = await leased(api)
    named = [{"execution_id": one["execution_id"]} for one in made]
    bodies: list[Any] = [
        {"changes": [APPEND]} | named[0],
        {"changes": [APPEND, {"type": "append_state", "path": "", "value": 1}]} | named[1],
        {"changes": [APPEND, COMPLETE]} | lease,
        {"changes": [APPEND], "execution_id": "nobody"},
        {"changes": [{"type": "set_status", "status": "completed"}]} | named[2],
        {"changes": [APPEND]},
    ]
    results = (await api.ok("POST", "/v1/transitions:batch", json=bodies))["results"]
    assert ["ok" if "ok" in one else one["error"]["code"] for one in results] == [
        "ok", "state/not-an-array", "ok", "not-found", "ok", "request/invalid",
    ]  # fmt: skip
    assert results[1]["error"]["status"] == 409
    assert [(await shown(api, one))["sequence"] for one in made] == [2, 1, 2]


async def test_each_answer_of_a_batch_tells_of_its_own_transition(api: Api) -> None:
    """Also when they are of one execution; in which order such ones are made is not promised."""
    made = await api.start()
    bodies = [{"changes": [APPEND | {"body": n}], "execution_id": made["execution_id"]} for n in range(200)]
    results = (await api.ok("POST", "/v1/transitions:batch", json=bodies))["results"]
    log = await api.events(made["execution_id"])
    assert [log[one["ok"]["sequence"] - 1]["body"] for one in results] == list(range(200))
    assert len(log) == 201


async def test_a_thousand_transitions_are_one_request(api: Api) -> None:
    starts = [{"workflow_id": "wf", "execution_id": f"e{n}"} for n in range(1000)]
    await api.ok("POST", "/v1/executions:batch", json=starts)
    bodies = [{"changes": [APPEND | {"body": n}], "execution_id": f"e{n}"} for n in range(1000)]
    results = (await api.ok("POST", "/v1/transitions:batch", json=bodies))["results"]
    assert [one["ok"]["execution_id"] for one in results] == [f"e{n}" for n in range(1000)]
    await api.refused("POST", "/v1/transitions:batch", "request/invalid", json=[*bodies, bodies[0]])
    await api.refused("POST", "/v1/transitions:batch", "request/invalid", json=[])


async def test_a_batch_is_made_once_under_its_key(api: Api) -> None:
    made, headers = await api.start(), {"idempotency-key": "k"}
    bodies = [{"changes": [APPEND], "execution_id": made["execution_id"]}] * 2
    first = await api.http.post("/v1/transitions:batch", json=bodies, headers=headers)
    again = await api.http.post("/v1/transitions:batch", json=bodies, headers=headers)
    assert first.json() == again.json()
    assert ("idempotent-replayed" in first.headers, again.headers["idempotent-replayed"]) == (False, "true")
    assert (await shown(api, made))["sequence"] == 3
    refused = await api.refused(
        "POST", "/v1/transitions:batch", "idempotency/mismatch", json=[*bodies, bodies[0]], headers=headers
    )
    assert refused["status"] == 422
    assert (await shown(api, made))["sequence"] == 3


async def test_what_a_batch_was_refused_may_be_tried_again_under_its_key(api: Api) -> None:
    made, headers = await api.start(), {"idempotency-key": "k"}
    named = {"execution_id": made["execution_id"]}
    bodies = [{"changes": [APPEND]} | named, {"changes": [APPEND], "expected_sequence": 3} | named]
    first = (await api.http.post("/v1/transitions:batch", json=bodies, headers=headers)).json()["results"]
    await transit(api, made, APPEND)
    again = (await api.http.post("/v1/transitions:batch", json=bodies, headers=headers)).json()["results"]
    assert first[0] == again[0]
    assert (first[1]["error"]["code"], again[1]["ok"]["sequence"]) == ("sequence/mismatch", 4)


async def test_a_state_of_many_small_parts_may_be_written_anew_less_often(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "REWRITTEN_MAX", 250)
    text, lists = {"l": "x" * 30}, {"l": [[]] * 10}
    merges = [{"type": "merge_state", "patch": {"n": n}} for n in range(3)]
    await transit(api, await api.start(state=text), *merges)
    await refused(api, await api.start(state=lists), "request/invalid", *merges)


async def test_what_goes_through_all_items_or_all_of_the_state_may_be_said_a_few_times_only(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await api.start(state={"l": ["x" * 100]})
    await transit(api, made, *[{"type": "enqueue", "queue": "q"}] * 5)
    monkeypatch.setattr(rules, "LOOKS_MAX", 9)
    monkeypatch.setattr(rules, "REWRITTEN_MAX", 250)
    none = {"type": "cancel_items", "ids": ["nobody"]}
    await transit(api, made, none, none)
    await refused(api, made, "request/invalid", none, none, none)
    for change in ({"type": "merge_state", "patch": {"n": 1}}, {"type": "append_state", "path": "/n", "value": 1}):
        await refused(api, made, "request/invalid", *[change] * 4)
        await transit(api, made, change)
        await transit(api, made, {"type": "merge_state", "patch": {"n": None}})
    note = {"type": "append", "kind": "note"}
    await refused(api, made, "request/invalid", *[note, {"type": "snapshot"}] * 3)
    await verified(api, made)
