"""Steps of the audit tests."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from tests.conftest import Api, Service
from tests.tenants.test_behaviour import behind

DAY_MS = 86_400_000


async def lines_of(client: httpx.AsyncClient) -> list[Any]:
    """Every line of the caller's log."""
    out: list[Any] = []
    query = ""
    while True:
        page = (await client.get(f"/v1/audit?limit=1000{query}")).json()
        out += page["items"]
        if page["next_cursor"] is None:
            return out
        query = f"&cursor={page['next_cursor']}"


async def acts(api: Api, beginning: str) -> list[Any]:
    """The tenant's lines of one kind."""
    return [line for line in await lines_of(api.http) if line["action"].startswith(beginning)]


async def verdict(api: Api) -> Any:
    """What the service says of the tenant's chain."""
    return await api.ok("POST", "/v1/audit:verify")


async def tamper(service: Service, statement: str, tenant: str) -> None:
    """Change the store behind the service's back."""
    await behind(service, statement.format(tenant))


async def nothing(_part: bytes) -> None:
    """Done as a part comes."""


async def received(
    api: Api, path: str, token: str | None = None, each: Callable[[bytes], Awaitable[None]] = nothing
) -> tuple[bytes, bool]:
    """What comes of an answer as the server's connection sees it, and whether it was brought to its end; `each` is done
    as a part comes."""
    parts: list[bytes] = []
    ends: list[bool] = []
    headers = [(b"host", b"holdfast"), (b"authorization", f"Bearer {token or api.owner_token}".encode())]
    scope = {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": headers, "http_version": "1.1", "scheme": "http", "client": ("127.0.0.1", 1), "server": ("x", 80),
    }  # fmt: skip

    async def receive() -> Any:
        await asyncio.Event().wait()  # the caller stays

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            parts.append(message.get("body", b""))
            await each(parts[-1])
            ends.append(not message.get("more_body", False))

    await api.service.app(scope, receive, send)  # type: ignore[arg-type]
    return b"".join(parts), any(ends)
