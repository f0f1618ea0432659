"""What the tests of tokens do again and again."""

from typing import Any

import httpx

from service.tokens.secret import _checksum, mint
from tests.conftest import Api

DAY_MS = 86_400_000
MINUTE_MS = 60_000


async def minted(api: Api, **body: Any) -> tuple[Any, httpx.AsyncClient]:
    """A new token of the tenant and a client that sends it."""
    made = await api.ok("POST", "/v1/tokens", json={"name": "one", "role": "viewer"} | body)
    return made["token"], api.service.client(made["secret"])


async def rotated(api: Api, token_id: str, **body: Any) -> tuple[Any, httpx.AsyncClient]:
    """The token that replaces another, and a client that sends it."""
    made = await api.ok("POST", f"/v1/tokens/{token_id}/rotate", json=body)
    return made["token"], api.service.client(made["secret"])


async def status(client: httpx.AsyncClient) -> tuple[int, str | None]:
    """What a token is worth: 200, or the refusal and its code."""
    answer = await client.get("/v1/tokens/self")
    return answer.status_code, answer.json().get("code")


GOOD = (200, None)
REVOKED, EXPIRED = (401, "auth/revoked"), (401, "auth/expired")


def forged(token_id: str, prefix: str = "holdt_") -> str:
    """A well-formed token with that id and another secret."""
    body = f"{prefix}{token_id}_{mint('tenant')[0][23:66]}"
    return body + _checksum(body)
