"""Whoever ends a token may end with it what it minted: an owner's token that leaked leaves nothing behind."""

import asyncio
from typing import Any

import httpx
import msgspec
import pytest

from service.kernel.command import Request
from service.kernel.principal import Principal, internal
from service.tokens.model import MintToken, RevokeToken, RotateToken
from tests.conftest import Api, serving
from tests.tokens.steps import GOOD, REVOKED, minted, rotated, status


async def mint_by(client: httpx.AsyncClient, **body: Any) -> tuple[Any, httpx.AsyncClient]:
    """A token that this client's token mints, and a client that sends it."""
    answer = await client.post("/v1/tokens", json={"name": "heir", "role": "owner"} | body)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    again = httpx.AsyncClient(
        transport=client._transport, base_url="http://holdfast", headers={"authorization": f"Bearer {made['secret']}"}
    )
    return made["token"], again


async def test_what_a_token_minted_ends_with_it_where_that_is_asked(api: Api) -> None:
    root, client = await minted(api, role="owner")
    child, heir = await mint_by(client)
    _, grandchild = await mint_by(heir, role="viewer")
    _, sibling = await minted(api, role="viewer")
    ended = await api.ok("DELETE", f"/v1/tokens/{root['id']}?descendants=true")
    assert ended["id"] == root["id"] and ended["revoked_at"] is not None
    assert [await status(one) for one in (client, heir, grandchild)] == [REVOKED] * 3
    assert [await status(one) for one in (sibling, api.http)] == [GOOD] * 2
    lines = (await api.ok("GET", "/v1/audit?limit=500"))["items"]
    told = {line["target"]: line["detail"] for line in lines if line["action"] == "token.revoked"}
    assert told[child["id"]] == {"descends_from": root["id"]}
    assert len(told) == 3


async def test_without_being_asked_nothing_else_ends(api: Api) -> None:
    root, client = await minted(api, role="owner")
    _, heir = await mint_by(client, role="viewer")
    await api.ok("DELETE", f"/v1/tokens/{root['id']}")
    assert (await status(client), await status(heir)) == (REVOKED, GOOD)
    await api.ok("DELETE", f"/v1/tokens/{root['id']}?descendants=true")
    assert await status(heir) == REVOKED, "also when the token itself has ended before"


async def test_what_replaced_a_descendant_ends_too_and_what_replaced_the_token_does_not(api: Api) -> None:
    root, client = await minted(api, role="owner")
    child, _ = await mint_by(client)
    _, childs = await rotated(api, child["id"])
    _, grandchild = await mint_by(childs, role="viewer")
    _, roots = await rotated(api, root["id"])
    await api.ok("DELETE", f"/v1/tokens/{root['id']}?descendants=true")
    assert [await status(one) for one in (childs, grandchild)] == [REVOKED] * 2
    assert await status(roots) == GOOD


async def test_a_descendant_may_end_its_ancestor_and_itself(api: Api) -> None:
    root, client = await minted(api, role="owner")
    _, heir = await mint_by(client)
    answer = await heir.delete(f"/v1/tokens/{root['id']}", params={"descendants": "true"})
    assert answer.status_code == 200
    assert await status(heir) == REVOKED


async def test_a_token_of_another_tenant_is_not_there(api: Api, other: Api) -> None:
    root, _ = await minted(api, role="owner")
    await other.refused("DELETE", f"/v1/tokens/{root['id']}?descendants=true", "not-found")


async def test_what_is_minted_meanwhile_ends_or_is_refused(api: Api) -> None:
    for _ in range(5):
        root, client = await minted(api, role="owner")
        _, heir = await mint_by(client)
        made = [heir.post("/v1/tokens", json={"name": "late", "role": "viewer"}) for _ in range(3)]
        rotation = heir.post(f"/v1/tokens/{root['id']}/rotate", json={})
        await asyncio.gather(*made, rotation, api.ok("DELETE", f"/v1/tokens/{root['id']}?descendants=true"))
        tokens = (await api.ok("GET", "/v1/tokens?limit=500"))["items"]
        ended = {token["id"] for token in tokens if token["revoked_at"] is not None}
        assert root["id"] in ended
        assert not [one for one in tokens if one["created_by"] in ended and one["id"] not in ended]


@pytest.mark.parametrize("how", ["mint", "rotate"])
async def test_a_token_that_ends_in_the_commit_in_which_it_mints_leaves_none(api: Api, how: str) -> None:
    root, _ = await minted(api, role="owner")
    other, _ = await minted(api)
    mints = Principal(api.tenant, "owner", root["id"], api.tenant)
    new = {
        "mint": MintToken(api.tenant, "late", "late", "viewer", (), "", b"", None),
        "rotate": RotateToken(api.tenant, other["id"], "late", "", b"", 0, None),
    }[how]
    both = [Request(internal(api.tenant), RevokeToken(api.tenant, root["id"])), Request(mints, new)]
    _, refused = await api.service.services.kernel.execute(both)
    assert getattr(refused, "code", None) == "auth/revoked"
    await api.refused("GET", "/v1/tokens/late", "not-found")


async def test_a_policy_bounds_how_long_tokens_live(fresh_url: str) -> None:
    async with serving(fresh_url, token_days_max=30) as service:
        api = await service.tenant()
        token, _ = await minted(api)
        assert token["expires_at"] == service.clock.now + 30 * 86_400_000
        for body in ({"expires_in_days": 31}, {"never_expires": True}):
            asked = {"name": "x", "role": "viewer"} | body
            problem = await api.refused("POST", "/v1/tokens", "request/invalid", json=asked)
            assert problem["limit"] == 30
        await api.refused("POST", f"/v1/tokens/{token['id']}/rotate", "request/invalid", json={"expires_in_days": 31})
        assert (await minted(api, expires_in_days=7))[0]["expires_at"] == service.clock.now + 7 * 86_400_000


@pytest.mark.parametrize("lived", [90, None])
async def test_a_token_from_before_the_policy_is_rotated_to_one_within_it(lived: int | None, fresh_url: str) -> None:
    async with serving(fresh_url) as service:
        api = await service.tenant()
        asked = {"never_expires": True} if lived is None else {"expires_in_days": lived}
        old, _ = await minted(api, **asked)
        service.services.settings = msgspec.structs.replace(service.services.settings, token_days_max=30)
        new, _ = await rotated(api, old["id"])
        assert new["expires_at"] == service.clock.now + 30 * 86_400_000


async def test_however_often_a_descendant_was_replaced_the_last_one_ends_too(api: Api) -> None:
    root, client = await minted(api, role="owner")
    token, _ = await mint_by(client, role="viewer")
    line = []
    for _ in range(3):
        token, heir = await rotated(api, token["id"])
        assert await status(heir) == GOOD
        line.append(heir)
    await api.ok("DELETE", f"/v1/tokens/{root['id']}?descendants=true")
    assert [await status(one) for one in line] == [REVOKED] * 3
