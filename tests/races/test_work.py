"""Who gets the work when many reach for it at once."""

import asyncio
from collections import Counter
from typing import Any

import httpx

from tests.conftest import new_store
from tests.races.conftest import PATIENCE, Pair, Ways, held_up, in_one_process


async def enqueue(pair: Pair, count: int, **body: Any) -> list[str]:
    """Enqueue items; their ids."""
    made = await pair.ok(
        "POST", "/v1/work-items:batch", json=[{"queue": "q", "id": f"i{n:04}"} | body for n in range(count)]
    )
    return [one["ok"]["id"] for one in made["results"]]


async def claim(client: httpx.AsyncClient, worker: str, most: int, lease_ms: int = 60_000) -> list[Any]:
    """Claim at one door."""
    body = {"worker_id": worker, "queues": ["q"], "max_items": most, "lease_ms": lease_ms}
    answer = await client.post("/v1/work-items:claim", json=body)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


async def test_each_of_a_thousand_items_is_delivered_once(pair: Pair) -> None:
    ids = await enqueue(pair, 1000)
    got: list[Any] = []

    async def worker(number: int) -> None:
        """Claims until three times in a row there was nothing: rows that another holds are passed over."""
        dry = 0
        while dry < 3:
            found = await claim(pair.clients[number % len(pair.clients)], f"w{number}", 1 + number * 3)
            dry = 0 if found else dry + 1
            got.extend(found)

    await asyncio.gather(*(worker(number) for number in range(8)))
    assert sorted(item["id"] for item in got) == sorted(ids)
    assert {item["epoch"] for item in got} == {1}
    assert {item["attempt"] for item in got} == {1}


async def test_of_many_settles_of_one_lease_one_has_an_effect(pair: Pair) -> None:
    run = (await pair.ok("POST", "/v1/executions", json={"workflow_id": "wf", "start": {"queue": "q"}}))["execution_id"]
    [item] = await claim(pair.first, "w", 1)
    bodies = [{"epoch": 1, "result": n} for n in range(12)]
    answers = await pair.all("POST", f"/v1/work-items/{item['id']}/complete", bodies)
    assert Counter(answer.status_code for answer in answers) == {200: 1, 409: 11}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"lease/settled"}
    won = next(n for n, answer in enumerate(answers) if answer.status_code == 200)
    shown = await pair.ok("GET", f"/v1/work-items/{item['id']}")
    assert (shown["status"], shown["result"]) == ("completed", won)
    assert [event["kind"] for event in await pair.events(run)] == ["execution.started", "work.completed"]


async def test_the_same_settle_many_times_is_one_effect_and_one_answer(pair: Pair) -> None:
    run = (await pair.ok("POST", "/v1/executions", json={"workflow_id": "wf", "start": {"queue": "q"}}))["execution_id"]
    [item] = await claim(pair.first, "w", 1)
    answers = await pair.all("POST", f"/v1/work-items/{item['id']}/complete", [{"epoch": 1, "result": 1}] * 12)
    assert {(answer.status_code, answer.text) for answer in answers} == {(200, answers[0].text)}
    assert [event["kind"] for event in await pair.events(run)] == ["execution.started", "work.completed"]


async def test_complete_and_fail_and_release_at_once_leave_one_outcome(pair: Pair) -> None:
    await enqueue(pair, 30, retry={"initial_delay_ms": 60_000, "jitter": False})
    items = await claim(pair.first, "w", 30)
    ways: dict[str, dict[str, Any]] = {
        "complete": {},
        "fail": {"error": {"type": "x"}},
        "release": {"delay_ms": 60_000},
    }

    async def settle(item: Any) -> None:
        sent = []
        for n, (verb, body) in enumerate(ways.items()):
            client = pair.clients[n % len(pair.clients)]
            sent.append(client.post(f"/v1/work-items/{item['id']}/{verb}", json=body | {"epoch": 1}))
        answers = await asyncio.gather(*sent)
        assert sorted(answer.status_code for answer in answers) == [200, 409, 409], [answer.text for answer in answers]

    await asyncio.gather(*(settle(item) for item in items))


async def test_a_renewal_and_a_reclaim_do_not_both_win(ways: Ways, pair: Pair) -> None:
    await enqueue(pair, 40, retry={"initial_delay_ms": 600_000, "jitter": False})
    items = await claim(pair.first, "w", 40, lease_ms=1_000)
    await ways.wait(1_100)
    renewals = [
        pair.clients[n % len(pair.clients)].post(
            f"/v1/work-items/{item['id']}/renew", json={"epoch": 1, "lease_ms": 600_000}
        )
        for n, item in enumerate(items)
    ]
    reclaims = [ways.admin.post("/v1/leases:reclaim", json={"limit": 7}) for _ in range(6)]
    answers = await asyncio.gather(*renewals, *reclaims)
    kept = {item["id"] for item, answer in zip(items, answers, strict=False) if answer.status_code == 200}
    lost = {
        one["id"] for answer in answers[40:] for one in answer.json()["retryable"] if one["tenant_id"] == pair.tenant
    }
    assert not kept & lost
    for item in items:
        shown = await pair.ok("GET", f"/v1/work-items/{item['id']}")
        assert (shown["lease"] is not None) == (item["id"] in kept)
        assert (item["id"] in kept) != (item["id"] in lost)


async def test_schedulers_at_once_take_each_lease_back_once(ways: Ways, pair: Pair) -> None:
    ids = await enqueue(pair, 200, retry={"initial_delay_ms": 600_000, "jitter": False})
    assert len(await claim(pair.first, "dead", 200, lease_ms=1_000)) == 200
    await ways.wait(1_100)
    admins = [ways.client(n % len(pair.clients), ways.admin.headers["authorization"][7:]) for n in range(4)]
    taken: list[str] = []

    async def scheduler(admin: httpx.AsyncClient) -> None:
        while True:
            answer = await admin.post("/v1/leases:reclaim", json={"limit": 23})
            assert answer.status_code == 200, answer.text
            found = answer.json()["retryable"] + answer.json()["exhausted"]
            taken.extend(one["id"] for one in found if one["tenant_id"] == pair.tenant)
            if not found:
                return

    async with asyncio.timeout(PATIENCE):
        while len(taken) < len(ids):
            await asyncio.gather(*(scheduler(admin) for admin in admins))
    assert sorted(taken) == ids
    errors = (await pair.ok("GET", "/v1/work-items?limit=1000"))["items"]
    assert {(one["attempt"], one["status"], len(one["errors"])) for one in errors} == {(1, "ready", 1)}


async def test_a_dedup_key_admits_one_open_item(pair: Pair) -> None:
    answers = await pair.all(
        "POST", "/v1/work-items", [{"queue": "q", "dedup_key": "k", "payload": n} for n in range(16)]
    )
    assert Counter(answer.status_code for answer in answers) == {201: 1, 200: 15}, answers[0].text
    assert len({answer.json()["id"] for answer in answers}) == 1


async def test_an_ending_and_claims_at_once_leave_nothing_open(pair: Pair) -> None:
    run = (await pair.ok("POST", "/v1/executions", json={"workflow_id": "wf"}))["execution_id"]
    bodies = [{"queue": "q", "execution_id": run, "id": f"i{n}"} for n in range(100)]
    await pair.ok("POST", "/v1/work-items:batch", json=bodies)
    claims = [claim(pair.clients[n % len(pair.clients)], f"w{n}", 5) for n in range(12)]
    ending = pair.last.post(f"/v1/executions/{run}/status", json={"status": "cancelled"})
    answer, got = await asyncio.gather(ending, asyncio.gather(*claims))
    assert answer.status_code == 200, answer.text
    shown = await pair.ok("GET", f"/v1/executions/{run}")
    assert (shown["status"], shown["open_items"]) == ("cancelled", 0)
    items = (await pair.ok("GET", f"/v1/work-items?execution_id={run}&limit=1000"))["items"]
    assert {one["status"] for one in items} == {"cancelled"}
    for item in [item for found in got for item in found][:5]:
        late = await pair.last.post(f"/v1/work-items/{item['id']}/complete", json={"epoch": item["epoch"]})
        assert late.status_code == 409


async def test_a_claim_that_waits_at_one_door_is_woken_by_work_at_the_other(pair: Pair) -> None:
    await pair.ok("POST", "/v1/work-items", json={"queue": "q", "id": "first"})  # the shelf is there
    assert len(await claim(pair.first, "w", 1)) == 1
    body = {"worker_id": "w", "queues": ["q"], "wait_ms": 30_000}
    waiting = asyncio.ensure_future(pair.first.post("/v1/work-items:claim", json=body))
    await asyncio.sleep(0.05)  # that it waits is likely, not needed: the answer must be the same if it does not yet
    await pair.last.post("/v1/work-items", json={"queue": "q", "id": "second"})
    async with asyncio.timeout(PATIENCE):
        answer = await waiting
    assert [item["id"] for item in answer.json()["items"]] == ["second"]


async def test_waiting_claims_get_each_item_once(pair: Pair) -> None:
    body = {"worker_id": "w", "queues": ["q"], "wait_ms": 20_000}
    waiting = [
        asyncio.ensure_future(pair.clients[n % len(pair.clients)].post("/v1/work-items:claim", json=body))
        for n in range(8)
    ]
    await asyncio.sleep(0.05)
    for n in range(8):
        await pair.ok("POST", "/v1/work-items", json={"queue": "q", "id": f"i{n}"})
    async with asyncio.timeout(PATIENCE):
        answers = await asyncio.gather(*waiting)
    got = [item["id"] for answer in answers for item in answer.json()["items"]]
    assert sorted(got) == [f"i{n}" for n in range(8)]


async def test_a_renewal_that_waited_takes_nothing_back_of_a_later_one(postgres_server: str) -> None:
    """A batch goes by the time at which it began; it waits for a lease, and comes to one that was renewed meanwhile."""
    url = await new_store(postgres_server)
    async with in_one_process(url, 2) as ways:
        pair = await ways.tenant()
        await enqueue(pair, 2)
        both = [{"id": item["id"], "epoch": 1, "lease_ms": 10_000} for item in await claim(pair.first, "w", 2)]
        asked = pair.first.post("/v1/leases:renew", json=both)
        async with held_up(url, "work_items WHERE id = 'i0000'", asked) as waits:
            await ways.wait(2_000)
            told = await pair.last.post("/v1/leases:renew", json=both[1:])
        [late, again], [last] = [answer.json()["results"] for answer in (await waits, told)]
        assert again["ok"]["expires_at"] == last["ok"]["expires_at"] == late["ok"]["expires_at"] + 2_000
        assert (await pair.ok("GET", "/v1/work-items/i0001"))["lease"]["expires_at"] == last["ok"]["expires_at"]
