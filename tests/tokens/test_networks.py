"""A token with networks works from those alone, whoever has it and whatever it asks, and so does what it mints."""

from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from service import capabilities
from service.http.endpoint import PUBLIC
from service.kernel.principal import Principal, network_of
from tests.conftest import Api, Service, serving
from tests.security.test_matrix import OPERATIONS, path_of
from tests.tokens.steps import GOOD, MINUTE_MS, REVOKED, forged, minted, status

INSIDE, OUTSIDE = "10.1.2.3", "203.0.113.9"
ELSEWHERE = (403, "auth/network")
PRIVATE = [endpoint.operation for endpoint in capabilities.endpoints() if endpoint.permit != PUBLIC]


def at(service: Service, token: str, source: str) -> httpx.AsyncClient:
    """A client at an address."""
    transport = httpx.ASGITransport(app=service.app, raise_app_exceptions=False, client=(source, 4711))
    headers = {"authorization": f"Bearer {token}", "x-request-id": "test"}
    return httpx.AsyncClient(transport=transport, base_url="http://holdfast", headers=headers)


async def limited(api: Api, *networks: str, **body: Any) -> str:
    """The secret of a token for some networks."""
    asked = {"name": "one", "role": "viewer", "networks": networks} | body
    return str((await api.ok("POST", "/v1/tokens", json=asked))["secret"])


async def worth(service: Service, token: str, source: str) -> tuple[int, str | None]:
    """What a token is worth at an address."""
    async with at(service, token, source) as client:
        return await status(client)


# ── where it works ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("networks", "inside", "outside"),
    [
        (["10.1.0.0/16"], ["10.1.0.0", "10.1.255.255", "::ffff:10.1.2.3"], ["10.2.0.0", "10.0.255.255", "::1"]),
        (["10.1.2.3"], ["10.1.2.3"], ["10.1.2.4", "10.1.2.2"]),
        (["2001:db8::/32"], ["2001:db8::1", "2001:db8:ffff::"], ["2001:db9::", "10.1.2.3", "::ffff:10.1.2.3"]),
        (["2001:db8::7"], ["2001:db8::7"], ["2001:db8::8"]),
        (["::ffff:10.1.0.0/112"], ["10.1.2.3", "::ffff:10.1.2.3"], ["10.2.0.0", "::ffff:10.2.0.0", "::a01:203"]),
        (["192.0.2.0/24", "10.0.0.0/8"], ["192.0.2.1", "10.9.9.9"], ["192.0.3.1", "11.0.0.0"]),
        (["0.0.0.0/0"], ["10.1.2.3"], ["2001:db8::1", "local"]),
        (["::/0"], ["2001:db8::1"], ["10.1.2.3", "::ffff:10.1.2.3", "local"]),
    ],
)
async def test_a_token_with_networks_works_from_those_alone(
    networks: list[str], inside: list[str], outside: list[str], api: Api
) -> None:
    token = await limited(api, *networks)
    for round_ in ("proven anew", "remembered"):
        for sources, expected in ((outside, ELSEWHERE), (inside, GOOD), (outside, ELSEWHERE)):
            for source in sources:
                assert await worth(api.service, token, source) == expected, (source, round_)


async def test_a_token_without_networks_works_from_everywhere(api: Api) -> None:
    token = await limited(api)
    for source in (INSIDE, OUTSIDE, "2001:db8::1", "local"):
        assert await worth(api.service, token, source) == GOOD


@pytest.fixture(scope="session")
async def bound(service: Any) -> list[tuple[str, dict[str, str]]]:
    """Tokens of one network, and headers to send beside them: a tenant's, the system's, and one that looks at a tenant
    to help it."""
    api = await service.tenant()
    asked = {"name": "x", "networks": ["10.0.0.0/8"]}
    made = (await api.admin.post("/v1/tokens", json=asked | {"role": "admin"})).json()
    helping = {"holdfast-tenant": api.tenant, "holdfast-reason": "to help"}
    return [(await limited(api, "10.0.0.0/8", role="owner"), {}), (made["secret"], {}), (made["secret"], helping)]


@pytest.mark.parametrize("operation", PRIVATE)
async def test_no_operation_serves_a_token_from_elsewhere(
    operation: str, bound: list[tuple[str, dict[str, str]]], service: Any
) -> None:
    for token, headers in bound:
        async with at(service, token, OUTSIDE) as client:
            answer = await client.request(OPERATIONS[operation].method, path_of(operation), headers=headers)
            assert (answer.status_code, answer.json()["code"]) == ELSEWHERE, answer.text


async def test_the_refusal_names_the_source_and_not_where_the_token_works(api: Api) -> None:
    """Whoever asks from elsewhere may be a thief."""
    token = await limited(api, "10.1.0.0/16")
    async with at(api.service, token, "2001:db8:1:2:3::4") as client:
        answer = await client.get("/v1/tokens/self")
    assert answer.json()["source"] == "2001:db8:1:2::/64"
    assert "10.1" not in answer.text


async def test_a_token_that_has_ended_learns_that_first(api: Api) -> None:
    token = await limited(api, "10.1.0.0/16")
    assert await worth(api.service, token, INSIDE) == GOOD, "remembered"
    await api.ok("DELETE", f"/v1/tokens/{token[6:22]}")
    assert await worth(api.service, token, OUTSIDE) == REVOKED


async def test_a_wrong_secret_is_told_the_same_from_everywhere(api: Api) -> None:
    token = await limited(api, "10.1.0.0/16")
    for source in (INSIDE, OUTSIDE):
        assert await worth(api.service, forged(token[6:22]), source) == (401, "auth/invalid")


async def test_behind_a_trusted_proxy_its_word_counts_and_nobody_elses(fresh_url: str) -> None:
    async with serving(fresh_url, trusted_proxies="127.0.0.0/8") as service:
        token = await limited(await service.tenant(), "10.1.0.0/16")
        for peer, said, expected in (
            ("127.0.0.1", INSIDE, GOOD),
            ("127.0.0.1", OUTSIDE, ELSEWHERE),
            ("127.0.0.1", f"{INSIDE}, {OUTSIDE}", ELSEWHERE),
            ("127.0.0.1", f"{OUTSIDE}, [::ffff:{INSIDE}]:443", GOOD),
            ("127.0.0.1", f"{INSIDE}, unknown", ELSEWHERE),
            ("127.0.0.1", "", ELSEWHERE),
            (OUTSIDE, INSIDE, ELSEWHERE),
            (INSIDE, OUTSIDE, GOOD),
        ):
            async with at(service, token, peer) as client:
                client.headers["x-forwarded-for"] = said
                assert await status(client) == expected, (peer, said)


async def test_a_use_from_elsewhere_is_a_line_of_the_servers_log_once_a_minute(api: Api) -> None:
    token = await limited(api, "10.1.0.0/16")
    with capture_logs() as lines:
        for _ in range(3):
            await worth(api.service, token, OUTSIDE)
        api.clock.advance(MINUTE_MS)
        await worth(api.service, token, OUTSIDE)
    line = {"token": token[6:22], "tenant": api.tenant, "source": OUTSIDE, "log_level": "warning"}
    assert [one for one in lines if one.get("token") == token[6:22]] == [
        line | {"event": "a token was used from elsewhere"}
    ] * 2
    assert token[23:66] not in str(lines)


# ── what is kept and told ──────────────────────────────────────────────────────────────────────────────────────────


async def test_networks_are_told_as_they_are_kept(api: Api) -> None:
    asked = ["10.1.0.0/16", "::FFFF:192.0.2.0/120", "2001:DB8:0::/48", "192.0.2.0/24", "198.51.100.7"]
    kept = ["10.1.0.0/16", "192.0.2.0/24", "2001:db8::/48", "198.51.100.7/32"]
    token = await limited(api, *asked)
    made = token[6:22]
    async with at(api.service, token, "198.51.100.7") as client:
        assert (await client.get("/v1/tokens/self")).json()["networks"] == kept
    assert (await api.ok("GET", f"/v1/tokens/{made}"))["networks"] == kept
    listed = (await api.ok("GET", "/v1/tokens"))["items"]
    assert [one["networks"] for one in listed if one["id"] == made] == [kept]
    assert [one["networks"] for one in listed if one["id"] != made] == [[]] * (len(listed) - 1)
    line = (await api.ok("GET", "/v1/audit"))["items"][-1]
    assert (line["action"], line["target"], line["detail"]["networks"]) == ("token.minted", made, kept)


@pytest.mark.parametrize(
    "network",
    [
        "10.0.0.1/8", "10.0.0.0/33", "2001:db8::/129", "2001:db8::1/32", "10.0.0.0/255.0.0.0", "10.0.0/8", "10/8", "10",
        "010.0.0.0/8", "10.0.0.0/", "/8", "10.0.0.0/8/8", "fe80::1%eth0", "::ffff:10.0.0.1/104", "everywhere", "", "*",
        "10.0.0.0/8\n", " 10.0.0.0/8", "١٠.0.0.0/8", "10.0.0.0/٨", "10.0.0.256", "1:2:3:4:5:6:7:8:9", ":::", "....",
    ],
)  # fmt: skip
async def test_what_is_no_network_is_refused_with_its_place(network: str, api: Api) -> None:
    asked = {"name": "x", "role": "viewer", "networks": ["10.0.0.0/8", network]}
    refused = await api.refused("POST", "/v1/tokens", "request/invalid", json=asked)
    assert [error["pointer"] for error in refused["errors"]] == ["/networks/1"]


# ── minting ────────────────────────────────────────────────────────────────────────────────────────────────────────

OWN = ["10.1.0.0/16", "2001:db8::/32"]


async def test_a_token_with_networks_mints_within_them_alone(api: Api) -> None:
    token = await limited(api, *OWN, role="owner")
    wider: list[list[str]] = [
        [], ["10.0.0.0/8"], ["10.2.0.0/16"], ["0.0.0.0/0"], ["::/0"], ["10.1.2.3", "10.2.0.0"], ["2001:db8::/31"],
        ["::ffff:10.0.0.0/104"],
    ]  # fmt: skip
    async with at(api.service, token, INSIDE) as owner:
        for networks in wider:
            answer = await owner.post("/v1/tokens", json={"name": "x", "role": "viewer", "networks": networks})
            assert (answer.status_code, answer.json()["code"]) == ELSEWHERE, networks
        for networks in (OWN, ["10.1.2.3"], ["10.1.128.0/17", "2001:db8:1::/48"], ["::ffff:10.1.0.0/112"]):
            answer = await owner.post("/v1/tokens", json={"name": "x", "role": "viewer", "networks": networks})
            assert answer.status_code == 201, networks


async def test_a_token_with_networks_does_not_get_at_a_wider_one_by_rotating_it(api: Api) -> None:
    token = await limited(api, *OWN, role="owner")
    async with at(api.service, token, INSIDE) as owner:
        for networks in ([], ["10.0.0.0/8"], ["192.0.2.0/24"]):
            other = (await limited(api, *networks))[6:22]
            answer = await owner.post(f"/v1/tokens/{other}/rotate", json={})
            assert (answer.status_code, answer.json()["code"]) == ELSEWHERE, networks
        for other in ((await limited(api, "10.1.9.0/24"))[6:22], token[6:22]):
            assert (await owner.post(f"/v1/tokens/{other}/rotate", json={})).status_code == 201


async def test_a_rotated_token_keeps_its_networks_and_a_use_from_elsewhere_does_not_end_the_old_one(api: Api) -> None:
    old = await limited(api, *OWN)
    made = await api.ok("POST", f"/v1/tokens/{old[6:22]}/rotate", json={})
    assert made["token"]["networks"] == OWN
    assert await worth(api.service, made["secret"], OUTSIDE) == ELSEWHERE
    assert await worth(api.service, old, INSIDE) == GOOD
    assert await worth(api.service, made["secret"], INSIDE) == GOOD
    assert await worth(api.service, old, INSIDE) == REVOKED


async def test_the_systems_tokens_mint_within_their_networks_too(api: Api) -> None:
    asked = {"name": "x", "role": "admin", "networks": ["10.0.0.0/8"]}
    admin = (await api.admin.post("/v1/tokens", json=asked)).json()["secret"]
    async with at(api.service, admin, INSIDE) as client:
        body = {"name": "x", "role": "owner", "tenant_id": api.tenant}
        assert (await client.post("/v1/tokens", json=body)).json()["code"] == "auth/network"
        assert (await client.post("/v1/tokens", json=body | {"networks": ["10.9.0.0/16"]})).status_code == 201


@pytest.mark.parametrize(
    ("own", "asked", "is_within"),
    [
        ((), (), True),
        ((), ("10.0.0.0/8",), True),
        (("10.0.0.0/8",), (), False),
        (("10.0.0.0/8",), ("10.0.0.0/8",), True),
        (("10.0.0.0/8",), ("10.255.255.255",), True),
        (("10.0.0.0/9",), ("10.0.0.0/8",), False),
        (("10.0.0.0/9", "10.128.0.0/9"), ("10.0.0.0/8",), False),
        (("::/0",), ("10.0.0.0/8",), False),
        (("0.0.0.0/0",), ("::/0",), False),
        (("0.0.0.0/0", "::/0"), ("10.0.0.0/8", "2001:db8::/32"), True),
        (("0.0.0.0/0", "::/0"), (), False),
        (("10.0.0.0/8", "192.0.2.0/24"), ("192.0.2.1", "11.0.0.0/8"), False),
    ],
)
def test_which_networks_lie_within_others(own: Any, asked: Any, is_within: bool) -> None:
    who = Principal("t", "owner", "id", "t", networks=tuple(map(network_of, own)))
    assert who.may_open_to([*map(network_of, asked)]) is is_within


async def test_networks_that_were_not_asked_for_cost_no_look_at_the_source(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token without limits pays nothing for those that others have."""
    _, client = await minted(api)
    assert await status(client) == GOOD
    monkeypatch.setattr(api.service.services.tokens.sources, "address", None)
    assert await status(client) == GOOD
