"""Idempotency keys: one effect and one answer for a request, however often and however much at once it is made."""

import asyncio
from typing import Any

import httpx
import pytest

from service.operations.sweeps import HOUR_MS, expire_keys
from tests.conftest import Api, Clock
from tests.tokens.steps import minted, rotated


async def send(api: Api, key: str = "k", path: str = "/v1/work-items", **body: Any) -> httpx.Response:
    """A request under a key; by default it enqueues."""
    return await api.http.post(path, json=body or {"queue": "q"}, headers={"idempotency-key": key})


async def count(api: Api) -> int:
    """How many items there are."""
    return len((await api.ok("GET", "/v1/work-items?limit=1000"))["items"])


def replayed(answer: httpx.Response) -> bool:
    return answer.headers.get("idempotent-replayed") == "true"


async def test_a_repeated_request_answers_as_the_first_did_and_does_nothing(api: Api) -> None:
    first, again = await send(api), await send(api)
    assert (first.status_code, again.status_code, replayed(first), replayed(again)) == (201, 201, False, True)
    assert again.json() == first.json()
    assert await count(api) == 1


async def test_requests_at_once_with_one_key_have_one_effect(api: Api) -> None:
    answers = await asyncio.gather(*(send(api) for _ in range(12)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sorted(replayed(answer) for answer in answers) == [False] + [True] * 11
    assert await count(api) == 1


async def test_a_key_that_was_used_for_something_else_is_refused(api: Api) -> None:
    await send(api)
    for other in ({"queue": "p"}, {"queue": "q", "priority": 1}):
        answer = await send(api, **other)
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency/mismatch")
    answer = await send(api, path="/v1/executions", workflow_id="wf")
    assert answer.json()["code"] == "idempotency/mismatch"
    assert await count(api) == 1


async def test_of_different_requests_at_once_with_one_key_one_is_done(api: Api) -> None:
    answers = await asyncio.gather(*(send(api, queue=f"q{n}") for n in range(6)))
    assert sorted(answer.status_code for answer in answers) == [201] + [422] * 5
    assert await count(api) == 1


async def test_the_same_key_in_two_tenants_are_two_keys(api: Api, other: Api) -> None:
    mine, theirs = await asyncio.gather(send(api), send(other))
    assert mine.json()["id"] != theirs.json()["id"]
    assert not replayed(mine)
    assert not replayed(theirs)


async def test_a_refusal_is_not_remembered(api: Api) -> None:
    body = {"workflow_id": "wf", "parent_id": "later"}
    assert (await send(api, path="/v1/executions", **body)).status_code == 404
    await api.start(execution_id="later")
    answer = await send(api, path="/v1/executions", **body)
    assert (answer.status_code, replayed(answer)) == (201, False)


async def test_a_repeat_is_answered_though_the_world_has_moved_on(api: Api) -> None:
    first = await send(api)
    [item] = await api.claim("q")
    await api.ok("POST", f"/v1/work-items/{item['id']}/complete", json={"epoch": 1})
    await api.admin.patch(f"/v1/tenants/{api.tenant}", json={"status": "suspended"})
    again = await send(api)
    assert (again.status_code, again.json()) == (201, first.json())


async def test_each_item_of_a_batch_is_done_once(api: Api) -> None:
    headers = {"idempotency-key": "batch"}
    body = [{"queue": "q"}, {"queue": "q", "execution_id": "nobody"}, {"queue": "q"}]
    first = await api.ok("POST", "/v1/work-items:batch", json=body, headers=headers)
    again = await api.ok("POST", "/v1/work-items:batch", json=body, headers=headers)
    assert again == first
    assert (len(first["results"]), await count(api)) == (3, 2)


async def test_the_keys_of_a_batch_are_nobody_elses(api: Api) -> None:
    body = [{"queue": "q"}]
    assert (await send(api, "batch#0")).status_code == 201
    await api.ok("POST", "/v1/work-items:batch", json=body, headers={"idempotency-key": "batch"})
    problem = await api.refused(
        "POST", "/v1/work-items:batch", "idempotency/mismatch", json=body * 2, headers={"idempotency-key": "batch"}
    )
    assert "'batch'" in problem["detail"]
    assert await count(api) == 2


async def test_a_claim_under_a_key_hands_out_the_same_items_again(api: Api) -> None:
    for _ in range(3):
        await send(api, f"k{await count(api)}")
    body = {"worker_id": "w", "queues": ["q"], "max_items": 2}
    hands = [(await send(api, "claim", "/v1/work-items:claim", **body)).json()["items"] for _ in range(2)]
    assert hands[0] == hands[1]
    assert len(await api.claim("q", max_items=9)) == 1


async def test_an_empty_claim_is_not_remembered(api: Api) -> None:
    body = {"worker_id": "w", "queues": ["q"]}
    assert (await send(api, "claim", "/v1/work-items:claim", **body)).json() == {"items": []}
    await send(api)
    assert len((await send(api, "claim", "/v1/work-items:claim", **body)).json()["items"]) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there"])
async def test_a_key_that_is_no_key_is_refused(api: Api, key: str) -> None:
    answer = await send(api, key)
    assert (answer.status_code, answer.json()["code"]) == (400, "request/malformed")
    assert await count(api) == 0


async def test_keys_are_kept_as_long_as_promised_and_then_forgotten(api: Api, other: Api, clock: Clock) -> None:
    services = api.service.services
    hours = services.settings.idempotency_hours
    first = await send(api)
    await send(other)
    clock.advance(hours * HOUR_MS)
    await send(api, "young")
    await expire_keys(services)
    assert replayed(await send(api))
    clock.advance(1)
    await expire_keys(services)
    again, theirs, young = await send(api), await send(other), await send(api, "young")
    assert (replayed(again), replayed(theirs), replayed(young)) == (False, False, True)
    assert again.json()["id"] != first.json()["id"]


async def test_old_keys_go_page_by_page(api: Api, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    from service.operations import sweeps

    monkeypatch.setattr(sweeps, "PAGE", 2)
    for n in range(5):
        await send(api, f"k{n}")
    clock.advance(api.service.services.settings.idempotency_hours * HOUR_MS + 1)
    pages = 1
    while await sweeps.expire_keys(api.service.services):
        pages += 1
    assert pages >= 3
    assert [replayed(await send(api, f"k{n}")) for n in range(5)] == [False] * 5


# ── other tokens of the tenant ─────────────────────────────────────────────────────────────────────────────────────

WAYS: dict[str, tuple[str, Any]] = {
    "enqueue": ("/v1/work-items", {"queue": "b", "payload": "theirs"}),
    "batch": ("/v1/work-items:batch", [{"queue": "b", "payload": "theirs"}]),
    "claim": ("/v1/work-items:claim", {"worker_id": "w", "queues": ["b"]}),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("limits", [{"role": "developer", "queues": ["a"]}, {"role": "owner"}])
async def test_an_answer_is_not_repeated_to_a_token_of_another_role_or_with_other_queues(
    way: str, limits: Any, api: Api
) -> None:
    """It may tell what that token must not see: a claim has the payloads of items."""
    await api.ok("POST", "/v1/work-items", json={"queue": "b", "payload": "theirs"})
    path, body = WAYS[way]
    _, one = await minted(api, role="developer")
    _, another = await minted(api, **limits)
    first = await one.post(path, json=body, headers={"idempotency-key": "k"})
    assert first.status_code < 300
    answer = await another.post(path, json=body, headers={"idempotency-key": "k"})
    assert (answer.status_code, answer.json()["code"]) in ((422, "idempotency/mismatch"), (403, "auth/queue"))
    again = await one.post(path, json=body, headers={"idempotency-key": "k"})
    assert again.content == first.content


async def test_an_answer_is_repeated_to_the_token_that_replaced_the_first(api: Api) -> None:
    token, one = await minted(api, role="developer", queues=["b", "a*"])
    first = await one.post("/v1/work-items", json={"queue": "b"}, headers={"idempotency-key": "k"})
    _, heir = await rotated(api, token["id"])
    again = await heir.post("/v1/work-items", json={"queue": "b"}, headers={"idempotency-key": "k"})
    assert (again.status_code, replayed(again), again.content) == (201, True, first.content)
