"""A token with globs of queues reaches the items of those queues, by whatever way it comes to them, and no others."""

from typing import Any

import httpx
import pytest

from service.kernel.principal import Principal
from tests.conftest import Api, Clock
from tests.tokens.steps import minted

QUEUES = ["emails", "sms-?"]
MINE, OTHERS = ("emails", "sms-1"), ("payments", "sms-22")
ERROR = {"type": "broken"}


async def limited(api: Api, role: str) -> httpx.AsyncClient:
    """A client whose token is limited to some queues."""
    return (await minted(api, role=role, queues=QUEUES))[1]


async def stocked(api: Api) -> dict[str, str]:
    """An item on each queue; queue → id."""
    return {queue: (await api.ok("POST", "/v1/work-items", json={"queue": queue}))["id"] for queue in (*MINE, *OTHERS)}


async def buried(api: Api) -> dict[str, str]:
    """A dead letter on each queue; queue → id."""
    found = await stocked(api)
    for item in found.values():
        await api.ok("POST", f"/v1/work-items/{item}/dead-letter", json={"error": ERROR})
    return found


def refused(answer: httpx.Response) -> None:
    """It is refused for its queue."""
    assert (answer.status_code, answer.json()["code"]) == (403, "auth/queue"), answer.text


# ── lists ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("role", ["owner", "operator", "developer", "viewer"])
async def test_lists_show_the_items_of_the_tokens_queues_alone(role: str, api: Api) -> None:
    client = await limited(api, role)
    items = await stocked(api)
    for path in ("/v1/work-items", "/v1/work-items?filter=priority = 0", "/v1/work-items?status=ready"):
        seen = (await client.get(path)).json()["items"]
        assert sorted(item["queue"] for item in seen) == sorted(MINE), path
    assert (await client.get("/v1/work-items?queue=payments")).json()["items"] == []
    assert (await client.get("/v1/work-items?filter=queue != 'x' OR queue = 'payments'")).json()["items"] != []
    for queue, item in items.items():
        await api.ok("POST", f"/v1/work-items/{item}/dead-letter", json={"error": ERROR})
        assert (await client.get(f"/v1/dead-letters/{item}")).status_code == (200 if queue in MINE else 404)
    seen = (await client.get("/v1/dead-letters")).json()["items"]
    assert sorted(item["queue"] for item in seen) == sorted(MINE)


async def test_pages_of_a_limited_list_are_whole(api: Api) -> None:
    client = await limited(api, "viewer")
    for number in range(9):
        await api.ok("POST", "/v1/work-items", json={"queue": (*MINE, "payments")[number % 3], "id": f"i{number}"})
    seen, cursor = [], ""
    while cursor is not None:
        page = (await client.get(f"/v1/work-items?limit=2{cursor and '&cursor=' + cursor}")).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert seen == ["i0", "i1", "i3", "i4", "i6", "i7"]


async def test_queues_are_listed_as_far_as_the_token_reaches(api: Api) -> None:
    client = await limited(api, "viewer")
    await stocked(api)
    for name in ("sms-7", "sms-77"):
        await api.ok("POST", f"/v1/queues/{name}/pause", json={})
    seen = [queue["name"] for queue in (await client.get("/v1/queues")).json()["items"]]
    assert seen == ["emails", "sms-1", "sms-7"], "a queue that was only ever paused is one as well"


async def test_a_token_for_queues_that_are_not_there_sees_nothing(api: Api) -> None:
    await stocked(api)
    _, client = await minted(api, role="viewer", queues=["nothing*"])
    for path in ("/v1/work-items", "/v1/dead-letters", "/v1/queues"):
        assert (await client.get(path)).json()["items"] == []


async def test_a_token_with_queues_exports_nothing(api: Api) -> None:
    """An export holds the items of all."""
    client = await limited(api, "owner")
    await stocked(api)
    refused(await client.get(f"/v1/tenants/{api.tenant}/export"))


async def test_an_administrator_with_queues_sees_a_tenants_items_of_those_alone(api: Api) -> None:
    items = await stocked(api)
    made = (await api.admin.post("/v1/tokens", json={"name": "x", "role": "admin", "queues": QUEUES})).json()
    client = api.service.client(made["secret"])
    helping = {"holdfast-tenant": api.tenant, "holdfast-reason": "to help"}
    seen = (await client.get("/v1/work-items", headers=helping)).json()["items"]
    assert sorted(item["queue"] for item in seen) == sorted(MINE)
    for queue, item in items.items():
        answer = await client.get(f"/v1/work-items/{item}", headers=helping)
        assert answer.status_code == (200 if queue in MINE else 404)
    refused(await client.get(f"/v1/tenants/{api.tenant}/export", headers=helping))


# ── what makes work ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_no_way_of_enqueuing_reaches_another_queue(api: Api) -> None:
    client = await limited(api, "developer")
    run = (await api.start())["execution_id"]
    for queue in OTHERS:
        change = {"changes": [{"type": "append", "kind": "noted"}, {"type": "enqueue", "queue": queue}]}
        refused(await client.post("/v1/work-items", json={"queue": queue}))
        refused(await client.post("/v1/executions", json={"workflow_id": "w", "start": {"queue": queue}}))
        refused(await client.post(f"/v1/executions/{run}/transitions", json=change))
        for path, body in (
            ("/v1/work-items:batch", {"queue": queue}),
            ("/v1/executions:batch", {"workflow_id": "w", "start": {"queue": queue}}),
            ("/v1/transitions:batch", change | {"execution_id": run}),
        ):
            (result,) = (await client.post(path, json=[body])).json()["results"]
            assert result["error"]["code"] == "auth/queue", path
    assert (await api.ok("GET", "/v1/work-items"))["items"] == []
    assert len(await api.events(run)) == 1, "a transition that is refused leaves nothing"
    mine = {"changes": [{"type": "enqueue", "queue": "emails"}]}
    assert (await client.post(f"/v1/executions/{run}/transitions", json=mine)).status_code == 200
    body = {"workflow_id": "w", "start": {"queue": "sms-1"}}
    assert (await client.post("/v1/executions", json=body)).status_code == 201


async def test_a_worker_under_its_lease_makes_work_for_its_own_queues_alone(api: Api) -> None:
    worker = await limited(api, "worker")
    await api.start(start={"queue": "emails"})
    (item,) = (await worker.post("/v1/work-items:claim", json={"worker_id": "w", "queues": ["emails"]})).json()["items"]
    lease = {"work_item_id": item["id"], "epoch": item["epoch"]}
    path = f"/v1/executions/{item['execution_id']}/transitions"
    done = {"type": "settle", "outcome": "completed"}
    refused(await worker.post(path, json={"lease": lease, "changes": [done, {"type": "enqueue", "queue": "payments"}]}))
    assert (await api.ok("GET", f"/v1/work-items/{item['id']}"))["status"] == "leased"
    body = {"lease": lease, "changes": [done, {"type": "enqueue", "queue": "sms-1"}]}
    assert (await worker.post(path, json=body)).status_code == 200


async def test_a_transition_cancels_the_items_of_its_own_queues_alone(api: Api) -> None:
    client = await limited(api, "developer")
    run = (await api.start())["execution_id"]
    items = {
        queue: (await api.ok("POST", "/v1/work-items", json={"queue": queue, "execution_id": run}))["id"]
        for queue in (*MINE, *OTHERS)
    }
    for change in ({"ids": list(items.values())}, {}):
        body = {"changes": [{"type": "cancel_items"} | change]}
        assert (await client.post(f"/v1/executions/{run}/transitions", json=body)).status_code == 200
    found = {queue: (await api.ok("GET", f"/v1/work-items/{item}"))["status"] for queue, item in items.items()}
    assert found == dict.fromkeys(MINE, "cancelled") | dict.fromkeys(OTHERS, "ready")


# ── dead letters and queues ────────────────────────────────────────────────────────────────────────────────────────


async def test_dead_letters_of_other_queues_are_not_there(api: Api) -> None:
    client = await limited(api, "operator")
    letters = await buried(api)
    for queue in OTHERS:
        path = f"/v1/dead-letters/{letters[queue]}"
        for answer in (
            await client.get(path), await client.post(f"{path}/requeue", json={}), await client.delete(path),
        ):  # fmt: skip
            assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
    assert (await client.post(f"/v1/dead-letters/{letters['emails']}/requeue", json={})).status_code == 200
    assert (await client.delete(f"/v1/dead-letters/{letters['sms-1']}")).status_code == 200


@pytest.mark.parametrize("dry_run", [True, False])
async def test_a_redrive_names_a_queue_that_the_token_reaches(dry_run: bool, api: Api) -> None:
    client = await limited(api, "operator")
    await buried(api)
    for asked in ({}, {"queue": "payments"}, {"queue": "sms-22"}, {"filter": "queue = 'emails'"}):
        refused(await client.post("/v1/dead-letters:redrive", json=asked | {"dry_run": dry_run}))
    done = await client.post("/v1/dead-letters:redrive", json={"queue": "emails", "dry_run": dry_run})
    assert done.json()["count"] == 1


async def test_a_redrive_by_a_token_for_one_letter_does_not_reach_further(api: Api) -> None:
    """`*` is text that the glob `?` matches; it means more."""
    await buried(api)
    _, client = await minted(api, role="operator", queues=["?"])
    refused(await client.post("/v1/dead-letters:redrive", json={"dry_run": True}))


async def test_a_redrive_of_another_queue_is_not_there_to_be_read_or_stopped(api: Api) -> None:
    client = await limited(api, "operator")
    await buried(api)
    for queue in ("payments", None):
        begun = await api.ok("POST", "/v1/dead-letters:redrive", json={"queue": queue})
        path = f"/v1/jobs/{begun['job_id']}"
        for answer in (await client.get(path), await client.post(f"{path}/cancel")):
            assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
        assert (await api.ok("GET", path))["status"] == "running"
    mine = (await client.post("/v1/dead-letters:redrive", json={"queue": "emails"})).json()["job_id"]
    assert (await client.get(f"/v1/jobs/{mine}")).json()["detail"]["queue"] == "emails"
    assert (await client.post(f"/v1/jobs/{mine}/cancel")).json()["status"] == "cancelled"


async def test_what_time_does_is_not_limited_by_the_queues_of_a_scheduler(api: Api, clock: Clock) -> None:
    made = (await api.admin.post("/v1/tokens", json={"name": "x", "role": "scheduler", "queues": QUEUES})).json()
    items = await stocked(api)
    claim = {"worker_id": "w", "queues": ["*"], "max_items": 10, "lease_ms": 1_000}
    assert len((await api.ok("POST", "/v1/work-items:claim", json=claim))["items"]) == len(items)
    clock.advance(1_001)
    taken = (await api.service.client(made["secret"]).post("/v1/leases:reclaim", json={"limit": 1_000})).json()
    found = [one for one in taken["retryable"] if one["tenant_id"] == api.tenant]
    assert sorted(one["id"] for one in found) == sorted(items.values())
    assert set(found[0]) == {"tenant_id", "id", "epoch", "attempt"}, "ids, and nothing of what is in them"


async def test_queues_beyond_the_token_are_not_paused(api: Api) -> None:
    client = await limited(api, "operator")
    for act in ("pause", "resume"):
        refused(await client.post(f"/v1/queues/payments/{act}", json={}))
        assert (await client.post(f"/v1/queues/emails/{act}", json={})).status_code == 200


async def test_a_claim_that_waits_is_not_woken_into_another_queue(api: Api) -> None:
    _, worker = await minted(api, role="worker", queues=["sms-?"])
    body = {"worker_id": "w", "queues": ["sms-*"], "wait_ms": 1}
    await api.ok("POST", "/v1/work-items", json={"queue": "sms-22"})
    answer = await worker.post("/v1/work-items:claim", json=body)
    assert answer.status_code == 403 or answer.json()["items"] == []


# ── minting ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def owner_of(api: Api, *queues: str) -> httpx.AsyncClient:
    """An owner who is limited to some queues."""
    return (await minted(api, role="owner", queues=list(queues)))[1]


async def test_a_limited_token_mints_within_its_queues_alone(api: Api) -> None:
    owner = await owner_of(api, *QUEUES)
    wider: list[list[str]] = [[], ["*"], ["payments"], ["emails", "payments"], ["sms-*"], ["sms-??"], ["email?"]]
    for queues in wider:
        refused(await owner.post("/v1/tokens", json={"name": "x", "role": "worker", "queues": queues}))
    for queues in (["emails"], ["sms-?"], ["sms-1", "emails"], ["sms-?", "sms-2"]):
        made = await owner.post("/v1/tokens", json={"name": "x", "role": "worker", "queues": queues})
        assert made.status_code == 201, queues


async def test_a_limited_token_does_not_get_at_a_wider_one_by_rotating_it(api: Api) -> None:
    owner = await owner_of(api, *QUEUES)
    own = (await owner.get("/v1/tokens/self")).json()["id"]
    narrow, _ = await minted(api, role="worker", queues=["emails"])
    for queues in ([], ["payments"], ["sms-*"]):
        token, _ = await minted(api, role="worker", queues=queues)
        refused(await owner.post(f"/v1/tokens/{token['id']}/rotate", json={}))
    for token_id in (narrow["id"], own):
        assert (await owner.post(f"/v1/tokens/{token_id}/rotate", json={})).status_code == 201


@pytest.mark.parametrize(
    ("own", "asked", "within"),
    [
        ((), (), True),
        ((), ("a",), True),
        (("*",), ("a*", "?", "*"), True),
        (("*",), (), False),
        (("a*",), ("a", "ab", "a?", "a*", "a*b"), True),
        (("a*",), ("?a",), False),
        (("a?",), ("ab", "a?"), True),
        (("a?",), ("a*",), False),
        (("a?",), ("a",), False),
        (("a?b*",), ("acb", "a?b?*"), True),
        (("a.b",), ("axb",), False),
        (("a", "b"), ("a", "b"), True),
        (("a", "b"), ("?",), False),
        (("a*b*c",), ("axbxbxc", "a*b*c", "abc", "a*b?c"), True),
        (("a*b*c",), ("acb",), False),
        (("a*?",), ("a*",), False),
        (("*a*b",), ("ab*ab", "a?b"), True),
        (("*a" * 60 + "b",), ("a" * 127,), False),  # whoever tries all ways never ends
    ],
)
def test_which_globs_lie_within_others(own: Any, asked: Any, within: bool) -> None:
    assert Principal("t", "owner", "id", "t", own).may_grant(asked) is within


# ── dedup keys ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_dedup_key_that_is_taken_elsewhere_tells_nothing_of_its_item(api: Api) -> None:
    client = await limited(api, "operator")
    dead = (await api.ok("POST", "/v1/work-items", json={"queue": "emails", "dedup_key": "k"}))["id"]
    await api.ok("POST", f"/v1/work-items/{dead}/dead-letter", json={"error": ERROR})
    await api.start(execution_id="run")
    hidden = await api.ok("POST", "/v1/work-items", json={"queue": "payments", "dedup_key": "k"})
    again = {"queue": "emails", "dedup_key": "k"}
    asked = [
        ("/v1/work-items", again),
        ("/v1/executions/run/transitions", {"changes": [{"type": "enqueue", **again}]}),
        ("/v1/executions", {"workflow_id": "w", "start": again}),
        (f"/v1/dead-letters/{dead}/requeue", {}),
    ]
    for path, body in asked:
        answer = await client.post(path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (409, "work/conflict"), answer.text
        assert "is taken" in answer.json()["detail"] and hidden["id"] not in answer.text
        assert "payments" not in answer.text and "current_status" not in answer.json()
    [told] = (await client.post("/v1/work-items:batch", json=[again])).json()["results"]
    assert told["error"]["code"] == "work/conflict" and hidden["id"] not in str(told)


async def test_an_id_that_is_taken_elsewhere_tells_nothing_of_its_item(api: Api) -> None:
    client = await limited(api, "operator")
    await api.ok("POST", "/v1/work-items", json={"queue": "payments", "id": "it"})
    answer = await client.post("/v1/work-items", json={"queue": "emails", "id": "it"})
    assert (answer.status_code, answer.json()["code"]) == (409, "work/conflict")
    assert "is taken" in answer.json()["detail"]
    assert "payments" not in answer.text and "current_status" not in answer.json()


async def test_a_dedup_key_that_is_taken_on_the_tokens_queues_stands_for_the_item(api: Api) -> None:
    client = await limited(api, "operator")
    first = await api.ok("POST", "/v1/work-items", json={"queue": "sms-1", "dedup_key": "k"})
    made = await client.post("/v1/work-items", json={"queue": "emails", "dedup_key": "k"})
    assert (made.json()["id"], made.json()["created"]) == (first["id"], False)
