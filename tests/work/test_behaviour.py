"""What callers may rely on when they enqueue, claim and settle work."""

import asyncio
from collections.abc import Callable

import pytest

from service.kernel.command import Request
from service.kernel.principal import SYSTEM, Principal, internal
from service.work import rules_leases, sweeps
from service.work.model import (
    ClaimWork,
    CompleteWork,
    DeadLetterWork,
    EnqueueWork,
    ReclaimLeases,
    ReleaseWork,
    RenewLease,
    WorkError,
)
from tests.conftest import Api, Clock
from tests.work.steps import QUICK, bury, enqueue, fail, kinds, settle, shown

# ── enqueue ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_enqueued_item_is_there_with_everything_that_was_said(api: Api, clock: Clock) -> None:
    body = {
        "queue": "emails", "id": "mine", "payload": {"to": ["a"]}, "priority": 7, "max_attempts": 4,
        "retry": {
            "backoff": "linear", "initial_delay_ms": 5, "coefficient": 2.0, "max_delay_ms": 9, "jitter": False,
            "non_retryable": ["bad"],
        },
        "required_capabilities": ["gpu", "avx"], "dedup_key": "d", "concurrency_key": "c", "node_id": "n",
    }  # fmt: skip
    answer = await api.http.post("/v1/work-items", json=body)
    assert answer.status_code == 201
    assert answer.json() == {"id": "mine", "status": "ready", "ready_at": clock.now, "created": True, "sequence": None}
    item = await shown(api, "mine")
    told = {name: item[name] for name in body if name != "required_capabilities"}
    assert told == {name: value for name, value in body.items() if name != "required_capabilities"}
    assert (item["required_capabilities"], item["attempt"], item["lease"], item["errors"]) == (
        ["avx", "gpu"],
        0,
        None,
        [],
    )
    assert (item["drives"], item["execution_id"], item["created_at"]) == ("nothing", None, clock.now)


async def test_the_same_id_with_the_same_contents_is_the_same_item(api: Api) -> None:
    body = {"queue": "q", "id": "one", "payload": {"a": 1}}
    first = await api.http.post("/v1/work-items", json=body)
    again = await api.http.post("/v1/work-items", json=body)
    assert (first.status_code, again.status_code, again.json()["created"]) == (201, 200, False)
    for other in (
        {"payload": {"a": 2}}, {"queue": "p"}, {"required_capabilities": ["x"]}, {"node_id": "n"}, {"priority": 1},
        {"delay_ms": 5}, {"ready_at": 5}, {"max_attempts": 9}, {"retry": {}}, {"dedup_key": "k"},
        {"concurrency_key": "k"},
    ):  # fmt: skip
        problem = await api.refused("POST", "/v1/work-items", "work/conflict", json=body | other)
        assert problem["current_status"] == "ready"
    assert [item["id"] for item in await api.claim("q", max_items=9)] == ["one"]


async def test_an_open_item_stands_for_every_enqueue_with_its_dedup_key(api: Api) -> None:
    first = await enqueue(api, dedup_key="k", payload=1)
    assert await enqueue(api, "elsewhere", dedup_key="k", payload=2) == first
    [item] = await api.claim("q")
    assert await enqueue(api, dedup_key="k") == first
    await settle(api, item, "complete")
    assert await enqueue(api, dedup_key="k") != first


async def test_enqueues_at_once_with_one_dedup_key_make_one_item(api: Api) -> None:
    made = await asyncio.gather(*(enqueue(api, dedup_key="k") for _ in range(10)))
    assert len(set(made)) == 1
    assert len(await api.claim("q", max_items=20)) == 1


@pytest.mark.parametrize("way", ["delay_ms", "ready_at"])
async def test_an_item_put_off_is_delivered_when_it_is_time_and_not_before(api: Api, clock: Clock, way: str) -> None:
    until = {way: 5_000 + (clock.now if way == "ready_at" else 0)}
    item = await enqueue(api, **until)
    await enqueue(api, required_capabilities=["gpu"], priority=9, **until)
    beside = await enqueue(api, "beside", priority=-9, **until)
    assert (await shown(api, item))["status"] == "ready"
    clock.advance(4_999)
    assert await api.claim("q", "beside") == []
    clock.advance(1)
    assert [got["id"] for queue in ("beside", "q") for got in await api.claim(queue)] == [beside, item]


@pytest.mark.parametrize("swept", [False, True])
async def test_claims_go_by_priority_then_time_then_id_whether_or_not_a_sweep_ran(
    api: Api, clock: Clock, swept: bool
) -> None:
    order = [
        await enqueue(api, id="late", delay_ms=100, priority=9),
        await enqueue(api, id="b", priority=5),
        await enqueue(api, id="a", priority=5, delay_ms=50),
        await enqueue(api, id="x"),
        await enqueue(api, id="y"),
        await enqueue(api, id="low", priority=-1),
    ]
    clock.advance(100)
    await enqueue(api, id="future", priority=99, delay_ms=60_000)
    if swept:
        await sweeps.promote(api.service.services)
    assert [item["id"] for item in await api.claim("q", max_items=3)] == order[:3]
    assert [item["id"] for item in await api.claim("q", max_items=9)] == order[3:]


async def test_an_item_that_needs_more_hides_nothing_behind_it(api: Api) -> None:
    for _ in range(3):
        await enqueue(api, priority=9, required_capabilities=["gpu", "cuda"])
    plain = await enqueue(api)
    assert [item["id"] for item in await api.claim("q", max_items=9, capabilities=["gpu"])] == [plain]
    assert await api.claim("q", max_items=9) == []
    assert len(await api.claim("q", max_items=9, capabilities=["cuda", "more", "gpu"])) == 3


async def test_a_claim_may_name_queues_by_pattern(api: Api) -> None:
    for queue in ("mail-in", "mail-out", "sms"):
        await enqueue(api, queue, id=queue)
    assert [item["id"] for item in await api.claim("mail-*", max_items=9)] == ["mail-in", "mail-out"]
    assert [item["id"] for item in await api.claim("*", "sms", max_items=9)] == ["sms"]


async def test_an_item_of_another_tenant_is_never_claimed(api: Api, other: Api) -> None:
    item = await enqueue(other)
    assert await api.claim("*", max_items=9) == []
    await api.refused("GET", f"/v1/work-items/{item}", "not-found")
    [held] = await other.claim("q")
    await api.refused("POST", f"/v1/work-items/{item}/complete", "not-found", json={"epoch": held["epoch"]})


async def test_work_for_an_execution_is_in_its_log_and_ends_with_it(api: Api) -> None:
    run = (await api.start())["execution_id"]
    made = await api.ok("POST", "/v1/work-items", json={"queue": "q", "execution_id": run, "node_id": "n", "id": "i"})
    assert made["sequence"] == 2
    [_, event] = await api.events(run)
    assert (event["kind"], event["node_id"], event["work_item_id"]) == ("work.enqueued", "n", "i")
    await api.ok("POST", f"/v1/executions/{run}/status", json={"status": "completed"})
    problem = await api.refused(
        "POST", "/v1/work-items", "execution/terminal", json={"queue": "q", "execution_id": run}
    )
    assert problem["outcome"] == "completed"
    await api.refused("POST", "/v1/work-items", "not-found", json={"queue": "q", "execution_id": "nobody"})


# ── claim ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_every_delivery_counts_an_attempt_and_raises_the_epoch_by_one(api: Api, clock: Clock) -> None:
    await enqueue(api, payload={"n": 1}, max_attempts=9, retry=QUICK)
    for turn in (1, 2, 3):
        [item] = await api.claim("q", lease_ms=2_000)
        assert (item["attempt"], item["epoch"], item["payload"]) == (turn, turn, {"n": 1})
        assert item["expires_at"] == clock.now + 2_000
        await fail(api, item)


async def test_a_leased_item_shows_its_lease(api: Api, clock: Clock) -> None:
    item = await enqueue(api)
    await api.claim("q", worker_id="w7")
    found = await shown(api, item)
    assert (found["status"], found["lease"]["worker_id"], found["lease"]["epoch"]) == ("leased", "w7", 1)
    assert found["lease"]["expires_at"] == clock.now + 30_000


async def test_claimers_at_once_never_share_an_item(api: Api) -> None:
    made = {await enqueue(api) for _ in range(30)}
    hands = await asyncio.gather(*(api.claim("q", max_items=4, worker_id=f"w{n}") for n in range(10)))
    got = [item["id"] for hand in hands for item in hand]
    assert len(got) == len(set(got)) == 30
    assert set(got) == made


async def test_items_of_a_cancelled_execution_are_never_delivered(api: Api) -> None:
    run = (await api.start(start={"queue": "q"}))["execution_id"]
    await enqueue(api, execution_id=run, delay_ms=10)
    [held] = await api.claim("q")
    waiting = await enqueue(api, execution_id=run)
    await api.ok("POST", f"/v1/executions/{run}/status", json={"status": "cancelled"})
    api.clock.advance(60_000)
    assert await api.claim("q", max_items=9) == []
    assert (await shown(api, waiting))["status"] == "cancelled"
    problem = await api.refused(
        "POST", f"/v1/work-items/{held['id']}/complete", "lease/stale", json={"epoch": held["epoch"]}
    )
    assert problem["current_status"] == "cancelled"
    assert kinds(await api.events(run))[-4:] == ["work.cancelled"] * 3 + ["execution.cancelled"]


async def test_claims_and_cancellations_at_once_leave_no_item_of_an_ended_execution_leased(api: Api) -> None:
    runs = [(await api.start(start={"queue": "q"}))["execution_id"] for _ in range(10)]
    cancels = [api.ok("POST", f"/v1/executions/{run}/status", json={"status": "cancelled"}) for run in runs]
    await asyncio.gather(*cancels, *(api.claim("q", max_items=3) for _ in range(5)))
    found = (await api.ok("GET", "/v1/work-items?limit=100"))["items"]
    assert {item["status"] for item in found} == {"cancelled"}
    assert {(await api.ok("GET", f"/v1/executions/{run}"))["open_items"] for run in runs} == {0}


async def test_a_worker_s_token_reaches_only_its_own_queues(api: Api) -> None:
    minted = await api.ok("POST", "/v1/tokens", json={"name": "w", "role": "worker", "queues": ["mail-?"]})
    worker = api.service.client(minted["secret"])
    theirs, mine = await enqueue(api, "mail-10", id="theirs"), await enqueue(api, "mail-1", id="mine")

    async def ask(*queues: str) -> tuple[int, object]:
        answer = await worker.post(
            "/v1/work-items:claim", json={"worker_id": "w", "queues": list(queues), "max_items": 9}
        )
        return answer.status_code, answer.json()

    status, problem = await ask("sms")
    assert (status, problem["code"], problem["queues"]) == (403, "auth/queue", ["mail-?"])  # type: ignore[index]
    assert (await ask("mail-1", "mail-10"))[0] == 403
    status, hand = await ask("mail-*")  # fits the token's glob as a text, but reaches further
    assert (status, [item["id"] for item in hand["items"]]) == (200, [mine])  # type: ignore[index]
    for path in (f"/v1/work-items/{theirs}", f"/v1/work-items/{theirs}/complete"):
        answer = await (worker.get(path) if path.endswith(theirs) else worker.post(path, json={"epoch": 1}))
        assert answer.status_code == 404
    assert (await worker.post(f"/v1/work-items/{mine}/complete", json={"epoch": 1})).status_code == 200


async def test_a_token_with_queues_enqueues_only_on_them_also_in_a_batch(api: Api) -> None:
    minted = await api.ok("POST", "/v1/tokens", json={"name": "d", "role": "developer", "queues": ["a"]})
    developer = api.service.client(minted["secret"])
    assert (await developer.post("/v1/work-items", json={"queue": "b"})).json()["code"] == "auth/queue"
    both = (await developer.post("/v1/work-items:batch", json=[{"queue": "a"}, {"queue": "b"}])).json()["results"]
    assert (both[0]["ok"]["created"], both[1]["error"]["code"]) == (True, "auth/queue")


# ── renew ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_renewing_moves_the_end_and_keeps_the_progress_for_the_next_holder(api: Api, clock: Clock) -> None:
    await enqueue(api, retry=QUICK)
    [item] = await api.claim("q", lease_ms=10_000)
    clock.advance(4_000)
    renewed = await settle(api, item, "renew", progress={"page": 3})
    assert renewed == {"id": item["id"], "epoch": 1, "expires_at": clock.now + 10_000, "cancel_requested": False}
    assert (await settle(api, item, "renew", lease_ms=60_000))["expires_at"] == clock.now + 60_000
    await fail(api, item)
    [again] = await api.claim("q")
    assert again["progress"] == {"page": 3}


async def test_a_lease_that_ran_out_is_renewed_until_somebody_takes_it_back(api: Api, clock: Clock) -> None:
    await enqueue(api)
    [item] = await api.claim("q", lease_ms=1_000)
    clock.advance(5_000)
    assert (await settle(api, item, "renew"))["expires_at"] == clock.now + 1_000
    clock.advance(5_000)
    await sweeps.reclaim(api.service.services)
    problem = await api.refused("POST", f"/v1/work-items/{item['id']}/renew", "lease/not-held", json={"epoch": 1})
    assert (problem["current_epoch"], problem["current_status"]) == (1, "ready")


async def test_a_stale_or_settled_lease_is_not_renewed(api: Api) -> None:
    await enqueue(api, retry=QUICK)
    [first] = await api.claim("q")
    await fail(api, first)
    [second] = await api.claim("q")
    path = f"/v1/work-items/{first['id']}/renew"
    problem = await api.refused("POST", path, "lease/stale", json={"epoch": first["epoch"]})
    assert (problem["current_epoch"], problem["current_status"]) == (2, "leased")
    await settle(api, second, "complete")
    await api.refused("POST", path, "lease/settled", json={"epoch": second["epoch"]})
    await api.refused("POST", path, "lease/stale", json={"epoch": 99})


async def test_many_leases_are_renewed_at_once_and_each_is_told_apart(api: Api) -> None:
    await enqueue(api)
    await enqueue(api)
    one, two = await api.claim("q", max_items=2)
    asked = [{"id": one["id"], "epoch": 1}, {"id": two["id"], "epoch": 5}, {"id": "none", "epoch": 1}]
    results = (await api.ok("POST", "/v1/leases:renew", json=asked))["results"]
    assert results[0]["ok"]["id"] == one["id"]
    assert [result["error"]["code"] for result in results[1:]] == ["lease/stale", "not-found"]


# ── settle ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("verb", ["complete", "fail", "release", "renew"])
async def test_the_fence_is_mandatory(api: Api, verb: str) -> None:
    item = await enqueue(api)
    await api.claim("q")
    body = {"error": {"type": "x"}} if verb == "fail" else {}
    await api.refused("POST", f"/v1/work-items/{item}/{verb}", "request/invalid", json=body)
    await api.refused("POST", f"/v1/work-items/{item}/{verb}", "request/invalid", json=body | {"epoch": 0})


@pytest.mark.parametrize(
    ("verb", "body", "otherwise"),
    [
        ("complete", {"result": {"a": 1}}, {"result": {"a": 2}}),
        ("fail", {"error": {"type": "boom"}}, {"error": {"type": "bang"}}),
        ("fail", {"error": {"type": "boom"}, "retryable": False}, {"error": {"type": "boom"}}),
        ("release", {"delay_ms": 5}, {"delay_ms": 6}),
    ],
)
async def test_a_repeat_answers_as_the_first_did_and_anything_else_is_refused(
    api: Api, clock: Clock, verb: str, body: dict[str, object], otherwise: dict[str, object]
) -> None:
    run = (await api.start(start={"queue": "q"}))["execution_id"]
    [item] = await api.claim("q")
    first = await settle(api, item, verb, **body)
    logged = len(await api.events(run))
    assert await settle(api, item, verb, **body) == first
    clock.advance(600_000)
    await sweeps.promote(api.service.services)
    assert await settle(api, item, verb, **body) == first
    assert len(await api.events(run)) == logged
    path, changed = f"/v1/work-items/{item['id']}/{verb}", {"epoch": item["epoch"], **otherwise}
    code = "lease/not-held" if first["status"] == "ready" else "lease/settled"
    problem = await api.refused("POST", path, code, json=changed)
    assert (problem["current_epoch"], problem["current_status"]) == (1, first["status"])


async def test_repeats_at_once_settle_once(api: Api) -> None:
    run = (await api.start(start={"queue": "q"}))["execution_id"]
    [item] = await api.claim("q")
    answers = await asyncio.gather(*(settle(api, item, "complete", result=1) for _ in range(8)))
    assert all(answer == answers[0] for answer in answers)
    assert kinds(await api.events(run)).count("work.completed") == 1


async def test_of_two_results_offered_at_once_one_wins(api: Api) -> None:
    await enqueue(api)
    [item] = await api.claim("q")
    path = f"/v1/work-items/{item['id']}/complete"
    answers = await asyncio.gather(*(api.http.post(path, json={"epoch": 1, "result": n}) for n in range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 5


async def test_a_stale_fence_settles_nothing(api: Api, clock: Clock) -> None:
    await enqueue(api, retry=QUICK)
    [first] = await api.claim("q", lease_ms=1_000)
    clock.advance(1_000)
    await sweeps.reclaim(api.service.services)
    [second] = await api.claim("q")
    for verb, body in (("complete", {}), ("fail", {"error": {"type": "x"}}), ("release", {})):
        path = f"/v1/work-items/{first['id']}/{verb}"
        problem = await api.refused("POST", path, "lease/stale", json={"epoch": 1, **body})
        assert (problem["current_epoch"], problem["current_status"]) == (2, "leased")
    assert (await settle(api, second, "complete"))["outcome"] == "completed"


async def test_a_lease_that_ran_out_but_was_not_taken_may_still_complete(api: Api, clock: Clock) -> None:
    await enqueue(api)
    [item] = await api.claim("q", lease_ms=1_000)
    clock.advance(50_000)
    assert (await settle(api, item, "complete"))["outcome"] == "completed"
    await sweeps.reclaim(api.service.services)
    assert (await shown(api, item["id"]))["status"] == "completed"


async def test_an_item_that_was_never_claimed_is_not_settled(api: Api) -> None:
    item = await enqueue(api)
    await api.refused("POST", f"/v1/work-items/{item}/complete", "lease/stale", json={"epoch": 1})
    await api.refused("POST", "/v1/work-items/nobody/complete", "not-found", json={"epoch": 1})


async def test_completing_keeps_the_result_and_tells_the_execution(api: Api) -> None:
    run = (await api.start(start={"queue": "q", "node_id": "n"}))["execution_id"]
    [item] = await api.claim("q")
    told = await settle(api, item, "complete", result={"sum": 3})
    assert (told["status"], told["execution_id"], told["execution_status"], told["sequence"]) == (
        "completed",
        run,
        "running",
        2,
    )
    [_, event] = await api.events(run)
    assert (event["kind"], event["body"], event["node_id"]) == (
        "work.completed",
        {"attempt": 1, "result": {"sum": 3}},
        "n",
    )
    found = await shown(api, item["id"])
    assert (found["result"], found["lease"]) == ({"sum": 3}, None)
    assert (await api.ok("GET", f"/v1/executions/{run}"))["open_items"] == 0


async def test_an_item_that_drives_its_execution_ends_it(api: Api) -> None:
    run = (await api.start(start={"queue": "q", "drives": "execution"}))["execution_id"]
    loose = await enqueue(api, "p", execution_id=run)
    [item] = await api.claim("q")
    assert (await settle(api, item, "complete", result="done"))["execution_status"] == "completed"
    found = await api.ok("GET", f"/v1/executions/{run}")
    assert (found["status"], found["result"], found["open_items"]) == ("completed", "done", 0)
    assert (await shown(api, loose))["status"] == "cancelled"
    assert kinds(await api.events(run))[-3:] == ["work.completed", "work.cancelled", "execution.completed"]


async def test_a_paused_or_pending_execution_still_ends_with_the_item_that_drives_it(api: Api) -> None:
    for status in ("paused", "pending"):
        run = (await api.start(pending=status == "pending", start={"queue": status, "drives": "execution"}))[
            "execution_id"
        ]
        [item] = await api.claim(status)
        if status == "paused":
            await api.ok("POST", f"/v1/executions/{run}/status", json={"status": "paused"})
        assert (await settle(api, item, "complete"))["execution_status"] == "completed"


async def test_many_items_are_completed_at_once_and_each_is_told_apart(api: Api) -> None:
    for _ in range(2):
        await enqueue(api)
    one, two = await api.claim("q", max_items=2)
    asked = [{"id": one["id"], "epoch": 1, "result": 1}, {"id": two["id"], "epoch": 2}]
    results = (await api.ok("POST", "/v1/work-items:complete", json=asked))["results"]
    assert (results[0]["ok"]["outcome"], results[1]["error"]["code"]) == ("completed", "lease/stale")
    for path in ("/v1/work-items:complete", "/v1/leases:renew"):
        [nameless] = (await api.ok("POST", path, json=[{"epoch": 1}]))["results"]
        assert nameless["error"]["errors"][0]["pointer"] == "/id"


# ── fail, retry, release ───────────────────────────────────────────────────────────────────────────────────────────


async def test_a_failed_attempt_is_retried_after_its_backoff(api: Api, clock: Clock) -> None:
    retry = {
        "backoff": "exponential",
        "initial_delay_ms": 1_000,
        "coefficient": 3,
        "jitter": False,
        "max_delay_ms": 2_500,
    }
    run = (await api.start(start={"queue": "q", "max_attempts": 9, "retry": retry}))["execution_id"]
    for wait in (1_000, 2_500, 2_500):
        [item] = await api.claim("q")
        told = await fail(api, item, retryable=True)
        assert (told["outcome"], told["status"], told["ready_at"]) == ("retry_scheduled", "ready", clock.now + wait)
        clock.advance(wait - 1)
        assert await api.claim("q") == []
        clock.advance(1)
    event = (await api.events(run))[-1]
    error = {"type": "boom", "message": "it broke"}
    assert (event["kind"], event["body"]) == (
        "work.retry_scheduled",
        {"attempt": 3, "error": error, "ready_at": clock.now},
    )


async def test_jitter_puts_a_retry_somewhere_within_the_delay(api: Api, clock: Clock) -> None:
    await enqueue(api, max_attempts=1_000, retry={"backoff": "fixed", "initial_delay_ms": 1_000})
    waits = []
    for _ in range(12):
        [item] = await api.claim("q")
        waits.append((await fail(api, item))["ready_at"] - clock.now)
        clock.advance(1_000)
    assert all(0 <= wait < 1_000 for wait in waits)
    assert len(set(waits)) > 1


async def test_when_attempts_are_used_up_the_item_its_dead_letter_and_the_execution_are_one_commit(api: Api) -> None:
    run = (await api.start(start={"queue": "q", "drives": "execution", "max_attempts": 2, "retry": QUICK}))[
        "execution_id"
    ]
    loose = await enqueue(api, "p", execution_id=run)
    for outcome in ("retry_scheduled", "dead_lettered"):
        [item] = await api.claim("q")
        told = await fail(api, item)
        assert told["outcome"] == outcome
    assert (told["status"], told["execution_status"]) == ("dead", "failed")
    found = await api.ok("GET", f"/v1/executions/{run}")
    assert (found["status"], found["error"], found["open_items"]) == (
        "failed",
        {"type": "boom", "message": "it broke"},
        0,
    )
    assert (await shown(api, loose))["status"] == "cancelled"
    ends = ["work.failed", "work.dead_lettered", "work.cancelled", "execution.failed"]
    assert kinds(await api.events(run))[-4:] == ends
    letter = await api.ok("GET", f"/v1/dead-letters/{item['id']}")
    assert [(error["type"], error["attempt"], error["worker_id"]) for error in letter["errors"]] == [
        ("boom", 1, "w1"),
        ("boom", 2, "w1"),
    ]


@pytest.mark.parametrize("why", ["retryable", "type"])
async def test_an_error_that_cannot_be_retried_is_a_dead_letter_at_once(api: Api, why: str) -> None:
    await enqueue(api, max_attempts=5, retry={"non_retryable": ["bad_input"]})
    [item] = await api.claim("q")
    told = await fail(api, item, "bad_input" if why == "type" else "boom", retryable=why == "type")
    assert (told["outcome"], told["attempt"]) == ("dead_lettered", 1)


async def test_a_release_hands_the_item_back_without_counting_the_attempt(api: Api, clock: Clock) -> None:
    await enqueue(api, max_attempts=1)
    for epoch in (1, 2, 3):
        [item] = await api.claim("q")
        assert (item["attempt"], item["epoch"]) == (1, epoch)
        told = await settle(api, item, "release", delay_ms=500)
        assert (told["outcome"], told["attempt"], told["ready_at"]) == ("released", 0, clock.now + 500)
        assert await api.claim("q") == []
        clock.advance(500)
    [item] = await api.claim("q")
    assert (await fail(api, item))["outcome"] == "dead_lettered"


# ── reclaim ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def reclaim(api: Api, limit: int = 1_000) -> tuple[list[object], list[object]]:
    """Reclaim over HTTP as the system's scheduler; what was taken from this tenant."""
    scheduler = api.service.client(await api.service.token("", "scheduler"))
    answer = await scheduler.post("/v1/leases:reclaim", json={"limit": limit})
    assert answer.status_code == 200, answer.text
    parts = [
        [one for one in answer.json()[part] if one["tenant_id"] == api.tenant] for part in ("retryable", "exhausted")
    ]
    return parts[0], parts[1]


async def test_a_poison_item_is_delivered_as_often_as_it_may_and_then_is_a_dead_letter(api: Api, clock: Clock) -> None:
    run = (await api.start(start={"queue": "q", "drives": "execution", "max_attempts": 3, "retry": QUICK}))[
        "execution_id"
    ]
    item_id = ""
    for attempt in (1, 2, 3):
        [item] = await api.claim("q", lease_ms=1_000)
        item_id = item["id"]
        assert item["attempt"] == attempt
        clock.advance(1_000)
        taken = {"tenant_id": api.tenant, "id": item_id, "epoch": attempt, "attempt": attempt}
        assert await reclaim(api) == (([taken], []) if attempt < 3 else ([], [taken]))
    assert await api.claim("q") == []
    letter = await api.ok("GET", f"/v1/dead-letters/{item_id}")
    assert [error["type"] for error in letter["errors"]] == ["lease_expired"] * 3
    assert (await api.ok("GET", f"/v1/executions/{run}"))["status"] == "failed"
    counted = kinds(await api.events(run))
    assert (counted.count("work.lease_expired"), counted.count("work.dead_lettered")) == (3, 1)


async def test_a_reclaimed_item_waits_out_the_backoff_of_its_policy(api: Api, clock: Clock) -> None:
    await enqueue(api, retry={"backoff": "fixed", "initial_delay_ms": 5_000, "jitter": False})
    await api.claim("q", lease_ms=1_000)
    clock.advance(1_000)
    await reclaim(api)
    clock.advance(4_999)
    assert await api.claim("q") == []
    clock.advance(1)
    assert len(await api.claim("q")) == 1


async def test_reclaiming_never_robs_a_lease_that_was_renewed(api: Api, clock: Clock) -> None:
    await enqueue(api)
    await enqueue(api)
    one, two = await api.claim("q", max_items=2, lease_ms=1_000)
    clock.advance(2_000)
    await settle(api, one, "renew")
    retryable, exhausted = await reclaim(api)
    assert ([item["id"] for item in retryable], exhausted) == ([two["id"]], [])  # type: ignore[index]
    assert (await settle(api, one, "complete"))["outcome"] == "completed"


async def test_renewals_and_reclaims_at_once_agree_on_who_holds_the_item(api: Api, clock: Clock) -> None:
    for _ in range(12):
        await enqueue(api, retry=QUICK)
    items = await api.claim("q", max_items=12, lease_ms=1_000)
    clock.advance(1_000)
    renewals = [api.http.post(f"/v1/work-items/{item['id']}/renew", json={"epoch": 1}) for item in items]
    answers = await asyncio.gather(*renewals[:6], reclaim(api), *renewals[6:], reclaim(api))
    kept = [answer.json()["id"] for answer in answers if not isinstance(answer, tuple) and answer.status_code == 200]
    taken = [one["id"] for answer in answers if isinstance(answer, tuple) for one in answer[0]]
    assert sorted(kept + taken) == sorted(item["id"] for item in items)


@pytest.mark.parametrize("before", ["renew", "complete", "release"])
async def test_a_reclaim_looks_again_at_what_it_chose(api: Api, clock: Clock, before: str) -> None:
    """In one batch: the database points at a lease that ran out, and a holder is decided first."""
    await enqueue(api)
    [item] = await api.claim("q", lease_ms=1_000)
    clock.advance(1_000)
    command = {
        "renew": RenewLease(1, id=item["id"]),
        "complete": CompleteWork(1, id=item["id"]),
        "release": ReleaseWork(1, id=item["id"]),
    }[before]  # fmt: skip
    batch = [Request(internal(api.tenant), command), Request(internal(SYSTEM), ReclaimLeases(1_000))]
    _, reclaimed = await api.service.services.kernel.execute(batch)
    assert item["id"] not in [one.id for one in (*reclaimed.retryable, *reclaimed.exhausted)]
    assert (await shown(api, item["id"]))["errors"] == []


async def test_two_reclaims_at_once_take_a_lease_back_once(api: Api, clock: Clock) -> None:
    await enqueue(api, max_attempts=9, retry=QUICK)
    await api.claim("q", lease_ms=1_000)
    clock.advance(1_000)
    taken = await asyncio.gather(*(reclaim(api) for _ in range(4)))
    assert sum(len(retryable) for retryable, _ in taken) == 1


async def test_reclaims_of_one_batch_take_back_as_many_as_each_asked_for(api: Api, clock: Clock) -> None:
    for _ in range(5):
        await enqueue(api)
    await api.claim("q", max_items=5, lease_ms=1_000)
    clock.advance(2_000)
    asked = [Request(internal(api.tenant), ReclaimLeases(limit)) for limit in (1, 3)]
    taken = await api.service.services.kernel.execute(asked)
    assert [len(one.retryable) for one in taken] == [1, 3]


async def test_when_many_drivers_die_at_once_all_their_executions_end_in_one_reclaim(api: Api, clock: Clock) -> None:
    """Each execution has another open item, which must be found and cancelled with it; also one whose own lease ran out
    a moment later."""
    for _ in range(40):
        run = (await api.start(start={"queue": "q", "drives": "execution", "max_attempts": 1}))["execution_id"]
        await enqueue(api, "p", execution_id=run)
    assert len(await api.claim("q", max_items=40, lease_ms=1_000)) == 40
    assert len(await api.claim("p", max_items=20, lease_ms=1_001)) == 20
    clock.advance(1_001)
    retryable, exhausted = await reclaim(api)
    assert (len(retryable), len(exhausted)) == (0, 40)
    assert await api.claim("p", max_items=9) == []


async def test_only_the_system_reclaims(api: Api) -> None:
    answer = await api.http.post("/v1/leases:reclaim", json={})
    assert answer.json()["code"] == "auth/forbidden"


# ── queues, lists ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_queues_tell_what_is_ready_leased_put_off_and_dead(api: Api, clock: Clock) -> None:
    await bury(api, "b")
    await enqueue(api, "b")
    [done] = await api.claim("b")
    await settle(api, done, "complete")
    for _ in range(3):
        await enqueue(api, "a")
    await enqueue(api, "a", delay_ms=9_000)
    await api.claim("a")
    clock.advance(700)
    page = await api.ok("GET", "/v1/queues")
    still = {"enqueued": 0.0, "claimed": 0.0, "completed": 0.0, "failed": 0.0}
    rest = {"paused_at": None, "note": None, "workers": 0, "at_least": [], "per_second": still}
    assert page["items"] == [
        {"name": "a", "ready": 2, "leased": 1, "delayed": 1, "dead": 0, "oldest_ready_ms": 700, **rest},
        {"name": "b", "ready": 0, "leased": 0, "delayed": 0, "dead": 1, "oldest_ready_ms": None, **rest},
    ]
    first = await api.ok("GET", "/v1/queues?limit=1")
    second = await api.ok("GET", "/v1/queues", params={"limit": 1, "cursor": first["next_cursor"]})
    assert first["items"] + second["items"] == page["items"]
    assert second["next_cursor"] is None


async def test_queues_tell_who_serves_them(api: Api, clock: Clock) -> None:
    await enqueue(api, "a")
    for name, queues in (("one", ["a", "b"]), ("two", ["a"])):
        await api.ok("PUT", f"/v1/workers/{name}", json={"queues": queues})
    served = [(queue["name"], queue["workers"]) for queue in (await api.ok("GET", "/v1/queues"))["items"]]
    assert served == [("a", 2), ("b", 1)]
    clock.advance(30_000)
    assert {queue["workers"] for queue in (await api.ok("GET", "/v1/queues"))["items"]} == {0}, "nobody is heard of"


async def test_queues_are_counted_up_to_a_bound_and_say_so(
    api: Api, other: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is done is not counted, nor what others hold."""
    monkeypatch.setattr("service.work.routes_queues.COUNTED_MAX", 3)
    await api.ok("POST", "/v1/work-items:batch", json=[{"queue": "a"}] * 13 + [{"queue": "b"}] * 2)
    for item in await api.claim("a", max_items=4):
        await settle(api, item, "complete")
    await other.ok("POST", "/v1/work-items:batch", json=[{"queue": "a"}] * 4)
    await other.claim("a", max_items=4)
    assert (await api.ok("GET", "/v1/queues"))["items"][0]["at_least"] == ["ready"]
    await api.claim("a", max_items=4)
    a, b = (await api.ok("GET", "/v1/queues"))["items"]
    assert (a["ready"], a["leased"], a["at_least"]) == (3, 3, ["ready", "leased"])
    assert (b["ready"], b["at_least"]) == (2, ["leased"])


async def test_a_queue_of_a_namespace_is_paused_by_itself(api: Api) -> None:
    await api.ok("POST", "/v1/namespaces", json={"name": "blue"})
    await enqueue(api, "a")
    await api.start(namespace="blue", start={"queue": "a"})
    assert (await api.ok("POST", "/v1/queues/a/pause?namespace=blue"))["name"] == "blue|a"
    assert (len(await api.claim("a")), await api.claim("a", namespace="blue")) == (1, [])
    await api.ok("POST", "/v1/queues/a/resume?namespace=blue")
    assert len(await api.claim("a", namespace="blue")) == 1
    await api.refused("POST", "/v1/queues/a/pause?namespace=bleu", "namespace/unknown")


async def test_a_paused_queue_hands_out_nothing_until_it_is_resumed(api: Api, clock: Clock) -> None:
    await enqueue(api, "a")
    [held] = await api.claim("a")
    paused = await api.ok("POST", "/v1/queues/a/pause", json={"note": "upgrade"})
    assert (paused["paused_at"], paused["note"]) == (clock.now, "upgrade")
    waiting = await enqueue(api, "a")
    other = await enqueue(api, "b")
    assert [item["id"] for item in await api.claim("*", max_items=9)] == [other]
    assert (await settle(api, held, "complete"))["outcome"] == "completed"
    assert (await api.ok("GET", "/v1/queues"))["items"][0]["note"] == "upgrade"
    assert (await api.ok("POST", "/v1/queues/a/resume"))["paused_at"] is None
    assert [item["id"] for item in await api.claim("a")] == [waiting]


async def test_a_queue_may_be_paused_before_its_first_item(api: Api) -> None:
    await api.refused("POST", "/v1/queues/early/pause", "request/invalid", json={"paused": False})
    await api.refused("POST", "/v1/queues/early/resume", "request/invalid", json={"paused": True})
    await api.ok("POST", "/v1/queues/early/pause", json={"paused": True})
    assert [queue["name"] for queue in (await api.ok("GET", "/v1/queues"))["items"]] == ["early"]
    await enqueue(api, "early")
    assert await api.claim("early") == []


async def test_items_are_listed_by_queue_status_execution_and_filter(api: Api) -> None:
    run = (await api.start(start={"queue": "a", "id": "one", "priority": 3}))["execution_id"]
    await enqueue(api, "a", id="two", delay_ms=5)
    await enqueue(api, "b", id="three")
    await api.claim("b")

    async def listed(**query: str) -> list[str]:
        return [item["id"] for item in (await api.ok("GET", "/v1/work-items", params=query))["items"]]

    assert await listed() == ["one", "three", "two"]
    assert await listed(queue="a") == ["one", "two"]
    assert await listed(status="leased") == ["three"]
    assert await listed(execution_id=run) == ["one"]
    assert await listed(filter="priority > 2 OR queue = 'b'") == ["one", "three"]
    await api.refused("GET", "/v1/work-items", "request/filter", params={"filter": "colour = 'red'"})
    await api.refused("GET", "/v1/work-items?status=gone", "request/malformed")


async def test_every_role_does_what_the_table_says(api: Api) -> None:
    item = await enqueue(api)
    for role in ("viewer", "reviewer", "auditor", "operator"):
        client = await api.as_role(role)
        answer = await client.post("/v1/work-items:claim", json={"worker_id": "w", "queues": ["q"]})
        assert answer.json()["code"] == "auth/forbidden"
    worker = await api.as_role("worker")
    assert (await worker.post("/v1/work-items", json={"queue": "q"})).json()["code"] == "auth/forbidden"
    operator = await api.as_role("operator")
    gone = await operator.post(f"/v1/work-items/{item}/dead-letter", json={"error": {"type": "unwanted"}})
    assert (gone.status_code, gone.json()["status"]) == (200, "dead")
    assert (await worker.post(f"/v1/dead-letters/{item}/requeue", json={})).json()["code"] == "auth/forbidden"


# ── limits ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def limit(api: Api, **limits: int | None) -> None:
    """Give the tenant limits."""
    answer = await api.admin.patch(f"/v1/tenants/{api.tenant}", json={"limits": limits})
    assert answer.status_code == 200, answer.text


async def test_a_payload_past_the_limit_is_refused_wherever_it_comes_in(api: Api) -> None:
    await limit(api, payload_bytes=10)
    problem = await api.refused(
        "POST", "/v1/work-items", "limit/payload-bytes", json={"queue": "q", "payload": "x" * 9}
    )
    assert (problem["limit"], problem["current"]) == (10, 11)
    await enqueue(api, payload="x" * 8)
    [item] = await api.claim("q")
    path = f"/v1/work-items/{item['id']}"
    await api.refused("POST", f"{path}/renew", "limit/payload-bytes", json={"epoch": 1, "progress": "x" * 9})
    await api.refused("POST", f"{path}/complete", "limit/payload-bytes", json={"epoch": 1, "result": "x" * 9})
    error = {"type": "boom", "details": "x" * 9}
    await api.refused("POST", f"{path}/fail", "limit/payload-bytes", json={"epoch": 1, "error": error})
    await api.refused("POST", f"{path}/dead-letter", "limit/payload-bytes", json={"epoch": 1, "error": error})
    assert (await fail(api, item, retryable=False))["outcome"] == "dead_lettered"
    await api.refused(
        "POST", f"/v1/dead-letters/{item['id']}/requeue", "limit/payload-bytes", json={"payload": "x" * 9}
    )


async def test_ready_items_are_counted_inside_the_transaction_that_adds_one(api: Api) -> None:
    await limit(api, ready_work_items=5)
    answers = await asyncio.gather(
        *(api.http.post("/v1/work-items", json={"queue": "q", "delay_ms": n % 2}) for n in range(20))
    )
    assert sorted(answer.status_code for answer in answers) == [201] * 5 + [409] * 15
    problem = await api.refused("POST", "/v1/work-items", "limit/ready-work-items", json={"queue": "q"})
    assert (problem["limit"], problem["current"]) == (5, 5)
    [item] = await api.claim("q")
    await enqueue(api)
    assert (await settle(api, item, "release"))["outcome"] == "released"  # what was accepted comes back in any case
    await api.refused("POST", "/v1/work-items", "limit/ready-work-items", json={"queue": "q"})
    assert (await api.ok("GET", f"/v1/tenants/{api.tenant}/usage"))["ready_work_items"] == 6


UNWANTED = WorkError("unwanted")
LEAVING: dict[str, tuple[bool, int, Callable[[str], object]]] = {
    "released": (True, 0, lambda item: ReleaseWork(1, id=item)),
    "given up": (True, 1, lambda item: DeadLetterWork(UNWANTED, 1, item)),
    "buried": (False, 1, lambda item: DeadLetterWork(UNWANTED, id=item)),
    "claimed": (False, 1, lambda _: ClaimWork("w", ["p"])),
}
"""What becomes of an item, held or ready before, and how many others are let in after it at a limit of one."""


@pytest.mark.parametrize("way", LEAVING)
async def test_what_comes_back_or_goes_is_counted_in_the_same_transaction(api: Api, way: str) -> None:
    held, room, made = LEAVING[way]
    item = await enqueue(api, "p")
    if held:
        await api.claim("p")
    await limit(api, ready_work_items=1)
    commands = [made(item), EnqueueWork("q"), EnqueueWork("q")]
    who = Principal(api.tenant, "owner")
    outcomes = await api.service.services.kernel.execute([Request(who, one) for one in commands])
    codes = [getattr(outcome, "code", "done") for outcome in outcomes]
    assert codes == ["done", *["done"] * room, *["limit/ready-work-items"] * (2 - room)]


async def test_what_was_enqueued_can_be_settled_and_cancelled_at_the_limit_of_events(api: Api) -> None:
    run = (await api.start(start={"queue": "q", "drives": "execution", "retry": QUICK}))["execution_id"]
    await enqueue(api, "p", execution_id=run)
    await limit(api, events_per_execution=2)
    body = {"queue": "q", "execution_id": run}
    await api.refused("POST", "/v1/work-items", "limit/events-per-execution", json=body)
    [item] = await api.claim("q")
    assert (await fail(api, item))["outcome"] == "retry_scheduled"
    await api.ok("POST", f"/v1/executions/{run}/status", json={"status": "cancelled"})


@pytest.mark.parametrize("most", [{"events_per_execution": 1}, {"payload_bytes": 0}])
@pytest.mark.parametrize("how", ["complete", "fail", "expire"])
@pytest.mark.parametrize("status", ["pending", "running", "paused"])
async def test_an_item_ends_its_execution_whatever_the_limits_are(
    api: Api, clock: Clock, status: str, how: str, most: dict[str, int]
) -> None:
    """One that was paused, or had not begun, runs for a moment; and nothing holds up what is taken back with it."""
    first = {"queue": "q", "drives": "execution", "max_attempts": 1}
    run = (await api.start(pending=status == "pending", start=first))["execution_id"]
    [item] = await api.claim("q")
    if status == "paused":
        await api.ok("POST", f"/v1/executions/{run}/status", json={"status": "paused"})
    await limit(api, **most)
    if how == "expire":
        clock.advance(60_000)
        taken = await api.service.services.kernel.run(internal(api.tenant), ReclaimLeases(limit=10))
        assert [one.id for one in taken.exhausted] == [item["id"]]
    else:
        error = {} if how == "complete" else {"error": {"type": "t", "message": "m"}}
        await api.ok("POST", f"/v1/work-items/{item['id']}/{how}", json={"epoch": 1} | error)
    ended = (await api.ok("GET", f"/v1/executions/{run}"))["status"]
    assert ended == ("completed" if how == "complete" else "failed")


async def test_a_claim_hands_out_large_payloads_a_few_at_a_time(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules_leases, "CLAIM_BYTES", 150)
    for _ in range(5):
        await enqueue(api, payload="x" * 100)
    assert [len(await api.claim("q", max_items=10)) for _ in range(4)] == [2, 2, 1, 0]


@pytest.mark.parametrize("name", ["workflow:order", "activity:charge"])
async def test_what_tasks_require_is_not_for_callers_to_require(api: Api, name: str) -> None:
    said = {"queue": "q", "required_capabilities": ["gpu", name]}
    problem = await api.refused("POST", "/v1/work-items", "request/invalid", json=said)
    assert [error["pointer"] for error in problem["errors"]] == ["/required_capabilities"]
    first = {"workflow_id": "wf", "start": said}
    problem = await api.refused("POST", "/v1/executions", "request/invalid", json=first)
    assert [error["pointer"] for error in problem["errors"]] == ["/start/required_capabilities"]
    made = await api.start()
    changes = {"changes": [{"type": "enqueue"}, {"type": "enqueue"} | said]}
    path = f"/v1/executions/{made['execution_id']}/transitions"
    problem = await api.refused("POST", path, "request/invalid", json=changes)
    assert [error["pointer"] for error in problem["errors"]] == ["/changes/1/required_capabilities"]
    assert await api.claim("q", capabilities=["gpu", name]) == []


async def test_an_item_that_drives_an_execution_names_it(api: Api) -> None:
    problem = await api.refused("POST", "/v1/work-items", "request/invalid", json={"drives": "execution"})
    assert [error["pointer"] for error in problem["errors"]] == ["/execution_id"]


@pytest.mark.parametrize("queue", ["side|q", "side|*", "*|*"])
async def test_a_claim_names_queues_of_its_own_namespace_alone(api: Api, queue: str) -> None:
    asked = {"worker_id": "w", "queues": [queue]}
    problem = await api.refused("POST", "/v1/work-items:claim", "request/invalid", json=asked)
    assert [error["pointer"] for error in problem["errors"]] == ["/queues/0"]
