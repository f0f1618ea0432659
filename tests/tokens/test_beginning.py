"""A token may be minted today that works from tomorrow on."""

from typing import Any

import pytest

from service.tokens.bootstrap import bootstrap
from tests.conftest import Api, Clock
from tests.tokens.steps import DAY_MS, GOOD, REVOKED, minted, rotated, status

EARLY = (401, "auth/not-yet")


async def test_a_token_is_refused_before_its_time_and_told_when_that_is(api: Api, clock: Clock) -> None:
    begins = clock.now + DAY_MS
    token, client = await minted(api, role="developer", not_before=begins)
    assert token["not_before"] == begins
    for ahead in (DAY_MS, 1):
        clock.now = begins - ahead
        for answer in (await client.get("/v1/executions"), await client.post("/v1/executions", json={})):
            assert (answer.status_code, answer.json()["code"], answer.json()["not_before"]) == (*EARLY, begins)
            assert 'error="invalid_token", error_description="' in answer.headers["www-authenticate"]
    clock.now = begins
    assert await status(client) == GOOD
    assert (await client.get("/v1/tokens/self")).json()["not_before"] == begins


async def test_its_beginning_is_told_by_lists_and_the_audit_log(api: Api, clock: Clock) -> None:
    begins = clock.now + DAY_MS
    token, _ = await minted(api, not_before=begins)
    listed = (await api.ok("GET", "/v1/tokens"))["items"]
    assert {one["id"]: one["not_before"] for one in listed}[token["id"]] == begins
    line = (await api.ok("GET", "/v1/audit"))["items"][-1]
    assert (line["target"], line["detail"]["not_before"]) == (token["id"], begins)


async def test_a_token_that_has_ended_learns_that_and_not_when_it_would_have_begun(api: Api, clock: Clock) -> None:
    token, client = await minted(api, not_before=clock.now + DAY_MS)
    await api.ok("DELETE", f"/v1/tokens/{token['id']}")
    assert await status(client) == REVOKED


async def test_whoever_has_a_token_that_has_not_begun_may_report_it(api: Api, clock: Clock) -> None:
    begins = clock.now + DAY_MS
    made = await api.ok("POST", "/v1/tokens", json={"name": "x", "role": "viewer", "not_before": begins})
    await api.ok("POST", "/v1/tokens:revoke-exposed", json={"token": made["secret"]})
    assert (await api.ok("GET", f"/v1/tokens/{made['token']['id']}"))["revoked_at"] == clock.now


@pytest.mark.parametrize("body", [{"expires_in_days": 1}, {}])
async def test_a_token_does_not_end_before_it_begins(body: Any, api: Api, clock: Clock) -> None:
    days = body.get("expires_in_days", 90)
    asked = {"name": "x", "role": "viewer", "not_before": clock.now + days * DAY_MS} | body
    refused = await api.refused("POST", "/v1/tokens", "request/invalid", json=asked)
    assert [error["pointer"] for error in refused["errors"]] == ["/not_before"]
    await api.ok("POST", "/v1/tokens", json=asked | {"not_before": asked["not_before"] - 1})


async def test_a_rotated_token_begins_when_the_old_one_would_have(api: Api, clock: Clock) -> None:
    begins = clock.now + 2 * DAY_MS
    token, old = await minted(api, not_before=begins, expires_in_days=10)
    shorter = await api.refused(
        "POST", f"/v1/tokens/{token['id']}/rotate", "request/invalid", json={"expires_in_days": 2}
    )
    assert shorter["errors"][0]["pointer"] == "/not_before"
    replaced, new = await rotated(api, token["id"])
    assert replaced["not_before"] == begins
    assert await status(new) == EARLY
    shown = await api.ok("GET", f"/v1/tokens/{token['id']}")
    assert shown["revoked_at"] is None, "a use that is refused is none"
    clock.now = begins
    assert await status(new) == GOOD
    assert await status(old) == REVOKED


async def test_whoever_mints_has_begun_so_nothing_begins_before_what_mints_it(api: Api, clock: Clock) -> None:
    begins = clock.now + DAY_MS
    _, owner = await minted(api, role="owner", not_before=begins)
    body = {"name": "x", "role": "viewer"}
    early = await owner.post("/v1/tokens", json=body)
    assert (early.status_code, early.json()["code"]) == EARLY
    clock.now = begins
    assert (await owner.post("/v1/tokens", json=body)).json()["token"]["created_at"] >= begins


@pytest.mark.parametrize("value", [-1, 253_402_300_800_000, 1.5, "2027-02-19", True])
async def test_what_is_no_time_is_refused(value: Any, api: Api) -> None:
    await api.refused(
        "POST", "/v1/tokens", "request/invalid", json={"name": "x", "role": "viewer", "not_before": value}
    )


async def test_a_token_may_begin_as_late_as_a_date_can_be_written(api: Api) -> None:
    owner = api.service.client(await bootstrap(api.service.services, tenant_id=api.tenant, role="owner", days=None))
    body = {"name": "x", "role": "viewer", "never_expires": True, "not_before": 253_402_300_799_999}
    made = (await owner.post("/v1/tokens", json=body)).json()
    answer = await api.service.client(made["secret"]).get("/v1/tokens/self")
    assert (answer.status_code, answer.json()["code"]) == EARLY
    assert "9999-12-31T23:59:59Z" in answer.json()["detail"]
