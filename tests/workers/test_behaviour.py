"""Workers: registered, heard of, lost, registered again, forgotten; and what they hold meanwhile."""

import asyncio
from typing import Any

import httpx
import pytest

from service.workers.model import LOST_MS
from service.workers.sweeps import reap
from tests.activities.hands import activity, claimed, waiting
from tests.conftest import Api, Clock
from tests.runs.engine import reclaim

SAID: dict[str, Any] = {
    "queues": ["pay", "flows", "pay"],
    "types": ["order"],
    "activities": ["charge", "ship"],
    "capacities": {"activities": 50, "workflow_tasks": 10},
    "build_id": "2026.11.2",
    "identity": "order service, eu-1",
}


async def register(api: Api, name: str = "w1", **said: Any) -> httpx.Response:
    """Register a worker."""
    return await api.http.put(f"/v1/workers/{name}", json={"queues": ["pay"]} | said)


async def ids(api: Api, query: str = "") -> list[str]:
    """The workers of a list."""
    return [one["worker_id"] for one in (await api.ok("GET", f"/v1/workers{query}"))["items"]]


async def only_queues(api: Api, role: str, *queues: str) -> httpx.AsyncClient:
    """A client whose token is limited to queues."""
    body = {"name": "w", "role": role, "queues": list(queues)}
    return api.service.client((await api.ok("POST", "/v1/tokens", json=body))["secret"])


# ── register ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_worker_says_what_it_is(api: Api, clock: Clock) -> None:
    answer = await register(api, "4711@worker-3", **SAID)
    assert answer.status_code == 201
    until = clock.now + 30_000
    assert answer.json() == {
        "worker_id": "4711@worker-3", "heartbeat_ms": 10_000, "expires_at": until, "created": True,
    }  # fmt: skip
    found = await api.ok("GET", "/v1/workers/4711@worker-3")
    assert found == SAID | {
        "worker_id": "4711@worker-3", "namespace": "main", "queues": ["flows", "pay"], "status": "alive",
        "heartbeat_ms": 10_000, "registered_at": clock.now, "heartbeat_at": clock.now, "expires_at": until,
        "leases": [], "more_leases": False,
    }  # fmt: skip


async def test_registering_again_replaces_what_was_said(api: Api, clock: Clock) -> None:
    await register(api, **SAID)
    first = clock.now
    clock.advance(5_000)
    again = await register(api, queues=["other"], heartbeat_ms=1_000)
    assert (again.status_code, again.json()["created"]) == (200, False)
    found = await api.ok("GET", "/v1/workers/w1")
    assert (found["queues"], found["types"], found["build_id"]) == (["other"], [], None)
    assert (found["identity"], found["registered_at"], found["expires_at"]) == ("w1", first, clock.now + 3_000)
    assert await ids(api, "?queue=pay") == []
    assert await ids(api, "?queue=other") == ["w1"]


async def test_registrations_at_once_make_one_worker(api: Api) -> None:
    answers = await asyncio.gather(*(register(api, queues=[f"q{n}", "all"]) for n in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    (queue,) = [name for name in (await api.ok("GET", "/v1/workers/w1"))["queues"] if name != "all"]
    assert [n for n in range(8) if await ids(api, f"?queue=q{n}")] == [int(queue[1:])]


@pytest.mark.parametrize(
    "said",
    [
        {"queues": []}, {"queues": ["a b"]}, {"queues": ["q"] * 65}, {"heartbeat_ms": 999}, {"heartbeat_ms": 600_001},
        {"capacities": {"activities": -1}}, {"types": [""]}, {"identity": ""}, {"id": "another"}, {"more": 1},
        {"build_id": "x" * 129}, {"namespace": "a|b"},
    ],
)  # fmt: skip
async def test_what_no_worker_can_say_is_refused(api: Api, said: dict[str, Any]) -> None:
    await api.refused("PUT", "/v1/workers/w1", "request/invalid", json={"queues": ["q"]} | said)
    assert await ids(api) == []


@pytest.mark.parametrize("name", ["-a", "a%20b", "%00", "a%0A", "x" * 129, "@a"])
async def test_a_name_that_is_none_is_refused(api: Api, name: str) -> None:
    assert (await register(api, name)).status_code == 400
    assert await ids(api) == []


# ── heartbeats ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_worker_that_is_heard_of_stays_alive(api: Api, clock: Clock) -> None:
    await register(api)
    for _ in range(5):
        clock.advance(29_999)
        heard = await api.ok("POST", "/v1/workers/w1/heartbeat")
        assert heard == {
            "worker_id": "w1", "heartbeat_ms": 10_000, "expires_at": clock.now + 30_000, "created": False,
        }  # fmt: skip
    await reap(api.service.services)
    assert await ids(api, "?status=alive") == ["w1"]


async def test_a_worker_nobody_knows_is_told_to_register(api: Api) -> None:
    problem = await api.refused("POST", "/v1/workers/w1/heartbeat", "not-found")
    assert "PUT /v1/workers/{id}" in problem["detail"]


async def test_after_three_missed_heartbeats_a_worker_is_lost_and_registers_again(api: Api, clock: Clock) -> None:
    await register(api)
    clock.advance(30_000)
    assert (await api.ok("GET", "/v1/workers/w1"))["status"] == "lost"
    assert (await ids(api, "?status=lost"), await ids(api, "?status=alive")) == (["w1"], [])
    await api.refused("POST", "/v1/workers/w1/heartbeat", "not-found")
    assert (await register(api)).status_code == 201
    found = await api.ok("GET", "/v1/workers/w1")
    assert (found["status"], found["registered_at"]) == ("alive", clock.now)


async def test_a_lost_worker_is_forgotten_and_only_then(api: Api, other: Api, clock: Clock) -> None:
    await register(api, "gone", queues=["a", "b"])
    clock.advance(LOST_MS)
    await register(api, "back")
    await register(other, "gone")
    clock.advance(29_999)
    await reap(api.service.services)
    assert await ids(api) == ["back", "gone"]
    clock.advance(1)
    await api.ok("PUT", "/v1/workers/back", json={"queues": ["a"]})
    await reap(api.service.services)
    assert (await ids(api), await ids(other)) == (["back"], ["gone"])
    assert await ids(api, "?queue=a") == ["back"]
    assert await ids(api, "?queue=b") == []


async def test_a_worker_that_registers_while_it_is_forgotten_is_there(api: Api, clock: Clock) -> None:
    for _ in range(3):
        await register(api)
        clock.advance(30_000 + LOST_MS)
        await asyncio.gather(reap(api.service.services), register(api), reap(api.service.services))
        assert await ids(api, "?status=alive&queue=pay") == ["w1"]


# ── leases ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_worker_shows_what_it_holds(api: Api, clock: Clock) -> None:
    await register(api, "a")
    run = await waiting(api, activity(1), activity(2))
    (first,) = await claimed(api, max_items=1)
    await claimed(api, max_items=1, worker_id="another")
    found = await api.ok("GET", "/v1/workers/a")
    assert found["leases"] == [
        {
            "id": first["id"], "execution_id": run, "queue": "pay", "drives": "activity", "attempt": 1,
            "epoch": first["epoch"], "expires_at": first["expires_at"],
        }
    ]  # fmt: skip
    clock.advance(60_000)
    await reclaim(api)
    assert (await api.ok("GET", "/v1/workers/a"))["leases"] == [], "they were taken back, heartbeat or not"


async def test_a_worker_that_holds_much_shows_the_first_hundred(api: Api) -> None:
    await register(api, "w1", queues=["q"])
    await api.ok("POST", "/v1/work-items:batch", json=[{"queue": "q"}] * 130)
    assert len(await api.claim("q", max_items=130)) == 130
    found = await api.ok("GET", "/v1/workers/w1")
    assert (len(found["leases"]), found["more_leases"]) == (100, True)


# ── lists ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_workers_are_listed_page_by_page_and_filtered(api: Api) -> None:
    await api.ok("POST", "/v1/namespaces", json={"name": "blue"})
    await register(api, "a", build_id="1")
    await register(api, "b", build_id="2", queues=["pay", "ship"])
    await register(api, "c", namespace="blue")
    first = await api.ok("GET", "/v1/workers?limit=2")
    assert [one["worker_id"] for one in first["items"]] == ["a", "b"]
    assert await ids(api, f"?limit=2&cursor={first['next_cursor']}") == ["c"]
    assert await ids(api, "?build_id=2") == ["b"]
    assert await ids(api, "?namespace=blue") == await ids(api, "?namespace=blue&queue=pay") == ["c"]
    assert await ids(api, "?queue=pay") == ["a", "b"]
    assert await ids(api, "?queue=ship&status=alive&namespace=main") == ["b"]
    await api.refused("GET", f"/v1/workers?namespace=main&cursor={first['next_cursor']}", "request/cursor")
    await api.refused("GET", "/v1/workers?status=late", "request/malformed")


async def test_a_token_of_some_queues_reaches_workers_of_these_only(api: Api) -> None:
    await register(api, "a", queues=["pay"])
    await register(api, "b", queues=["ship"])
    await register(api, "both", queues=["pay", "ship"])
    viewer, worker = await only_queues(api, "viewer", "pay*"), await only_queues(api, "worker", "pay*")
    listed = (await viewer.get("/v1/workers")).json()["items"]
    assert [one["worker_id"] for one in listed] == ["a", "both"]
    assert [(await viewer.get(f"/v1/workers/{name}")).status_code for name in ("a", "b", "both")] == [200, 404, 200]
    beats = [(await worker.post(f"/v1/workers/{name}/heartbeat")).status_code for name in ("a", "b", "both")]
    assert beats == [200, 404, 404]
    for name, queues, status in (("n", ["pay2"], 201), ("m", ["pay", "ship"], 403), ("b", ["pay"], 403)):
        answer = await worker.put(f"/v1/workers/{name}", json={"queues": queues})
        assert answer.status_code == status, (name, answer.text)
    assert (await api.ok("GET", "/v1/workers/b"))["queues"] == ["ship"]


async def test_the_leases_that_a_token_does_not_reach_are_not_shown(api: Api) -> None:
    await register(api, "w1", queues=["pay", "ship"])
    for queue in ("pay", "ship"):
        await api.ok("POST", "/v1/work-items", json={"queue": queue})
    await api.claim("pay", "ship", max_items=2)
    viewer = await only_queues(api, "viewer", "pay")
    shown = [len((await client.get("/v1/workers/w1")).json()["leases"]) for client in (api.http, viewer)]
    assert shown == [2, 1]


async def test_a_worker_of_another_tenant_is_not_here(api: Api, other: Api) -> None:
    await register(api)
    await other.refused("GET", "/v1/workers/w1", "not-found")
    await other.refused("POST", "/v1/workers/w1/heartbeat", "not-found")
    assert await ids(other) == []
    assert (await register(other)).status_code == 201
    await other.ok("POST", "/v1/work-items", json={"queue": "pay"})
    await other.claim("pay")
    assert (await api.ok("GET", "/v1/workers/w1"))["leases"] == []
