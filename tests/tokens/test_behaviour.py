"""Tokens over HTTP: minted downwards, shown once, rotated in two phases, ended at once; and the log that tells it."""

import asyncio
from typing import Any

import httpx
import msgspec
import pytest

from service.errors import StateError
from service.kernel.audit import AuditEntry, AuditHead, Chain
from service.kernel.principal import PERMITS, SYSTEM_ROLES, TENANT_ROLES, internal
from service.tokens import uses
from service.tokens.bootstrap import bootstrap
from service.tokens.model import UpgradeVerifier
from service.tokens.secret import mint
from tests.conftest import Api, Clock, Service, serving
from tests.tokens.steps import DAY_MS, EXPIRED, GOOD, MINUTE_MS, REVOKED, forged, minted, rotated, status

# ── minting ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_secret_is_shown_once_and_never_kept(api: Api) -> None:
    answer = await api.http.post("/v1/tokens", json={"name": "ci", "role": "worker", "queues": ["emails", "sms-*"]})
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    secret, token = answer.json()["secret"], answer.json()["token"]
    assert secret.startswith(f"holdt_{token['id']}_")
    assert (token["tenant_id"], token["role"], token["queues"]) == (api.tenant, "worker", ["emails", "sms-*"])
    again = [await api.http.get(path) for path in ("/v1/tokens", f"/v1/tokens/{token['id']}", "/v1/audit")]
    again.append(await api.service.client(secret).get("/v1/tokens/self"))
    for answer in again:
        assert answer.status_code == 200
        for part in (secret, secret[23:66], "verifier", "argon2", "reject_tag"):
            assert part not in answer.text


async def test_a_token_ends_after_90_days_unless_it_is_said_otherwise(api: Api, clock: Clock) -> None:
    admin = api.service.client(await bootstrap(api.service.services, days=None))
    plain = await admin.post("/v1/tokens", json={"name": "a", "role": "owner", "tenant_id": api.tenant})
    assert plain.json()["token"]["expires_at"] == clock.now + 90 * DAY_MS
    week, _ = await minted(api, expires_in_days=7)
    assert week["expires_at"] == clock.now + 7 * DAY_MS


async def test_never_must_be_said_and_said_alone(api: Api) -> None:
    refused = await api.refused("POST", "/v1/tokens", "request/invalid", json={
        "name": "a", "role": "viewer", "never_expires": True, "expires_in_days": 1,
    })  # fmt: skip
    assert [one["pointer"] for one in refused["errors"]] == ["/expires_in_days"]
    assert len((await api.ok("GET", "/v1/tokens"))["items"]) == 1


async def test_a_token_does_not_outlive_the_one_that_minted_it(api: Api) -> None:
    own = (await api.ok("GET", "/v1/tokens/self"))["expires_at"]
    for asked in ({"never_expires": True}, {"expires_in_days": 3650}, {}):
        token, _ = await minted(api, **asked)
        assert token["expires_at"] == own
    eternal = await api.service.client(await eternal_owner(api)).post(
        "/v1/tokens", json={"name": "a", "role": "viewer", "never_expires": True}
    )
    assert eternal.json()["token"]["expires_at"] is None


async def eternal_owner(api: Api) -> str:
    """An owner's token without an end, which only somebody without an end can mint."""
    return await bootstrap(api.service.services, tenant_id=api.tenant, role="owner", name="eternal", days=None)


async def test_minting_goes_downwards_only(api: Api, other: Api) -> None:
    before = len((await api.ok("GET", "/v1/tokens"))["items"])
    for asked in ({"role": "admin"}, {"role": "scheduler"}, {"role": "owner", "tenant_id": other.tenant}):
        await api.refused("POST", "/v1/tokens", "auth/forbidden", json={"name": "up"} | asked)
    for role in ("operator", "developer", "worker", "reviewer", "viewer", "auditor"):
        client = await api.as_role(role)
        for asked_role in (role, "viewer"):
            answer = await client.post("/v1/tokens", json={"name": "up", "role": asked_role})
            assert (answer.status_code, answer.json()["code"]) == (403, "auth/forbidden")
    assert len((await api.ok("GET", "/v1/tokens"))["items"]) == before + 6  # those that as_role minted
    assert (await other.ok("GET", "/v1/tokens"))["items"][-1]["role"] == "owner"


def test_no_role_that_mints_mints_what_it_could_not_do_itself() -> None:
    """Of the tenant's roles only the owner manages tokens, and there is nothing that another one may and it may not."""
    held = {role: {name for name, roles in PERMITS.items() if role in roles} for role in (*TENANT_ROLES, *SYSTEM_ROLES)}
    assert [role for role in TENANT_ROLES if "token.manage" in held[role]] == ["owner"]
    assert not [role for role in TENANT_ROLES if held[role] - held["owner"]]
    assert held["scheduler"] <= held["admin"] and "token.manage" not in held["scheduler"]


async def test_no_token_has_a_role_of_the_other_kind_whoever_mints_it(api: Api) -> None:
    for tenant, role in ((api.tenant, "admin"), (api.tenant, "scheduler"), ("", "owner")):
        with pytest.raises(StateError) as refused:
            await bootstrap(api.service.services, tenant_id=tenant, role=role)
        assert refused.value.code == "auth/forbidden"
    assert [token["role"] for token in (await api.ok("GET", "/v1/tokens"))["items"]] == ["owner"]


async def test_an_administrator_mints_for_any_tenant_and_for_the_system(api: Api) -> None:
    tenants = await api.admin.post("/v1/tokens", json={"name": "a", "role": "owner", "tenant_id": api.tenant})
    systems = await api.admin.post("/v1/tokens", json={"name": "s", "role": "scheduler"})
    assert tenants.json()["secret"].startswith("holdt_")
    assert systems.json()["secret"].startswith("holds_")
    assert systems.json()["token"]["tenant_id"] is None
    missing = await api.admin.post("/v1/tokens", json={"name": "a", "role": "owner", "tenant_id": "nothing"})
    assert (missing.status_code, missing.json()["code"]) == (404, "not-found")
    mixed = await api.admin.post("/v1/tokens", json={"name": "a", "role": "admin", "tenant_id": api.tenant})
    assert (mixed.status_code, mixed.json()["code"]) == (403, "auth/forbidden")
    scheduler = api.service.client(systems.json()["secret"])
    assert (await scheduler.post("/v1/tokens", json={"name": "a", "role": "scheduler"})).status_code == 403


async def test_a_mint_that_is_repeated_answers_again_without_the_secret(api: Api) -> None:
    key = {"idempotency-key": "once"}
    first = await api.http.post("/v1/tokens", json={"name": "ci", "role": "viewer"}, headers=key)
    again = await api.http.post("/v1/tokens", json={"name": "ci", "role": "viewer"}, headers=key)
    assert (again.status_code, again.headers["idempotent-replayed"]) == (201, "true")
    assert again.headers["cache-control"] == "no-store"
    assert again.json() == {"token": first.json()["token"], "secret": None}
    assert len((await api.ok("GET", "/v1/tokens"))["items"]) == 2
    other = await api.http.post("/v1/tokens", json={"name": "ci", "role": "owner"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency/mismatch")


# ── reading ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_tokens_are_listed_in_order_and_got_one_by_one(api: Api, clock: Clock) -> None:
    ids = [(await api.ok("GET", "/v1/tokens/self"))["id"]]
    for number in range(3):
        clock.advance(1)
        ids.append((await minted(api, name=f"n{number}"))[0]["id"])
    seen, cursor = [], None
    while True:
        page = await api.ok("GET", "/v1/tokens?limit=2" + (f"&cursor={cursor}" if cursor else ""))
        seen += [token["id"] for token in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == ids
    assert (await api.ok("GET", f"/v1/tokens/{ids[2]}"))["name"] == "n1"
    await api.refused("GET", "/v1/tokens/nothing", "not-found")


async def test_tokens_that_end_soon_are_found(api: Api, clock: Clock) -> None:
    await minted(api, name="over", expires_in_days=1)
    clock.advance(DAY_MS)
    soon, _ = await minted(api, expires_in_days=3)
    ended, _ = await minted(api, expires_in_days=2)
    await minted(api, expires_in_days=30)
    await api.ok("DELETE", f"/v1/tokens/{ended['id']}")
    found = await api.ok("GET", "/v1/tokens?expiring_within=7")
    assert [token["id"] for token in found["items"]] == [soon["id"]]


async def test_whoever_has_a_token_may_look_at_it_and_end_it(api: Api) -> None:
    token, client = await minted(api, role="auditor")
    assert (await client.get("/v1/tokens/self")).json() == await api.ok("GET", f"/v1/tokens/{token['id']}")
    ended = (await client.delete("/v1/tokens/self")).json()
    assert ended["revoked_by"] == token["id"]
    assert await status(client) == REVOKED


async def test_use_is_noted_off_the_request_and_not_each_time(api: Api, clock: Clock) -> None:
    token, client = await minted(api)
    used = clock.now
    for _ in range(3):
        assert await status(client) == GOOD
        clock.advance(MINUTE_MS)
    assert (await api.ok("GET", f"/v1/tokens/{token['id']}"))["last_used_at"] is None
    await api.service.services.tokens.uses.flush()
    assert (await api.ok("GET", f"/v1/tokens/{token['id']}"))["last_used_at"] == used


async def shown_use(api: Api, token_id: str) -> tuple[str | None, str | None]:
    """From where and by which program a token was last used, once that is written down."""
    await api.service.services.tokens.uses.flush()
    token = await api.ok("GET", f"/v1/tokens/{token_id}")
    assert token in (await api.ok("GET", "/v1/tokens?limit=1000"))["items"]
    return token["last_used_from"], token["last_used_agent"]


async def test_a_use_tells_from_where_and_by_which_program(api: Api, clock: Clock) -> None:
    token, client = await minted(api)
    assert await shown_use(api, token["id"]) == (None, None)
    await client.get("/v1/tokens/self", headers={"user-agent": "worker/1.2 (+https://acme.example)"})
    assert await shown_use(api, token["id"]) == ("127.0.0.1", "worker/1.2 (+https://acme.example)")
    clock.advance(uses.EVERY_MS - 1)
    await client.get("/v1/tokens/self", headers={"user-agent": "other/1"})
    assert (await shown_use(api, token["id"]))[1] == "worker/1.2 (+https://acme.example)"
    clock.advance(1)
    own = (await client.get("/v1/tokens/self", headers={"user-agent": "other/1"})).json()
    assert own["last_used_agent"] == "worker/1.2 (+https://acme.example)", "written down after the request"
    assert (await shown_use(api, token["id"]))[1] == "other/1"


async def test_the_first_use_of_a_rotated_token_tells_it_too(api: Api) -> None:
    old, _ = await minted(api)
    new, client = await rotated(api, old["id"])
    assert (new["last_used_from"], new["last_used_agent"]) == (None, None)
    assert (await client.get("/v1/tokens/self", headers={"user-agent": "new/1"})).json()["last_used_agent"] == "new/1"


async def test_a_program_that_names_itself_by_a_token_is_not_kept_so(api: Api) -> None:
    secret = mint("tenant")[0]
    split = secret[:23] + "\x01" + secret[23:]
    for said in (f"curl {secret}", f"a{secret}b", split, secret[23:], f"x/1 ({secret[6:]})"):
        token, client = await minted(api)
        assert (await client.get("/v1/tokens/self", headers={"user-agent": said})).status_code == 200
        _, agent = await shown_use(api, token["id"])
        assert agent is not None and "[masked]" in agent and secret[23:45] not in agent, said


SECRET = mint("tenant")[0]


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (None, None),
        (b"", None),
        (b" \x00\x1b\x7f ", None),
        (b"a\x1b[31mb\r\nc\x85d", "a[31mbcd"),
        (b"caf\xe9 1", "café 1"),
        (b"ab " * 200, ("ab " * 67)[:200]),
        (b"y " * 95 + SECRET.encode(), "y " * 95 + SECRET[:10]),
    ],
)  # fmt: skip
def test_what_is_kept_of_a_programs_name_is_short_and_plain(said: bytes | None, kept: str | None) -> None:
    assert uses.agent_of(said) == kept


async def test_the_address_is_that_which_trusted_proxies_tell(fresh_url: str) -> None:
    for trusted, source in (("", "127.0.0.1"), ("127.0.0.0/8", "203.0.113.9")):
        async with serving(fresh_url, trusted_proxies=trusted) as service:
            api = await service.tenant()
            token, client = await minted(api)
            await client.get("/v1/tokens/self", headers={"x-forwarded-for": "198.51.100.1, 203.0.113.9"})
            assert (await shown_use(api, token["id"]))[0] == source


async def test_every_process_writes_down_the_uses_that_it_saw(fresh_url: str) -> None:
    """Also one that runs no sweeps, and at the latest when it goes."""
    async with serving(fresh_url, sweep=False) as service:
        api = await service.tenant()
        token, client = await minted(api)
        assert await status(client) == GOOD
        used = service.clock.now
    async with serving(fresh_url) as service:
        shown = await service.client(service.admin).get(f"/v1/tokens/{token['id']}?tenant_id={api.tenant}")
        assert shown.json()["last_used_at"] == used


# ── the end ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", ["GET", "POST", "batch"])
async def test_a_revoked_token_is_refused_by_the_next_request(method: str, api: Api) -> None:
    token, client = await minted(api, role="owner")

    async def ask() -> httpx.Response:
        if method == "GET":
            return await client.get("/v1/executions")
        if method == "POST":
            return await client.post("/v1/executions", json={"workflow_id": "w"})
        return await client.post("/v1/executions:batch", json=[{"workflow_id": "w"}] * 3)

    assert (await ask()).status_code < 300
    ended = await api.ok("DELETE", f"/v1/tokens/{token['id']}")
    assert (ended["revoked_at"], ended["revoked_by"]) == (api.clock.now, (await api.ok("GET", "/v1/tokens/self"))["id"])
    answer = await ask()
    assert (answer.status_code, answer.json()["code"]) == (401, "auth/revoked")
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    assert await api.ok("DELETE", f"/v1/tokens/{token['id']}") == ended, "it ends once"


async def test_a_revoked_token_is_refused_where_the_store_is_looked_at_first(api: Api) -> None:
    token, client = await minted(api, role="developer")
    assert await status(client) == GOOD
    await api.ok("DELETE", f"/v1/tokens/{token['id']}")
    for path, body in (
        ("/v1/executions", {"workflow_id": "nothing", "version": "latest"}),
        ("/v1/executions:batch", [{"workflow_id": "nothing", "version": "latest"}]),
    ):
        answer = await client.post(path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (401, "auth/revoked")


async def test_a_token_that_was_never_seen_and_is_revoked_is_refused(api: Api) -> None:
    token, client = await minted(api)
    await api.ok("DELETE", f"/v1/tokens/{token['id']}")
    assert await status(client) == REVOKED


async def test_a_token_ends_at_its_time_to_the_millisecond(api: Api) -> None:
    token, client = await minted(api, role="owner", expires_in_days=1)
    _, unseen = await minted(api, expires_in_days=1)
    api.clock.advance(DAY_MS - 1)
    assert await status(client) == GOOD
    assert (await client.post("/v1/executions", json={"workflow_id": "w"})).status_code == 201
    api.clock.advance(1)
    assert await status(client) == EXPIRED
    assert await status(unseen) == EXPIRED
    refused = await client.post("/v1/executions", json={"workflow_id": "w"})
    assert (refused.status_code, refused.json()["code"]) == (401, "auth/expired")
    assert refused.json()["expired_at"] == token["expires_at"]


async def test_an_unknown_id_and_a_wrong_secret_are_told_the_same(api: Api) -> None:
    made = await api.ok("POST", "/v1/tokens", json={"name": "a", "role": "viewer"})
    wrong = forged(made["token"]["id"])
    as_system = forged(made["token"]["id"], "holds_")
    answers = [
        await api.service.client(token).get("/v1/tokens/self") for token in (wrong, as_system, mint("tenant")[0])
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert len({(answer.content, str(answer.headers)) for answer in answers}) == 1
    assert answers[0].json()["code"] == "auth/invalid"
    await api.ok("DELETE", f"/v1/tokens/{made['token']['id']}")
    assert (await api.service.client(wrong).get("/v1/tokens/self")).content == answers[0].content, "revoked or not"


async def test_a_token_found_in_the_open_is_ended_by_whoever_found_it(api: Api) -> None:
    made = await api.ok("POST", "/v1/tokens", json={"name": "leaked", "role": "owner"})
    finder, bystander = api.service.client(None), api.service.client(made["secret"])
    answers = [
        await finder.post("/v1/tokens:revoke-exposed", json={"token": text})
        for text in ("nonsense", mint("tenant")[0], forged(made["token"]["id"]))
    ]
    assert await status(bystander) == GOOD
    answers.append(await finder.post("/v1/tokens:revoke-exposed", json={"token": made["secret"]}))
    answers.append(await finder.post("/v1/tokens:revoke-exposed", json={"token": made["secret"]}))
    assert len({(answer.status_code, answer.content) for answer in answers}) == 1
    assert await status(bystander) == REVOKED


# ── rotation ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_old_token_works_until_the_new_one_is_used(api: Api, clock: Clock) -> None:
    old, old_client = await minted(api, expires_in_days=10)
    answer = await api.http.post(f"/v1/tokens/{old['id']}/rotate", json={})
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    new, new_client = answer.json()["token"], api.service.client(answer.json()["secret"])
    assert (new["replaces"], new["role"], new["name"]) == (old["id"], old["role"], old["name"])
    assert new["expires_at"] == clock.now + 10 * DAY_MS
    assert (await api.ok("GET", f"/v1/tokens/{old['id']}"))["replaced_by"] == new["id"]
    clock.advance(MINUTE_MS)
    assert await status(old_client) == GOOD
    assert await status(new_client) == GOOD
    assert await status(old_client) == REVOKED
    assert await status(new_client) == GOOD
    assert (await api.ok("GET", f"/v1/tokens/{old['id']}"))["revoked_by"] == new["id"]


async def test_a_write_is_a_first_use_like_any_other(api: Api) -> None:
    old, old_client = await minted(api, role="developer")
    _, new_client = await rotated(api, old["id"])
    assert (await new_client.post("/v1/executions", json={"workflow_id": "w"})).status_code == 201
    assert await status(old_client) == REVOKED


async def test_the_old_token_ends_after_its_grace_if_the_new_one_is_never_used(api: Api, clock: Clock) -> None:
    old, old_client = await minted(api)
    _, new_client = await rotated(api, old["id"], grace_seconds=60)
    clock.advance(MINUTE_MS - 1)
    assert await status(old_client) == GOOD
    clock.advance(1)
    assert await status(old_client) == EXPIRED
    assert await status(new_client) == GOOD


async def test_without_grace_the_old_token_ends_at_once(api: Api) -> None:
    old, old_client = await minted(api)
    await rotated(api, old["id"], grace_seconds=0)
    assert await status(old_client) == EXPIRED


async def test_a_grace_never_prolongs_a_token(api: Api, clock: Clock) -> None:
    old, old_client = await minted(api, expires_in_days=1)
    await rotated(api, old["id"], grace_seconds=604_800)
    clock.advance(DAY_MS)
    assert await status(old_client) == EXPIRED


async def owner_of_days(api: Api, days: int) -> tuple[str, httpx.AsyncClient]:
    """The id of an owner's token that ends after so many days, and a client that sends it."""
    text = await bootstrap(api.service.services, tenant_id=api.tenant, role="owner", name="short", days=days)
    return text[6:22], api.service.client(text)


@pytest.mark.parametrize("body", [{}, {"expires_in_days": 3650}], ids=["as-long-again", "by-days"])
async def test_a_rotated_token_does_not_outlive_the_one_that_rotated_it(body: Any, api: Api, clock: Clock) -> None:
    old, _ = await minted(api, expires_in_days=30)
    eternal = (await eternal_owner(api))[6:22]
    _, short = await owner_of_days(api, 2)
    ends = clock.now + 2 * DAY_MS
    clock.advance(DAY_MS)
    for token_id in (old["id"], eternal):
        answer = await short.post(f"/v1/tokens/{token_id}/rotate", json=body)
        assert answer.json()["token"]["expires_at"] == ends


async def test_a_token_that_rotates_itself_keeps_its_end_however_often_it_does(api: Api, clock: Clock) -> None:
    own, client = await owner_of_days(api, 30)
    ends = clock.now + 30 * DAY_MS
    clock.advance(DAY_MS)
    for _ in range(3):  # two answers are lost; the grace time of the old one must not become the new one's life
        new = (await client.post(f"/v1/tokens/{own}/rotate", json={"grace_seconds": 3600})).json()["token"]
        assert new["expires_at"] == ends


async def test_a_token_that_another_rotated_does_not_win_its_replacements_life(api: Api, clock: Clock) -> None:
    own, client = await owner_of_days(api, 2)
    await rotated(api, own, expires_in_days=60, grace_seconds=3600)
    new = (await client.post(f"/v1/tokens/{own}/rotate", json={})).json()["token"]
    assert new["expires_at"] == clock.now + 3_600_000


async def test_rotating_again_before_use_replaces_the_one_that_was_lost(api: Api, clock: Clock) -> None:
    old, old_client = await minted(api, expires_in_days=10)
    lost, lost_client = await rotated(api, old["id"], grace_seconds=3600)
    new, new_client = await rotated(api, old["id"], grace_seconds=3600)
    assert await status(lost_client) == REVOKED
    assert await status(old_client) == GOOD, "the lost one was not used, so nobody is stranded"
    assert new["expires_at"] == lost["expires_at"] == clock.now + 10 * DAY_MS, "and the new one lives as long"
    assert await status(new_client) == GOOD
    assert await status(old_client) == REVOKED
    await api.refused("POST", f"/v1/tokens/{old['id']}/rotate", "token/conflict", json={})


async def test_a_successor_that_was_ended_stays_as_it_was_ended_when_there_is_another(api: Api, clock: Clock) -> None:
    old, old_client = await minted(api, expires_in_days=10)
    leaked, _ = await rotated(api, old["id"])
    ended = await api.ok("DELETE", f"/v1/tokens/{leaked['id']}")
    clock.advance(MINUTE_MS)
    new, new_client = await rotated(api, old["id"])
    assert await api.ok("GET", f"/v1/tokens/{leaked['id']}") == ended
    assert [await status(client) for client in (old_client, new_client, old_client)] == [GOOD, GOOD, REVOKED]
    assert new["expires_at"] == clock.now + 10 * DAY_MS
    told = (await api.ok("GET", "/v1/audit"))["items"]
    assert [one["target"] for one in told if one["action"] == "token.revoked"] == [leaked["id"], old["id"]]


async def test_a_rotation_of_a_token_without_end_has_none_either(api: Api) -> None:
    owner = api.service.client(await eternal_owner(api))
    made = await owner.post("/v1/tokens", json={"name": "a", "role": "viewer", "never_expires": True})
    for _ in range(2):
        new = await owner.post(f"/v1/tokens/{made.json()['token']['id']}/rotate", json={})
        assert new.json()["token"]["expires_at"] is None
    dated = await owner.post(f"/v1/tokens/{made.json()['token']['id']}/rotate", json={"expires_in_days": 1})
    assert dated.json()["token"]["expires_at"] == api.clock.now + DAY_MS


async def test_a_token_that_has_ended_is_not_rotated(api: Api) -> None:
    token, _ = await minted(api)
    await api.ok("DELETE", f"/v1/tokens/{token['id']}")
    await api.refused("POST", f"/v1/tokens/{token['id']}/rotate", "token/conflict", json={})
    await api.refused("POST", "/v1/tokens/nothing/rotate", "not-found", json={})


# ── queues of workers ──────────────────────────────────────────────────────────────────────────────────────────────


async def leased(api: Api, queue: str) -> dict[str, Any]:
    """An item of a queue, held by the owner."""
    await api.ok("POST", "/v1/work-items", json={"queue": queue})
    (item,) = await api.claim(queue)
    return dict(item)


async def test_a_worker_claims_from_its_queues_only(api: Api) -> None:
    _, worker = await minted(api, role="worker", queues=["emails", "sms-?"])
    for queue in ("emails", "sms-1", "sms-22", "payments"):
        await api.ok("POST", "/v1/work-items", json={"queue": queue})

    async def claim(*queues: str) -> httpx.Response:
        return await worker.post("/v1/work-items:claim", json={"worker_id": "w", "queues": queues, "max_items": 10})

    for queues in (["payments"], ["*"], ["emails", "payments"], ["e*"], ["sms-22"]):
        answer = await claim(*queues)
        assert (answer.status_code, answer.json()["code"]) == (403, "auth/queue"), queues
    got = (await claim("emails", "sms-1", "sms-?")).json()["items"]
    assert sorted(item["queue"] for item in got) == ["emails", "sms-1"]


async def test_a_glob_that_reads_like_the_tokens_gets_no_more_than_it(api: Api) -> None:
    """`sms-*` is text that the glob `sms-?` matches; as a glob it means more."""
    _, worker = await minted(api, role="worker", queues=["sms-?"])
    await api.ok("POST", "/v1/work-items", json={"queue": "sms-22"})
    asked = {"worker_id": "w", "queues": ["sms-*"], "max_items": 10}
    answer = await worker.post("/v1/work-items:claim", json=asked)
    assert answer.status_code == 403 or answer.json()["items"] == []
    assert len(await api.claim("sms-*")) == 1


async def test_claims_that_share_a_batch_keep_to_their_own_queues(api: Api) -> None:
    _, narrow = await minted(api, role="worker", queues=["a?"])
    _, wide = await minted(api, role="worker", queues=["a*"])
    for queue in ("a1", "a22", "a333"):
        await api.ok("POST", "/v1/work-items", json={"queue": queue})
    asked = {"worker_id": "w", "queues": ["a?", "a*"], "max_items": 10}
    ways = [narrow.post("/v1/work-items:claim", json=asked), wide.post("/v1/work-items:claim", json=asked)]
    for answer, allowed in zip(await asyncio.gather(*ways), ({"a1"}, {"a1", "a22", "a333"}), strict=True):
        assert answer.status_code == 403 or {item["queue"] for item in answer.json()["items"]} <= allowed


async def test_items_of_other_queues_are_not_there_for_a_worker(api: Api) -> None:
    _, worker = await minted(api, role="worker", queues=["emails"])
    item = await leased(api, "payments")
    path, epoch = f"/v1/work-items/{item['id']}", {"epoch": item["epoch"]}
    error = {"error": {"type": "broken"}}
    answers = [
        await worker.get(path),
        await worker.post(f"{path}/renew", json=epoch),
        await worker.post(f"{path}/complete", json=epoch),
        await worker.post(f"{path}/fail", json=epoch | error),
        await worker.post(f"{path}/release", json=epoch),
        await worker.post(f"{path}/dead-letter", json=epoch | error),
    ]
    missing = await worker.get("/v1/work-items/" + "0" * len(item["id"]))
    for answer in answers:
        assert answer.status_code == 404
        assert answer.content.replace(item["id"].encode(), b"0" * len(item["id"])) == missing.content
    for batch in ("/v1/leases:renew", "/v1/work-items:complete", "/v1/activities:complete"):
        (result,) = (await worker.post(batch, json=[epoch | {"id": item["id"]}])).json()["results"]
        assert result["error"]["code"] == "not-found"
    under = {"lease": {"work_item_id": item["id"], "epoch": item["epoch"]}, "changes": [{"type": "snapshot"}]}
    (result,) = (await worker.post("/v1/transitions:batch", json=[under])).json()["results"]
    assert result["error"]["code"] == "not-found"
    assert (await api.ok("GET", path))["status"] == "leased"


async def test_a_worker_works_in_its_queues(api: Api) -> None:
    _, worker = await minted(api, role="worker", queues=["emails"])
    await api.ok("POST", "/v1/work-items", json={"queue": "emails"})
    (item,) = (await worker.post("/v1/work-items:claim", json={"worker_id": "w", "queues": ["emails"]})).json()["items"]
    path, epoch = f"/v1/work-items/{item['id']}", {"epoch": item["epoch"]}
    assert (await worker.get(path)).json()["status"] == "leased"
    assert (await worker.post(f"{path}/renew", json=epoch)).status_code == 200
    assert (await worker.post(f"{path}/complete", json=epoch)).status_code == 200


async def test_enqueuing_keeps_to_the_tokens_queues_one_by_one_and_in_batches(api: Api) -> None:
    _, client = await minted(api, role="developer", queues=["emails"])
    alone = await client.post("/v1/work-items", json={"queue": "payments"})
    assert (alone.status_code, alone.json()["code"]) == (403, "auth/queue")
    both = await client.post("/v1/work-items:batch", json=[{"queue": "payments"}, {"queue": "emails"}])
    refused, done = both.json()["results"]
    assert refused["error"]["code"] == "auth/queue"
    assert done["ok"]["created"] is True
    assert [item["queue"] for item in (await api.ok("GET", "/v1/work-items"))["items"]] == ["emails"]


# ── the cost of a verifier ─────────────────────────────────────────────────────────────────────────────────────────


async def stored(service: Service, token_id: str) -> str:
    """A token's verifier as it is stored."""

    async def read(tx: Any) -> Any:
        return (await tx.all("read_tokens_by_id", ids=[token_id]))[0][5]

    return str(await service.services.backend.read(read))


async def of_before(url: str) -> str:
    """A token that was minted when a verifier cost less."""
    async with serving(url, argon2_memory_kib=8) as service:
        api = await service.tenant()
        assert "m=8," in await stored(service, api.owner_token[6:22])
        return api.owner_token


async def test_a_header_that_nobody_has_sent_for_a_while_is_proven_again(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, proofs = api.service.services.tokens, list[bool]()
    matches = tokens.verifier.matches

    async def watched(*said: Any, **more: Any) -> bool:
        proofs.append(True)
        return bool(await matches(*said, **more))

    monkeypatch.setattr(tokens.verifier, "matches", watched)
    for idle, count in ((300.0, 1), (300.0, 1), (0.0, 2)):
        monkeypatch.setattr("service.tokens.directory.PROVEN_IDLE_S", idle)
        assert await status(api.http) == GOOD
        assert len(proofs) == count


async def test_the_first_use_upgrades_a_verifier_to_the_cost_of_today(fresh_url: str) -> None:
    secret = await of_before(fresh_url)
    async with serving(fresh_url, argon2_memory_kib=16) as service:
        client = service.client(secret)
        assert await status(client) == GOOD
        upgraded = await stored(service, secret[6:22])
        assert "m=16," in upgraded
        assert await status(client) == GOOD
        service.services.tokens._proven.clear()
        assert await status(client) == GOOD, "by the new verifier"
        assert await stored(service, secret[6:22]) == upgraded, "once"
        assert [line["action"] for line in (await client.get("/v1/audit")).json()["items"]] == ["token.minted"]
    async with serving(fresh_url, argon2_memory_kib=16) as service:
        assert await status(service.client(secret)) == GOOD
        assert await stored(service, secret[6:22]) == upgraded


async def test_a_wrong_secret_upgrades_nothing(fresh_url: str) -> None:
    secret = await of_before(fresh_url)
    async with serving(fresh_url, argon2_memory_kib=16) as service:
        before = await stored(service, secret[6:22])
        assert await status(service.client(forged(secret[6:22]))) == (401, "auth/invalid")
        assert await stored(service, secret[6:22]) == before
        assert await status(service.client(secret)) == GOOD


async def test_many_first_uses_at_once_derive_one_verifier(fresh_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = await of_before(fresh_url)
    async with serving(fresh_url, argon2_memory_kib=16) as service:
        verifier, derived = service.services.tokens.verifier, []
        derive = verifier.derive

        async def counted(given: str, whom: Any) -> str:
            derived.append(given)
            return str(await derive(given, whom))

        monkeypatch.setattr(verifier, "derive", counted)
        assert await asyncio.gather(*(status(service.client(secret)) for _ in range(8))) == [GOOD] * 8
        assert len(derived) == 1
        assert "m=16," in await stored(service, secret[6:22])


async def test_a_verifier_that_cannot_be_derived_now_harms_nobody(
    fresh_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = await of_before(fresh_url)
    async with serving(fresh_url, argon2_memory_kib=16) as service:

        async def busy(_given: str, _whom: Any) -> str:
            raise StateError("auth/busy", "Too much.", retry_after=1)

        with monkeypatch.context() as patch:
            patch.setattr(service.services.tokens.verifier, "derive", busy)
            assert await status(service.client(secret)) == GOOD
        assert "m=8," in await stored(service, secret[6:22])
        service.services.tokens._proven.clear()
        assert await status(service.client(secret)) == GOOD
        assert "m=16," in await stored(service, secret[6:22]), "the next proof does it"


async def test_an_upgrade_by_a_process_that_was_overtaken_changes_nothing(api: Api) -> None:
    token_id = api.owner_token[6:22]
    before = await stored(api.service, token_id)
    await api.service.services.kernel.run(
        internal(api.tenant), UpgradeVerifier(api.tenant, token_id, "another", "nonsense")
    )
    assert await stored(api.service, token_id) == before


# ── guessing and haste ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_source_that_guesses_is_slowed_down(fresh_url: str) -> None:
    async with serving(fresh_url, failures_per_minute=3) as service:
        service.clock.now -= service.clock.now % MINUTE_MS
        api = await service.tenant()
        assert await status(api.http) == GOOD
        for _ in range(3):
            assert await status(service.client(mint("tenant")[0])) == (401, "auth/invalid")
        service.clock.advance(15_000)
        answer = await service.client(mint("tenant")[0]).get("/v1/tokens/self")
        assert (answer.status_code, answer.json()["code"]) == (429, "auth/throttled")
        assert answer.headers["retry-after"] == "45"
        assert await status(api.http) == GOOD, "a token that was proven goes on"
        service.clock.advance(45_000)
        assert await status(service.client(mint("tenant")[0])) == (401, "auth/invalid")


async def test_what_is_no_token_at_all_costs_nothing_and_counts_nothing(fresh_url: str) -> None:
    async with serving(fresh_url, failures_per_minute=1) as service:
        for _ in range(5):
            assert await status(service.client("nonsense")) == (401, "auth/invalid")
        assert await status(service.client(service.admin)) == GOOD


async def limited(api: Api, **limits: int) -> None:
    """Give the tenant limits; whoever knows the old ones forgets them within a second."""
    answer = await api.admin.patch(f"/v1/tenants/{api.tenant}", json={"limits": limits})
    assert answer.status_code == 200, answer.text
    api.clock.advance(2_000)


@pytest.mark.parametrize("kind", ["read", "write"])
async def test_requests_beyond_the_rate_are_refused_until_later(kind: str, api: Api) -> None:
    async def ask() -> httpx.Response:
        if kind == "read":
            return await api.http.get("/v1/executions")
        return await api.http.post("/v1/executions", json={"workflow_id": "w"})

    assert (await ask()).status_code < 300
    await limited(api, requests_per_second=3)
    assert [(await ask()).status_code < 300 for _ in range(5)] == [True, True, True, False, False]
    answer = await ask()
    assert (answer.status_code, answer.json()["code"]) == (429, "limit/requests-per-second")
    assert (answer.headers["retry-after"], answer.json()["limit"]) == ("1", 3)
    api.clock.advance(334)
    assert [(await ask()).status_code < 300 for _ in range(2)] == [True, False], "a third of a second is one request"


async def test_reads_and_writes_share_one_rate_and_tenants_do_not(api: Api, other: Api) -> None:
    await limited(api, requests_per_second=2)
    assert (await api.http.get("/v1/executions")).status_code == 200
    assert (await api.http.post("/v1/executions", json={"workflow_id": "w"})).status_code == 201
    await api.refused("GET", "/v1/executions", "limit/requests-per-second")
    await api.refused("POST", "/v1/executions", "limit/requests-per-second", json={"workflow_id": "w"})
    assert (await other.http.get("/v1/executions")).status_code == 200
    assert len((await api.admin.get(f"/v1/tenants/{api.tenant}")).json()) > 1, (
        "the administrator's requests are its own"
    )


async def test_a_rate_of_zero_lets_nothing_through(api: Api) -> None:
    await limited(api, requests_per_second=0)
    await api.refused("GET", "/v1/executions", "limit/requests-per-second")
    await api.refused("POST", "/v1/executions", "limit/requests-per-second", json={"workflow_id": "w"})


async def test_a_tenant_has_no_more_tokens_than_its_limit(api: Api) -> None:
    await limited(api, tokens=2)
    token, _ = await minted(api)
    problem = await api.refused("POST", "/v1/tokens", "limit/tokens", json={"name": "a", "role": "viewer"})
    assert (problem["limit"], problem["current"]) == (2, 2)
    await rotated(api, token["id"])
    await api.ok("DELETE", f"/v1/tokens/{token['id']}")


async def test_a_token_that_has_expired_holds_no_place(api: Api, clock: Clock) -> None:
    await limited(api, tokens=2)
    token, _ = await minted(api, expires_in_days=1)
    body = {"name": "a", "role": "viewer", "expires_in_days": 2}
    clock.advance(DAY_MS - 1)
    await api.refused("POST", "/v1/tokens", "limit/tokens", json=body)
    clock.advance(1)
    assert (await api.ok("GET", f"/v1/tenants/{api.tenant}/usage"))["tokens"] == 1
    await api.ok("POST", "/v1/tokens", json=body)
    refused = await api.refused("POST", f"/v1/tokens/{token['id']}/rotate", "limit/tokens", json={})
    assert (refused["limit"], refused["current"]) == (2, 2), "one that has ended comes back at the price of a new one"
    clock.advance(2 * DAY_MS)
    for _ in range(3):  # whoever loses the answer asks again, and takes the same place
        await rotated(api, token["id"])
    assert (await api.ok("GET", f"/v1/tenants/{api.tenant}/usage"))["tokens"] == 2


# ── the audit log ──────────────────────────────────────────────────────────────────────────────────────────────────


async def chain(service: Service, tenant: str) -> tuple[list[AuditEntry], AuditHead]:
    """A tenant's audit log as it is stored, and its end."""

    async def read(tx: Any) -> Any:
        lines = await tx.all("list_audit", tenant_id=tenant, after=0, limit=10_000)
        return lines, await tx.all("load_audit_heads", rows=[(tenant,)])

    lines, heads = await service.services.backend.write(read)
    return [AuditEntry(*line) for line in lines], AuditHead(*heads[0])


def verify(lines: list[AuditEntry]) -> int | None:
    """The line at which the chain breaks; None when it is whole."""
    followed = Chain()
    followed.follow(lines)
    return None if followed.fault is None else lines[followed.lines].sequence


async def lively(api: Api) -> None:
    """Some of everything that is told to the audit log."""
    token, _ = await minted(api)
    await rotated(api, token["id"])
    _, new = await rotated(api, token["id"], grace_seconds=5)
    await status(new)
    other, client = await minted(api, role="worker")
    await client.delete("/v1/tokens/self")
    await api.ok("DELETE", f"/v1/tokens/{other['id']}")
    await api.ok("PUT", "/v1/definitions/wf/1?validate=false", json={})


async def test_every_change_of_a_token_is_a_line_of_the_log(api: Api) -> None:
    owner = (await api.ok("GET", "/v1/tokens/self"))["id"]
    token, _ = await minted(api, name="ci")
    new, new_client = await rotated(api, token["id"], grace_seconds=60)
    await status(new_client)
    await new_client.delete("/v1/tokens/self")
    lines = [(line["action"], line["target"], line["actor"]) for line in (await api.ok("GET", "/v1/audit"))["items"]]
    assert lines == [
        ("token.minted", owner, "system"),
        ("token.minted", token["id"], owner),
        ("token.rotated", token["id"], owner),
        ("token.revoked", token["id"], new["id"]),
        ("token.revoked", new["id"], new["id"]),
    ]


async def test_what_is_refused_leaves_no_line(api: Api) -> None:
    before = await api.ok("GET", "/v1/audit")
    await api.refused("POST", "/v1/tokens", "auth/forbidden", json={"name": "a", "role": "admin"})
    await api.refused("POST", "/v1/tokens/nothing/rotate", "not-found", json={})
    await api.refused("DELETE", "/v1/tokens/nothing", "not-found")
    assert await api.ok("GET", "/v1/audit") == before


async def test_the_chain_of_the_log_is_whole(api: Api) -> None:
    await lively(api)
    lines, head = await chain(api.service, api.tenant)
    assert len(lines) >= 8
    assert verify(lines) is None
    assert (head.sequence, head.hash) == (lines[-1].sequence, lines[-1].hash)
    system, _ = await chain(api.service, "")
    assert verify(system) is None
    assert ("tenant.created", api.tenant) in {(line.action, line.target) for line in system}


async def test_a_line_that_was_changed_is_found(api: Api) -> None:
    await lively(api)
    lines, _ = await chain(api.service, api.tenant)
    middle = lines[3]
    changes: list[dict[str, Any]] = [
        {"at": middle.at + 1}, {"actor": "nobody"}, {"action": "token.minted!"}, {"target": "another"},
        {"detail": b"{}"}, {"detail": None}, {"tenant_id": "another"}, {"hash": "0" * 64}, {"sequence": 9},
    ]  # fmt: skip
    for change in changes:
        altered = msgspec.structs.replace(middle, **change)
        assert verify([*lines[:3], altered, *lines[4:]]) in (4, altered.sequence), change
    assert verify([*lines[:3], *lines[4:]]) == 5, "one that was taken out"
    assert verify([*lines[:4], lines[3], *lines[4:]]) == 4, "one that came in twice"
    assert verify([*lines[:2], lines[3], lines[2], *lines[4:]]) == 4, "two that changed places"
    assert verify(lines[1:]) == 2, "a beginning that is gone"


async def test_the_log_is_read_by_those_who_may(api: Api) -> None:
    assert (await (await api.as_role("auditor")).get("/v1/audit")).status_code == 200
    assert (await (await api.as_role("operator")).get("/v1/audit")).status_code == 403
    systems = (await api.admin.get("/v1/audit?limit=1000")).json()["items"]
    assert {line["action"] for line in systems} >= {"tenant.created", "token.minted"}


async def test_the_limit_of_tokens_is_not_passed_by_rotating_what_was_never_used(api: Api) -> None:
    """Each token may have one more beside it that replaces it, and no line of them."""
    token, client = await minted(api)
    await api.admin.patch(f"/v1/tenants/{api.tenant}", json={"limits": {"tokens": 2}})
    first, _ = await rotated(api, token["id"])
    refused = await api.refused("POST", f"/v1/tokens/{first['id']}/rotate", "limit/tokens", json={})
    assert (refused["limit"], refused["current"]) == (2, 3)
    _, second = await rotated(api, token["id"])
    assert (await status(client), await status(second), await status(client)) == (GOOD, GOOD, REVOKED)
    assert (await api.ok("GET", f"/v1/tenants/{api.tenant}/usage"))["tokens"] == 2


async def test_a_batch_of_a_revoked_token_is_refused_whole_whatever_else_is_wrong_with_it(api: Api) -> None:
    """The process has just served the token; what it finds before it looks at the store is told to nobody."""
    token, client = await minted(api, role="owner")
    start, keyed = {"workflow_id": "w"}, {"idempotency-key": "once"}
    assert (await client.post("/v1/executions:batch", json=[start], headers=keyed)).status_code == 200
    await api.ok("DELETE", f"/v1/tokens/{token['id']}")
    for path, batch, headers in (
        ("/v1/executions:batch", [start, {}], {}),
        ("/v1/work-items:complete", [{"epoch": 1}, {"id": "one", "epoch": 1}], {}),
        ("/v1/executions:batch", [start, start], keyed),
    ):
        answer = await client.post(path, json=batch, headers=headers)
        assert (answer.status_code, answer.json().get("code")) == REVOKED, answer.text
