"""An administrator who reads a tenant is told of in the tenant's own log, before the answer."""

import asyncio
from typing import Any

import httpx
import pytest

from service.errors import StateError
from service.kernel.command import Request
from service.tokens.model import NoteSupport
from service.tokens.secret import mint
from tests.conftest import Api

MINUTE_MS = 60_000


async def read(api: Api, path: str = "/v1/executions", reason: str = "ticket 7") -> httpx.Response:
    """A support read of the tenant."""
    return await api.admin.get(path, headers={"holdfast-tenant": api.tenant, "holdfast-reason": reason})


async def lines(api: Api) -> list[Any]:
    """What the tenant's owner sees of support reads."""
    return [line for line in (await api.ok("GET", "/v1/audit"))["items"] if line["action"] == "support.read"]


async def test_a_support_read_is_a_line_of_the_tenants_log(api: Api, other: Api) -> None:
    assert (await read(api)).status_code == 200
    [line] = await lines(api)
    assert line["actor"] == api.service.admin[6:22]
    assert (line["target"], line["detail"]) == (api.tenant, {"operation": "listExecutions", "reason": "ticket 7"})
    assert await lines(other) == []


async def test_a_minute_of_reads_for_one_reason_is_one_line(api: Api) -> None:
    await asyncio.gather(*(read(api) for _ in range(5)))
    api.clock.advance(MINUTE_MS - 1)
    await read(api, "/v1/definitions")
    assert len(await lines(api)) == 1
    await read(api, reason="ticket 8")
    assert [line["detail"]["reason"] for line in await lines(api)] == ["ticket 7", "ticket 8"]
    api.clock.advance(1)
    await read(api)
    assert len(await lines(api)) == 3


async def test_a_suspended_tenant_is_told_as_well(api: Api) -> None:
    await api.admin.patch(f"/v1/tenants/{api.tenant}", json={"status": "suspended"})
    assert (await read(api)).status_code == 200
    assert len(await lines(api)) == 1


async def test_what_is_refused_reads_nothing_and_leaves_no_line(api: Api) -> None:
    assert (await read(api, reason=" ")).status_code == 403
    assert (await read(api, reason="x" * 513)).status_code == 403
    assert (await read(api, "/v1/tokens")).status_code == 403
    assert await lines(api) == []


async def test_a_read_that_cannot_be_told_is_not_answered(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = api.service.services.kernel
    submit = kernel.submit

    def away(request: Request) -> Any:
        if not isinstance(request.command, NoteSupport):
            return submit(request)
        future = asyncio.get_running_loop().create_future()
        future.set_exception(StateError("store/unavailable", "The store is away.", retry_after=1))
        return future

    with monkeypatch.context() as patch:
        patch.setattr(kernel, "submit", away)
        assert (await read(api)).status_code == 503
    assert (await read(api)).status_code == 200, "and the next one tries again"
    assert len(await lines(api)) == 1


async def test_a_reason_that_holds_a_token_is_told_without_its_secret(api: Api) -> None:
    text, parts = mint("tenant")
    await read(api, reason=f"asked by {text} about ticket 7")
    [line] = await lines(api)
    assert line["detail"]["reason"] == f"asked by {text[:22]}_[masked] about ticket 7"
    assert parts.secret not in str(await api.ok("GET", "/v1/audit"))
