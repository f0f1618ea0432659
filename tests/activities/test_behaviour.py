"""Activities over HTTP: each is tried until it is done or given up, and its workflow sees the end once."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from tests.activities.hands import activity, claimed, kinds, shown, tell, waiting
from tests.conftest import Api, Clock
from tests.namespaces.test_deletion import count
from tests.runs.engine import commands, reclaim, started, submit, tasks

ERROR = {"type": "gateway_down"}


async def test_an_activity_is_done_and_its_workflow_sees_the_result(api: Api) -> None:
    run = await waiting(api, activity(7, input={"amount": 42}))
    (item,) = await claimed(api)
    assert (item["name"], item["seq"], item["task_queue"]) == ("charge", 7, "pay")
    assert (item["execution_id"], item["input"], item["attempt"], item["details"]) == (run, {"amount": 42}, 1, None)
    told = await tell(api, item, "complete", result={"receipt": 1})
    assert (told["outcome"], told["sequence"]) == ("completed", 3)
    (task,) = await tasks(api, since={run: 1})
    scheduled, completed = task["history"]
    assert scheduled["kind"] == "activity.scheduled"
    assert scheduled["body"] == {
        "seq": 7, "name": "charge", "activity_id": item["id"], "task_queue": "pay", "input": {"amount": 42},
    }  # fmt: skip
    assert completed["kind"] == "activity.completed"
    assert completed["body"] == {
        "seq": 7, "name": "charge", "activity_id": item["id"], "attempt": 1, "result": {"receipt": 1},
    }  # fmt: skip
    await submit(api, task, {"type": "CompleteWorkflow"})
    assert (await api.ok("GET", f"/v1/executions/{run}"))["open_items"] == 0


async def test_an_activity_only_goes_to_a_worker_that_can_run_it(api: Api) -> None:
    await waiting(api, activity(1, name="refund"))
    assert await claimed(api, "charge", "ship") == []
    assert await api.claim("pay") == []
    assert len(await claimed(api, "charge", "refund")) == 1


async def test_two_workers_have_one_winner(api: Api) -> None:
    await waiting(api, activity())
    found = await asyncio.gather(*(claimed(api, worker_id=f"w{n}") for n in range(8)))
    assert sorted(len(items) for items in found) == [0] * 7 + [1]


@pytest.mark.parametrize("said", [{}, {"input": None}, {"input": {"amount": 7}}], ids=repr)
async def test_a_claim_that_is_repeated_under_its_key_shows_the_same_attempts(api: Api, said: Any) -> None:
    await waiting(api, activity(**said))
    body = {"worker_id": "a", "queues": ["pay"], "activities": ["charge"]}
    asked = [await api.http.post("/v1/activities:claim", json=body, headers={"idempotency-key": "k"}) for _ in "ab"]
    assert asked[0].json() == asked[1].json() != {"items": []}
    assert ["idempotent-replayed" in one.headers for one in asked] == [False, True]


async def test_a_claim_that_is_made_several_times_at_once_under_one_key_shows_the_same_attempts(api: Api) -> None:
    """The first asks for more rows before it is decided: those behind it do not overtake it, who find nothing left."""
    await waiting(api, activity(7))
    asked = {"worker_id": "w", "queues": ["pay"], "activities": ["charge"]}
    claims = (api.http.post("/v1/activities:claim", json=asked, headers={"idempotency-key": "k"}) for _ in range(4))
    first, *others = [answer.json()["items"] for answer in await asyncio.gather(*claims)]
    assert len(first) == 1 and others == [first] * 3


async def test_namespaces_do_not_share_activities(api: Api) -> None:
    await api.ok("POST", "/v1/namespaces", json={"name": "blue"})
    await started(api, namespace="blue")
    (task,) = await tasks(api, namespace="blue")
    await submit(api, task, activity())
    assert await claimed(api) == []
    (item,) = await claimed(api, namespace="blue")
    assert item["task_queue"] == "pay"


async def test_a_repeated_complete_answers_the_same_and_another_one_is_refused(api: Api) -> None:
    run = await waiting(api, activity())
    (item,) = await claimed(api)
    told = await tell(api, item, "complete", result=1)
    assert await tell(api, item, "complete", result=1) == told
    body = {"epoch": item["epoch"], "result": 2}
    await api.refused("POST", f"/v1/activities/{item['id']}/complete", "lease/settled", json=body)
    assert await kinds(api, run) == ["activity.scheduled", "activity.completed"]


async def test_many_activities_are_completed_at_once_and_each_is_told_apart(api: Api) -> None:
    runs = [await waiting(api, activity()) for _ in range(2)]
    one, two = sorted(await claimed(api, max_items=2), key=lambda item: runs.index(item["execution_id"]))
    asked = [{"id": one["id"], "epoch": 1, "result": 1}, {"id": two["id"], "epoch": 2}]
    for _ in "ab":  # a repeat is answered the same
        told = (await api.ok("POST", "/v1/activities:complete", json=asked))["results"]
        assert (told[0]["ok"]["outcome"], told[1]["error"]["code"]) == ("completed", "lease/stale")
    [nameless] = (await api.ok("POST", "/v1/activities:complete", json=[{"epoch": 1}]))["results"]
    assert nameless["error"]["errors"][0]["pointer"] == "/id"
    assert [(await kinds(api, run))[-1] for run in runs] == ["activity.completed", "activity.scheduled"]


async def test_a_failed_attempt_is_tried_again_after_its_backoff_and_is_no_event(api: Api, clock: Clock) -> None:
    run = await waiting(api, activity(initial_interval_ms=100, backoff_coefficient=3, max_interval_ms=250))
    for attempt, pause in ((1, 100), (2, 250)):
        (item,) = await claimed(api)
        assert item["attempt"] == attempt
        assert (await tell(api, item, "fail", error=ERROR))["ready_at"] == clock.now + pause
        clock.advance(pause - 1)
        await reclaim(api)
        assert await claimed(api) == []
        clock.advance(1)
    assert await kinds(api, run) == ["activity.scheduled"]
    (item,) = await claimed(api)
    assert [error["attempt"] for error in (await shown(api, item))["errors"]] == [1, 2]
    assert (await tell(api, item, "fail", error=ERROR))["outcome"] == "dead_lettered"
    last = (await api.events(run))[-1]
    assert (last["kind"], last["body"]["attempt"], last["body"]["error"]) == ("activity.failed", 3, ERROR)
    assert (await shown(api, item))["status"] == "failed"
    assert len(await tasks(api)) == 1


@pytest.mark.parametrize("said", [{"error": {"type": "declined"}}, {"error": ERROR, "retryable": False}])
async def test_what_cannot_be_retried_is_not(said: dict[str, Any], api: Api) -> None:
    run = await waiting(api, activity(max_attempts=9, non_retryable=["declined"]))
    (item,) = await claimed(api)
    await tell(api, item, "fail", **said)
    assert (await kinds(api, run))[-1] == "activity.failed"


async def test_a_dead_activity_is_no_dead_letter_to_requeue(api: Api) -> None:
    await waiting(api, activity(max_attempts=1))
    (item,) = await claimed(api)
    await tell(api, item, "fail", error=ERROR)
    await api.refused("POST", f"/v1/dead-letters/{item['id']}/requeue", "work/conflict", json={})


async def test_a_worker_that_dies_loses_its_lease_and_not_the_activity(api: Api, clock: Clock) -> None:
    run = await waiting(api, activity(initial_interval_ms=0))
    (first,) = await claimed(api, lease_ms=1_000)
    clock.advance(1_001)
    await reclaim(api)
    (again,) = await claimed(api)
    assert (again["id"], again["attempt"], again["epoch"]) == (first["id"], 2, 2)
    body = {"epoch": first["epoch"], "result": "late"}
    await api.refused("POST", f"/v1/activities/{first['id']}/complete", "lease/stale", json=body)
    assert await kinds(api, run) == ["activity.scheduled"]
    await tell(api, again, "complete")
    assert (await kinds(api, run))[-1] == "activity.completed"


async def test_many_activities_whose_workers_died_for_the_last_time_all_end(api: Api, clock: Clock) -> None:
    runs = []
    for number in range(20):
        run = await started(api, workflow_type=f"w{number}")
        (task,) = await tasks(api, f"w{number}")
        await submit(api, task, activity(max_attempts=1))
        runs.append(run)
    assert len(await claimed(api, max_items=20, lease_ms=1_000)) == 20
    clock.advance(61_001)
    await reclaim(api)
    for run in runs:
        last = (await api.events(run))[-1]
        assert (last["kind"], last["body"]["error"]["type"]) == ("activity.failed", "lease_expired")


async def test_heartbeats_keep_details_and_hand_the_last_ones_on(api: Api) -> None:
    await waiting(api, activity(initial_interval_ms=0))
    (item,) = await claimed(api)
    for done in (1, 2):
        told = await tell(api, item, "heartbeat", details={"done": done})
        assert told["cancel_requested"] is False
    await tell(api, item, "heartbeat")
    assert (await shown(api, item))["details"] == {"done": 2}
    await tell(api, item, "fail", error=ERROR)
    (again,) = await claimed(api)
    assert again["details"] == {"done": 2}
    await api.refused("POST", f"/v1/activities/{item['id']}/heartbeat", "lease/stale", json={"epoch": item["epoch"]})


async def test_a_fan_out_of_a_hundred_is_a_handful_of_statements(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    run = await started(api)
    (task,) = await tasks(api)
    backend = api.service.services.backend
    tally, write = Counter[str](), backend.write

    async def counting(work: Any, **more: Any) -> Any:
        return await write(lambda tx: work(Counted(tx, tally)), **more)

    monkeypatch.setattr(backend, "write", counting)
    names = [f"step{number}" for number in range(100)]
    await submit(api, task, *(activity(seq, name=name) for seq, name in enumerate(names)))
    assert max(tally.values()) <= 2
    assert tally.total() <= 20
    monkeypatch.undo()
    items = await claimed(api, *names, max_items=100)
    assert [item["seq"] for item in items] == list(range(100))
    await asyncio.gather(*(tell(api, item, "complete", result=item["seq"]) for item in items))
    (task,) = await tasks(api)
    done = [event["body"]["result"] for event in task["history"] if event["kind"] == "activity.completed"]
    assert sorted(done) == list(range(100))
    assert [event["sequence"] for event in await api.events(run)] == list(range(1, 202))


class Counted:
    """A transaction that tells which statements it was asked for."""

    def __init__(self, tx: Any, tally: Counter[str]) -> None:
        self._tx, self._tally = tx, tally

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tx, name)

    async def all(self, statement: str, **params: Any) -> Any:
        self._tally[statement] += 1
        return await self._tx.all(statement, **params)

    async def one(self, statement: str, **params: Any) -> Any:
        self._tally[statement] += 1
        return await self._tx.one(statement, **params)

    async def load(self, reads: Sequence[Any]) -> Any:
        self._tally.update(read[0] for read in reads)
        return await self._tx.load(reads)

    async def save(self, writes: Sequence[Any]) -> Any:
        self._tally.update(write[0] for write in writes)
        return await self._tx.save(writes)


async def test_the_same_activity_again_is_the_same_and_another_is_nondeterminism_naming_both(api: Api) -> None:
    run = await waiting(api, activity(1, input=1), activity(1, input=1))
    said = {"seq": 1, "name": "charge", "task_queue": "pay"}
    told = await api.ok("POST", f"/v1/executions/{run}/activities", json=said | {"input": 1})
    assert (told["created"], told["status"]) == (False, "open")
    defaults = {
        "initial_interval_ms": 1_000,
        "start_to_close_ms": 300_000,
        "backoff_coefficient": 2,
        "non_retryable": [],
    }
    assert await api.ok("POST", f"/v1/executions/{run}/activities", json=said | {"input": 1} | defaults) == told
    for other in (said, said | {"input": 2}, said | {"name": "refund", "input": 1}):
        problem = await api.refused(
            "POST", f"/v1/executions/{run}/activities", "workflow/nondeterminism", json=other
        )  # fmt: skip
        assert problem["before"]["input"] == 1
        assert problem["now"]["name"] == other["name"]
    assert await kinds(api, run) == ["activity.scheduled"]


async def test_an_activity_asked_for_from_outside_is_seen_by_the_workflow_when_it_ends(api: Api) -> None:
    run = await waiting(api)
    told = await api.ok(
        "POST", f"/v1/executions/{run}/activities", json={"seq": 1, "name": "charge", "task_queue": "pay"}
    )
    assert told["created"]
    (item,) = await claimed(api)
    assert item["id"] == told["id"]
    await tell(api, item, "complete")
    assert len(await tasks(api)) == 1


async def test_an_execution_without_a_workflow_has_no_activities(api: Api) -> None:
    made = await api.start(start={"queue": "pay"})
    said = {"seq": 1, "name": "charge", "task_queue": "pay"}
    await api.refused("POST", f"/v1/executions/{made['execution_id']}/activities", "not-found", json=said)
    (item,) = await api.claim("pay")
    for what, body in (("complete", {}), ("fail", {"error": ERROR}), ("heartbeat", {})):
        await api.refused("POST", f"/v1/activities/{item['id']}/{what}", "not-found", json={"epoch": 1} | body)
    await api.refused("GET", f"/v1/activities/{item['id']}", "not-found")


@pytest.mark.parametrize(
    "wrong", [{"start_to_close_ms": 0}, {"max_attempts": 0}, {"name": ""}, {"backoff_coefficient": 0.5}, {"more": 1}]
)
async def test_an_activity_that_makes_no_sense_is_refused(wrong: dict[str, Any], api: Api) -> None:
    await started(api)
    (task,) = await tasks(api)
    path = f"/v1/workflow-tasks/{task['task_id']}/commands"
    await api.refused("POST", path, "request/invalid", json=commands(task, activity() | wrong))


async def test_each_activity_of_a_run_is_shown_as_it_stands_itself(api: Api) -> None:
    run = await waiting(api, activity(1), activity(2))
    one, two = await claimed(api)
    await tell(api, one, "complete")
    assert [(await shown(api, item))["status"] for item in (one, two)] == ["completed", "leased"]
    await api.ok("POST", f"/v1/executions/{run}/terminate", json={})
    assert [(await shown(api, item))["status"] for item in (one, two)] == ["completed", "closed"]
    assert await count(api.service, f"alarms WHERE tenant_id = '{api.tenant}'") == 0


async def test_a_run_that_has_ended_takes_its_activities_with_it(api: Api) -> None:
    run = await waiting(api, activity(1), activity(2))
    (item,) = await claimed(api, max_items=1)
    await api.ok("POST", f"/v1/executions/{run}/terminate", json={})
    body = {"epoch": item["epoch"]}
    for what in ("complete", "heartbeat"):
        await api.refused("POST", f"/v1/activities/{item['id']}/{what}", "lease/stale", json=body)
    assert await claimed(api) == []
    assert (await shown(api, item))["status"] == "closed"
    assert (await kinds(api, run))[-1] == "execution.terminated"
    assert await count(api.service, f"alarms WHERE tenant_id = '{api.tenant}'") == 0


async def test_an_activity_is_held_to_limits_when_it_is_asked_for_and_not_when_it_ends(api: Api) -> None:
    run = await waiting(api, activity())
    (item,) = await claimed(api)
    limits = {"payload_bytes": 10, "events_per_execution": 2}
    answer = await api.admin.patch(f"/v1/tenants/{api.tenant}", json={"limits": limits})
    assert answer.status_code == 200, answer.text
    path, said = f"/v1/executions/{run}/activities", {"seq": 2, "name": "charge", "task_queue": "pay"}
    await api.refused("POST", path, "limit/payload-bytes", json=said | {"input": "x" * 9})
    await api.refused("POST", path, "limit/events-per-execution", json=said | {"input": "x" * 8})
    assert (await tell(api, item, "complete"))["outcome"] == "completed"
    assert await kinds(api, run) == ["activity.scheduled", "activity.completed"]
