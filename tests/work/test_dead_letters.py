"""What becomes of work that nobody could do: listed, looked into, given another life, put away, redriven by a job."""

import asyncio
from typing import Any

import pytest

from service.kernel.jobs import due
from service.kernel.principal import internal
from service.work import redrive, sweeps
from service.work.model import REDRIVE_JOB, RedrivePage
from tests.conftest import Api, Clock
from tests.work.steps import QUICK, bury, enqueue, fail, ids, kinds, settle, shown


async def test_a_dead_letter_shows_everything_that_happened(api: Api, clock: Clock) -> None:
    await enqueue(api, max_attempts=2, payload={"a": 1}, retry=QUICK)
    for kind in ("first", "second"):
        clock.advance(10)
        [item] = await api.claim("q", worker_id=kind)
        await fail(api, item, kind)
    letter = await api.ok("GET", f"/v1/dead-letters/{item['id']}")
    assert (letter["status"], letter["attempt"], letter["payload"], letter["settled_at"]) == (
        "dead",
        2,
        {"a": 1},
        clock.now,
    )
    assert letter["errors"] == [
        {"type": "first", "message": "it broke", "attempt": 1, "at": clock.now - 10, "worker_id": "first"},
        {"type": "second", "message": "it broke", "attempt": 2, "at": clock.now, "worker_id": "second"},
    ]


async def test_dead_letters_are_listed_by_age_queue_error_type_and_time(api: Api, clock: Clock) -> None:
    letters = []
    for queue, kind in (("a", "timeout"), ("b", "timeout"), ("a", "crash")):
        clock.advance(1_000)
        letters.append(await bury(api, queue, kind))
    await enqueue(api, "a")
    assert await ids(api, "/v1/dead-letters") == letters
    assert await ids(api, "/v1/dead-letters", queue="a") == [letters[0], letters[2]]
    assert await ids(api, "/v1/dead-letters", error_type="timeout") == letters[:2]
    assert await ids(api, "/v1/dead-letters", filter="error_type IN ('crash') AND attempt = 1") == letters[2:]
    assert await ids(api, "/v1/dead-letters", filter=f"settled_at >= {clock.now - 1_000}") == letters[1:]
    first = await api.ok("GET", "/v1/dead-letters?limit=2")
    second = await api.ok("GET", "/v1/dead-letters", params={"limit": 2, "cursor": first["next_cursor"]})
    assert [item["id"] for item in first["items"] + second["items"]] == letters


async def test_a_holder_may_give_an_item_up_for_good(api: Api) -> None:
    run = (await api.start(start={"queue": "q", "drives": "execution", "max_attempts": 9}))["execution_id"]
    [item] = await api.claim("q")
    body = {"error": {"type": "hopeless"}}
    told = await settle(api, item, "dead-letter", **body)
    assert (told["outcome"], told["execution_status"]) == ("dead_lettered", "failed")
    assert await settle(api, item, "dead-letter", **body) == told
    stale = body | {"epoch": item["epoch"] + 1}
    await api.refused("POST", f"/v1/work-items/{item['id']}/dead-letter", "lease/stale", json=stale)
    assert (await api.ok("GET", f"/v1/executions/{run}"))["error"] == {"type": "hopeless"}
    other = await enqueue(api)
    [held] = await api.claim("q")
    path = f"/v1/work-items/{other}/dead-letter"
    await api.refused("POST", path, "lease/stale", json=body | {"epoch": held["epoch"] + 1})
    assert (await shown(api, other))["status"] == "leased"


async def test_an_operator_may_bury_an_item_that_waits(api: Api) -> None:
    item = await enqueue(api, delay_ms=9_000)
    told = await api.ok("POST", f"/v1/work-items/{item}/dead-letter", json={"error": {"type": "unwanted"}})
    assert (told["outcome"], told["attempt"]) == ("dead_lettered", 0)
    problem = await api.refused(
        "POST", f"/v1/work-items/{item}/dead-letter", "work/terminal", json={"error": {"type": "again"}}
    )
    assert problem["current_status"] == "dead"


async def test_a_requeued_item_starts_over_with_its_errors_kept_and_its_payload_mended(api: Api, clock: Clock) -> None:
    run = (await api.start(start={"queue": "q", "max_attempts": 1, "payload": "bad"}))["execution_id"]
    [item] = await api.claim("q")
    await fail(api, item)
    told = await api.ok("POST", f"/v1/dead-letters/{item['id']}/requeue", json={"payload": "good", "delay_ms": 5})
    assert (told["outcome"], told["status"], told["attempt"], told["ready_at"]) == (
        "requeued",
        "ready",
        0,
        clock.now + 5,
    )
    assert (await api.ok("GET", f"/v1/executions/{run}"))["open_items"] == 1
    clock.advance(5)
    [again] = await api.claim("q")
    assert (again["id"], again["payload"], again["attempt"], again["epoch"]) == (item["id"], "good", 1, 2)
    assert [error["type"] for error in (await shown(api, item["id"]))["errors"]] == ["boom"]
    assert (await settle(api, again, "complete"))["outcome"] == "completed"
    assert kinds(await api.events(run))[-2:] == ["work.requeued", "work.completed"]


async def test_requeueing_keeps_the_payload_unless_another_is_given(api: Api) -> None:
    item = await bury(api, payload={"keep": True})
    await api.ok("POST", f"/v1/dead-letters/{item}/requeue", json={})
    [again] = await api.claim("q")
    assert again["payload"] == {"keep": True}


async def test_a_dead_letter_is_dealt_with_once(api: Api) -> None:
    item = await bury(api)
    path = f"/v1/dead-letters/{item}"
    answers = await asyncio.gather(*(api.http.post(f"{path}/requeue", json={}) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 4
    assert (await api.refused("DELETE", path, "dead-letter/settled"))["current_status"] == "ready"
    await api.claim("q")
    assert (await api.refused("POST", f"{path}/requeue", "dead-letter/settled", json={}))["current_status"] == "leased"
    other = await bury(api, "p")
    assert (await api.ok("DELETE", f"/v1/dead-letters/{other}"))["status"] == "discarded"
    await api.refused("POST", f"/v1/dead-letters/{other}/requeue", "dead-letter/settled", json={})
    await api.refused("GET", f"/v1/dead-letters/{other}", "not-found")
    assert await ids(api, "/v1/dead-letters") == []


async def test_an_item_that_never_failed_is_no_dead_letter(api: Api) -> None:
    item = await enqueue(api)
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/requeue")):
        body = {"json": {}} if method == "POST" else {}
        await api.refused(method, f"/v1/dead-letters/{item}{path}", "not-found", **body)


async def test_a_dead_letter_of_an_ended_execution_is_not_requeued(api: Api) -> None:
    await api.start(start={"queue": "q", "drives": "execution", "max_attempts": 1})
    [item] = await api.claim("q")
    await fail(api, item)
    problem = await api.refused("POST", f"/v1/dead-letters/{item['id']}/requeue", "execution/terminal", json={})
    assert problem["outcome"] == "failed"


async def test_a_dead_letter_whose_dedup_key_is_taken_is_not_requeued(api: Api) -> None:
    item = await bury(api, dedup_key="k")
    await enqueue(api, dedup_key="k")
    problem = await api.refused("POST", f"/v1/dead-letters/{item}/requeue", "work/conflict", json={})
    assert problem["current_status"] == "ready"


async def test_what_operators_do_to_dead_letters_is_audited(api: Api) -> None:
    one, two, three = await bury(api), await bury(api), await enqueue(api)
    await api.ok("POST", f"/v1/dead-letters/{one}/requeue", json={"payload": 1})
    await api.ok("DELETE", f"/v1/dead-letters/{two}")
    await api.ok("POST", f"/v1/work-items/{three}/dead-letter", json={"error": {"type": "unwanted"}})
    job = (await api.ok("POST", "/v1/dead-letters:redrive", json={}))["job_id"]
    await api.ok("POST", "/v1/queues/q/pause", json={"note": "n"})
    lines = (await api.ok("GET", "/v1/audit?limit=100"))["items"][-5:]
    assert [(line["action"], line["target"]) for line in lines] == [
        ("work.requeued", one),
        ("work.discarded", two),
        ("work.dead_lettered", three),
        ("work.redriven", job),
        ("queue.paused", "q"),
    ]


# ── redrive ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def begin(api: Api, **body: Any) -> str:
    """Begin a redrive; the id of its job."""
    answer = await api.http.post("/v1/dead-letters:redrive", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["job_id"])


async def job(api: Api, job_id: str) -> Any:
    """How far a job is."""
    return await api.ok("GET", f"/v1/jobs/{job_id}")


async def test_a_dry_run_counts_and_changes_nothing(api: Api) -> None:
    letters = [await bury(api, "a", "timeout"), await bury(api, "b", "timeout"), await bury(api, "a", "crash")]
    await enqueue(api, "a")
    for body, count in (
        ({}, 3),
        ({"queue": "a"}, 2),
        ({"error_type": "timeout"}, 2),
        ({"filter": "queue = 'b' OR error_type = 'crash'"}, 2),
        ({"filter": "queue = 'b' OR error_type = 'crash'", "queue": "a"}, 1),
    ):
        told = await api.ok("POST", "/v1/dead-letters:redrive", json=body | {"dry_run": True})
        assert told == {"count": count, "job_id": None, "created": False}
    assert sorted(await ids(api, "/v1/dead-letters")) == sorted(letters)


async def test_a_redrive_requeues_what_matches_and_shows_its_progress(api: Api) -> None:
    wanted = [await bury(api, "a", "timeout") for _ in range(3)]
    left = [await bury(api, "a", "crash"), await bury(api, "b", "timeout")]
    started = await begin(api, queue="a", error_type="timeout")
    before = await job(api, started)
    assert (before["kind"], before["status"], before["total"], before["done"]) == ("work.redrive", "running", 3, 0)
    await sweeps.redrive(api.service.services)
    after = await job(api, started)
    assert (after["status"], after["done"], after["detail"]["requeued"], after["detail"]["skipped"]) == (
        "completed",
        3,
        3,
        0,
    )
    assert sorted(item["id"] for item in await api.claim("*", max_items=9)) == sorted(wanted)
    assert sorted(await ids(api, "/v1/dead-letters")) == sorted(left)


async def test_a_bad_filter_is_refused_before_there_is_a_job(api: Api) -> None:
    await api.refused("POST", "/v1/dead-letters:redrive", "request/filter", json={"filter": "colour = 'red'"})
    await api.refused("POST", "/v1/dead-letters:redrive", "request/invalid", json={"rate_per_second": 0})


async def test_what_nothing_can_come_of_is_skipped_and_counted(api: Api, clock: Clock) -> None:
    await api.start(start={"queue": "q", "drives": "execution", "max_attempts": 1})
    [item] = await api.claim("q")
    await fail(api, item)
    await bury(api, dedup_key="k")
    await enqueue(api, "elsewhere", dedup_key="k")
    twins = [await bury(api, dedup_key="twin") for _ in range(2)]
    running = (await api.start(start={"queue": "q", "max_attempts": 1}))["execution_id"]
    [alive] = await api.claim("q")
    await fail(api, alive)
    clock.advance(1)
    started = await begin(api)
    await sweeps.redrive(api.service.services)
    told = await job(api, started)
    assert (told["status"], told["done"], told["detail"]["requeued"], told["detail"]["skipped"]) == (
        "completed",
        5,
        2,
        3,
    )
    got = {item["id"] for item in await api.claim("q", max_items=9)}
    assert alive["id"] in got
    assert len(got & set(twins)) == 1
    assert (await api.ok("GET", f"/v1/executions/{running}"))["open_items"] == 1


async def test_an_item_that_dies_again_is_not_redriven_for_ever(api: Api, clock: Clock) -> None:
    await bury(api)
    clock.advance(1)
    started = await begin(api)
    await sweeps.redrive(api.service.services)
    clock.advance(1)
    [item] = await api.claim("q")
    assert (await fail(api, item))["outcome"] == "dead_lettered"
    await sweeps.redrive(api.service.services)
    assert (await job(api, started))["detail"]["requeued"] == 1
    assert await ids(api, "/v1/dead-letters") == [item["id"]]


async def test_a_redrive_keeps_to_its_rate(api: Api, clock: Clock) -> None:
    for _ in range(5):
        await bury(api)
    started = await begin(api, rate_per_second=2)
    done = []
    for _ in range(4):
        await sweeps.redrive(api.service.services)
        await sweeps.redrive(api.service.services)
        done.append((await job(api, started))["done"])
        clock.advance(1_000)
    assert done == [2, 4, 5, 5]
    assert (await job(api, started))["status"] == "completed"


async def test_a_redrive_goes_on_where_the_process_that_died_left_it(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    letters = sorted([await bury(api) for _ in range(5)])
    monkeypatch.setattr(redrive, "PAGE", 2)
    started = await begin(api)
    services = api.service.services
    [mine] = [one for one in await due(services.backend, REDRIVE_JOB) if one.id == started]
    await redrive.page(services.backend, services.kernel, mine)
    assert (await job(api, started))["done"] == 2
    await redrive.page(services.backend, services.kernel, mine)  # a process that is behind does the same page: nothing
    assert (await job(api, started))["done"] == 2
    await sweeps.redrive(services)
    told = await job(api, started)
    assert (told["status"], told["done"], told["detail"]["requeued"]) == ("completed", 5, 5)
    assert sorted(item["id"] for item in await api.claim("q", max_items=9)) == letters


async def test_a_page_moves_past_what_does_not_match(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redrive, "LOOKED_AT", 2)
    for _ in range(4):
        await bury(api, "a")
    wanted = [await bury(api, "b") for _ in range(3)]
    started = await begin(api, filter="queue = 'b'")
    services = api.service.services
    places = []
    for _ in range(4):
        [mine] = [one for one in await due(services.backend, REDRIVE_JOB) if one.id == started]
        await redrive.page(services.backend, services.kernel, mine)
        told = await job(api, started)
        places.append((told["status"], told["done"], told["detail"]["after"]))
    letters = await ids(api, "/v1/dead-letters")
    running = [(status, done) for status, done, _ in places]
    assert running == [("running", 0), ("running", 0), ("running", 2), ("completed", 3)]
    assert [after for _, _, after in places[:2]] == [letters[1], letters[3]]
    assert sorted(item["id"] for item in await api.claim("*", max_items=9)) == sorted(wanted)


async def test_a_page_that_is_cut_at_its_size_goes_on_behind_it(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redrive, "PAGE", 2)
    for queue in "babbab":
        await bury(api, queue)
    started = await begin(api, filter="queue = 'b'")
    await sweeps.redrive(api.service.services)
    told = await job(api, started)
    assert (told["status"], told["done"], told["detail"]["requeued"]) == ("completed", 4, 4)
    assert [len(await ids(api, "/v1/dead-letters", queue=queue)) for queue in "ab"] == [2, 0]


async def test_two_processes_at_once_do_each_page_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(7):
        await bury(api)
    monkeypatch.setattr(redrive, "PAGE", 2)
    started = await begin(api)
    await asyncio.gather(*(sweeps.redrive(api.service.services) for _ in range(3)))
    told = await job(api, started)
    assert (told["status"], told["done"], told["detail"]["requeued"]) == ("completed", 7, 7)
    items = (await api.ok("GET", "/v1/work-items?limit=100"))["items"]
    assert [(item["status"], item["lease"]) for item in items] == [("ready", None)] * 7


async def test_a_redrive_that_is_stopped_requeues_nothing_more(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(5):
        await bury(api)
    monkeypatch.setattr(redrive, "PAGE", 2)
    started = await begin(api)
    services = api.service.services
    [mine] = [one for one in await due(services.backend, REDRIVE_JOB) if one.id == started]
    await redrive.page(services.backend, services.kernel, mine)
    stopped = await api.ok("POST", f"/v1/jobs/{started}/cancel")
    assert (stopped["status"], stopped["done"]) == ("cancelled", 2)
    assert (await api.ok("POST", f"/v1/jobs/{started}/cancel"))["status"] == "cancelled"
    await sweeps.redrive(services)
    await services.kernel.run(internal(api.tenant), RedrivePage(started, (0, ""), (), (0, ""), True))
    assert (await job(api, started))["done"] == 2
    assert len(await ids(api, "/v1/dead-letters")) == 3


async def test_a_job_that_has_ended_or_is_another_tenant_s_is_not_stopped(api: Api, other: Api) -> None:
    started = await begin(api)
    await sweeps.redrive(api.service.services)
    problem = await api.refused("POST", f"/v1/jobs/{started}/cancel", "job/ended")
    assert problem["current_status"] == "completed"
    await other.refused("GET", f"/v1/jobs/{started}", "not-found")
    await other.refused("POST", f"/v1/jobs/{started}/cancel", "not-found")


async def test_a_redrive_waits_at_the_limit_of_ready_items(api: Api, clock: Clock) -> None:
    for _ in range(3):
        await bury(api)
    await api.admin.patch(f"/v1/tenants/{api.tenant}", json={"limits": {"ready_work_items": 2}})
    started = await begin(api)
    await sweeps.redrive(api.service.services)
    told = await job(api, started)
    assert (told["status"], told["total"], told["done"]) == ("running", 3, 2)
    assert len(await api.claim("q")) == 1
    clock.advance(60_000)
    await sweeps.redrive(api.service.services)
    assert (await job(api, started))["done"] == 3


async def test_a_redrive_of_a_suspended_tenant_waits(api: Api, clock: Clock) -> None:
    await bury(api)
    started = await begin(api)
    await api.admin.patch(f"/v1/tenants/{api.tenant}", json={"status": "suspended"})
    await sweeps.redrive(api.service.services)
    told = await job(api, started)
    assert (told["status"], told["done"]) == ("running", 0)
    await api.admin.patch(f"/v1/tenants/{api.tenant}", json={"status": "active"})
    clock.advance(60_000)
    await sweeps.redrive(api.service.services)
    assert (await job(api, started))["status"] == "completed"
