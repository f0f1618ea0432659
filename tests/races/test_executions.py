"""One winner, whoever comes at once, through whichever door."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from tests.conftest import new_store
from tests.races.conftest import Pair, Ways, held_up, in_one_process


async def start(pair: Pair, **body: Any) -> str:
    """Start an execution; its id."""
    return str((await pair.ok("POST", "/v1/executions", json={"workflow_id": "wf"} | body))["execution_id"])


async def test_appends_at_once_are_dense_and_all_there(pair: Pair) -> None:
    run = await start(pair)
    answers = await pair.all(
        "POST",
        f"/v1/executions/{run}/events",
        [{"events": [{"kind": "x", "body": n}, {"kind": "y", "body": n}]} for n in range(64)],
    )
    assert {answer.status_code for answer in answers} == {201}, [
        answer.text for answer in answers if answer.status_code != 201
    ]
    log = await pair.events(run)
    assert [event["sequence"] for event in log] == list(range(1, 130))
    for n, answer in enumerate(answers):
        first = answer.json()["first_sequence"]
        assert [(event["kind"], event["body"]) for event in log[first - 1 : first + 1]] == [("x", n), ("y", n)]


async def test_of_those_who_expect_one_sequence_one_wins(pair: Pair) -> None:
    run = await start(pair)
    for expected in range(1, 6):
        bodies = [{"events": [{"kind": "x", "body": n}], "expected_sequence": expected} for n in range(12)]
        answers = await pair.all("POST", f"/v1/executions/{run}/events", bodies)
        assert Counter(answer.status_code for answer in answers) == {201: 1, 409: 11}
        lost = [answer.json() for answer in answers if answer.status_code == 409]
        assert {(one["code"], one["current_sequence"]) for one in lost} == {("sequence/mismatch", expected + 1)}


async def test_values_appended_to_one_array_at_once_all_survive(pair: Pair) -> None:
    run = await start(pair)
    bodies = [{"path": "/list", "value": n} for n in range(48)]
    answers = await pair.all("POST", f"/v1/executions/{run}/state:append", bodies)
    assert {answer.status_code for answer in answers} == {200}
    state = (await pair.ok("GET", f"/v1/executions/{run}"))["state"]
    assert sorted(state["list"]) == list(range(48))
    assert (await pair.ok("POST", f"/v1/executions/{run}/snapshots:verify"))["matches"] is True


async def test_merges_of_different_fields_at_once_all_survive(pair: Pair) -> None:
    run = await start(pair)
    await asyncio.gather(*(pair.ok("PATCH", f"/v1/executions/{run}/state", json={f"f{n}": n}) for n in range(32)))
    assert (await pair.ok("GET", f"/v1/executions/{run}"))["state"] == {f"f{n}": n for n in range(32)}


async def test_of_starts_with_one_id_one_creates(pair: Pair) -> None:
    body = {"workflow_id": "wf", "execution_id": "mine", "start": {"queue": "q"}, "labels": {"a": "b"}}
    answers = await pair.all("POST", "/v1/executions", [body] * 24)
    assert Counter(answer.status_code for answer in answers) == {201: 1, 200: 23}, {answer.text for answer in answers}
    assert len({answer.json()["work_item_id"] for answer in answers}) == 1
    assert len(await pair.events("mine")) == 1
    assert len((await pair.ok("GET", "/v1/work-items"))["items"]) == 1


async def test_of_different_starts_with_one_id_one_creates_and_the_others_are_told(pair: Pair) -> None:
    bodies = [{"workflow_id": "wf", "execution_id": "mine", "input": n} for n in range(12)]
    answers = await pair.all("POST", "/v1/executions", bodies)
    assert Counter(answer.status_code for answer in answers) == {201: 1, 409: 11}
    won = next(n for n, answer in enumerate(answers) if answer.status_code == 201)
    assert (await pair.ok("GET", "/v1/executions/mine"))["input"] == won


async def test_an_idempotency_key_has_one_effect(pair: Pair) -> None:
    answers = await pair.all("POST", "/v1/executions", [{"workflow_id": "wf"}] * 24, headers={"idempotency-key": "k"})
    assert {answer.status_code for answer in answers} == {201}, {answer.text for answer in answers}
    assert len({answer.text for answer in answers}) == 1
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 23
    assert len((await pair.ok("GET", "/v1/executions"))["items"]) == 1


async def test_an_idempotency_key_with_two_bodies_has_one_effect(pair: Pair) -> None:
    bodies = [{"workflow_id": "wf", "input": n % 2} for n in range(16)]
    answers = await pair.all("POST", "/v1/executions", bodies, headers={"idempotency-key": "k"})
    assert Counter(answer.status_code for answer in answers) == {201: 8, 422: 8}
    assert len((await pair.ok("GET", "/v1/executions"))["items"]) == 1


@pytest.mark.parametrize("most", [1, 7])
async def test_the_last_place_under_a_limit_is_given_once(ways: Ways, most: int) -> None:
    pair = await ways.tenant(limits={"running_executions": most})
    answers = await pair.all("POST", "/v1/executions", [{"workflow_id": "wf"}] * 24)
    assert Counter(answer.status_code for answer in answers) == {201: most, 409: 24 - most}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"limit/running-executions"}
    usage = await pair.ok("GET", f"/v1/tenants/{pair.tenant}/usage")
    assert usage["running_executions"] == most


async def test_a_place_that_becomes_free_is_given_once(ways: Ways) -> None:
    pair = await ways.tenant(limits={"running_executions": 4})
    for n in range(4):
        await start(pair, execution_id=f"e{n}")
    ends = [pair.last.post(f"/v1/executions/e{n}/status", json={"status": "completed"}) for n in range(4)]
    starts = [pair.clients[n % len(pair.clients)].post("/v1/executions", json={"workflow_id": "wf"}) for n in range(16)]
    answers = await asyncio.gather(*ends, *starts)
    assert {answer.status_code for answer in answers[:4]} == {200}
    begun = sum(answer.status_code == 201 for answer in answers[4:])
    usage = await pair.ok("GET", f"/v1/tenants/{pair.tenant}/usage")
    assert usage["running_executions"] == begun <= 4


async def test_of_two_bodies_for_one_version_one_wins(pair: Pair) -> None:
    bodies = [{"n": n % 2} for n in range(16)]
    answers = await pair.all("PUT", "/v1/definitions/flow/1?validate=false", bodies)
    assert Counter(answer.status_code for answer in answers) == {201: 1, 200: 7, 409: 8}, {
        answer.text for answer in answers
    }
    won = next(body for body, answer in zip(bodies, answers, strict=True) if answer.status_code == 201)
    assert (await pair.ok("GET", "/v1/definitions/flow/1"))["definition"] == won


async def test_versions_stored_at_once_have_revisions_of_their_own(pair: Pair) -> None:
    answers = await asyncio.gather(
        *(pair.ok("PUT", f"/v1/definitions/flow/{n}?validate=false", json={"n": n}) for n in range(16))
    )
    assert sorted(answer["revision"] for answer in answers) == list(range(1, 17))


async def test_transitions_crossing_two_executions_each_stay_whole(pair: Pair) -> None:
    runs = [await start(pair) for _ in range(2)]

    def step(n: int, run: str) -> Any:
        changes = [{"type": "append", "kind": "x", "body": n}, {"type": "append_state", "path": "/seen", "value": n}]
        return {"execution_id": run, "changes": changes}

    batches = [[step(n, runs[n % 2]), step(n, runs[1 - n % 2])] for n in range(24)]
    answers = await pair.all("POST", "/v1/transitions:batch", batches)
    for answer in answers:
        assert all("ok" in one for one in answer.json()["results"]), answer.text
    for run in runs:
        log = await pair.events(run)
        assert [event["sequence"] for event in log] == list(range(1, 50))
        pairs = [(log[at]["body"], log[at + 1]["body"]["value"]) for at in range(1, 49, 2)]
        assert sorted(pairs) == [(n, n) for n in range(24)]


async def test_of_endings_at_once_one_wins(pair: Pair) -> None:
    run = await start(pair)
    statuses = ["completed", "failed", "cancelled", "terminated"] * 4
    answers = await pair.all("POST", f"/v1/executions/{run}/status", [{"status": status} for status in statuses])
    assert Counter(answer.status_code for answer in answers) == {200: 1, 409: 15}
    won = next(status for status, answer in zip(statuses, answers, strict=True) if answer.status_code == 200)
    assert (await pair.ok("GET", f"/v1/executions/{run}"))["status"] == won
    assert len(await pair.events(run)) == 2


async def test_the_feed_has_each_log_in_its_order_whoever_waited_for_whom(postgres_server: str) -> None:
    """A batch holds one log, waits for a second, and comes to a third that another has written to meanwhile."""
    url = await new_store(postgres_server)
    async with in_one_process(url, 2) as ways:
        pair = await ways.tenant()
        for run in "abc":
            await start(pair, execution_id=run)
        late = [{"execution_id": run, "changes": [{"type": "append", "kind": "late"}]} for run in "abc"]
        asked = pair.first.post("/v1/transitions:batch", json=late)
        async with held_up(url, "executions WHERE id = 'b'", asked) as waits:
            early = await pair.last.post("/v1/executions/c/events", json={"events": [{"kind": "early"}]})
        assert [early.status_code, (await waits).status_code] == [201, 200]
        told = [one["event"] for one in (await pair.ok("GET", "/v1/events"))["items"] if one["execution_id"] == "c"]
        assert [(one["sequence"], one["kind"]) for one in told] == [
            (1, "execution.started"), (2, "early"), (3, "late"),
        ]  # fmt: skip
