"""A token that ends soon says so with every answer, in time to rotate it."""

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from service.tokens.sweeps import SWEEPS, tell_of_ends
from tests.conftest import Api, Clock, serving
from tests.tokens.steps import DAY_MS, minted, rotated

HEADER = "holdfast-token-expires"


def said(ends: int) -> str:
    """A time as the header writes it."""
    return datetime.fromtimestamp(ends // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def ask(client: httpx.AsyncClient, kind: str) -> httpx.Response:
    """A read or a write."""
    if kind == "read":
        return await client.get("/v1/executions")
    return await client.post("/v1/executions", json={"workflow_id": "w"})


@pytest.mark.parametrize("kind", ["read", "write"])
async def test_answers_say_when_a_token_ends_from_two_weeks_before_on(kind: str, api: Api, clock: Clock) -> None:
    token, client = await minted(api, role="developer", expires_in_days=15)
    assert HEADER not in (await ask(client, kind)).headers
    clock.advance(DAY_MS + 1)
    for _ in range(2):
        assert (await ask(client, kind)).headers[HEADER] == said(token["expires_at"])
    assert HEADER not in (await ask(api.http, kind)).headers, "ninety days are far"


async def test_a_writer_learns_within_a_minute_that_its_token_was_rotated(api: Api, clock: Clock) -> None:
    token, client = await minted(api, role="developer", expires_in_days=60)
    assert HEADER not in (await ask(client, "write")).headers
    await rotated(api, token["id"])
    ends = clock.now + DAY_MS
    clock.advance(60_000)
    assert (await ask(client, "write")).headers[HEADER] == said(ends)


async def test_a_stream_and_a_batch_say_it_too(api: Api) -> None:
    token, client = await minted(api, role="developer", expires_in_days=3)
    started = await client.post("/v1/executions:batch", json=[{"workflow_id": "w"}])
    execution = started.json()["results"][0]["ok"]["execution_id"]
    await api.ok("POST", f"/v1/executions/{execution}/status", json={"status": "completed"})
    tail = await client.get(f"/v1/executions/{execution}/events:tail")
    assert tail.headers["content-type"] == "text/event-stream" and "execution.started" in tail.text
    for answer in (started, tail):
        assert answer.headers[HEADER] == said(token["expires_at"])


async def test_how_early_it_is_said_is_a_setting(fresh_url: str) -> None:
    for days, expected in ((0, False), (90, False), (91, True)):
        async with serving(fresh_url, token_warning_days=days) as service:
            api: Any = await service.tenant()
            answer = await api.http.get("/v1/tokens/self")
            assert (HEADER in answer.headers) is expected


async def test_once_a_day_the_log_of_whoever_sweeps_counts_the_tokens_that_end_soon(fresh_url: str) -> None:
    """By tenant, without a secret: an alarm can be built on it, and on its absence."""
    async with serving(fresh_url) as service:
        one, two = await service.tenant(), await service.tenant()
        with capture_logs() as lines:
            await tell_of_ends(service.services)
            secrets = [
                (await api.ok("POST", "/v1/tokens", json={"name": "n", "role": "viewer", "expires_in_days": days}))
                for api, days in ((one, 15), (two, 14), (two, 3), (two, 1), (two, 15))
            ]
            await two.ok("DELETE", f"/v1/tokens/{secrets[2]['token']['id']}")
            await tell_of_ends(service.services)
            service.clock.advance(DAY_MS)
            await tell_of_ends(service.services)
    line = {"event": "tokens end soon", "log_level": "info", "days": 14}
    assert [one for one in lines if one["event"] == "tokens end soon"] == [
        line | {"tokens": 0, "tenants": 0, "by_tenant": {}},
        line | {"tokens": 2, "tenants": 1, "by_tenant": {two.tenant: 2}},
        line | {"tokens": 3, "tenants": 2, "by_tenant": {two.tenant: 2, one.tenant: 1}},
    ]
    assert not any(made["secret"][23:66] in str(lines) for made in secrets)
    assert [(sweep.run, sweep.every_ms) for sweep in SWEEPS] == [(tell_of_ends, DAY_MS)]
