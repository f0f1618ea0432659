"""The client that the tests use sends what httpx would send, and gives what httpx would give, byte for byte."""

from typing import Any

import httpx
import pytest

from tests.client import Client

HEADERS = {"x-request-id": "test", "authorization": "Bearer x"}
REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/v1/executions", {}),
    ("GET", "/v1/executions?limit=1&after=a,b:c~d-e.f_g", {}),
    ("GET", "/v1/executions/run-1/events:tail?", {}),
    ("GET", "/", {}),
    ("GET", "/v1/a/", {}),
    ("HEAD", "/v1/executions", {}),
    ("DELETE", "/v1/executions/x.y", {}),
    ("DELETE", "/v1/executions/x", {"json": {"a": 1}}),
    ("POST", "/v1/executions", {}),
    ("POST", "/v1/executions", {"json": {"text": "ü€", "list": [1, None, 1.5, True]}}),
    ("POST", "/v1/executions", {"json": None}),
    ("POST", "/v1/executions", {"json": []}),
    ("POST", "/v1/executions", {"json": 0}),
    ("PUT", "/v1/executions", {"content": b"{}"}),
    ("PUT", "/v1/executions", {"content": "ü", "headers": {"Content-Type": "text/plain"}}),
    ("PUT", "/v1/executions", {"content": b""}),
    ("PATCH", "/v1/executions", {"json": {}, "headers": {"content-type": "application/merge-patch+json"}}),
    ("POST", "/v1/executions", {"json": {}, "headers": {"Authorization": "Bearer y", "Idempotency-Key": "k"}}),
    ("POST", "/v1/executions", {"content": b"{}", "headers": {"content-length": "3"}}),
    ("GET", "/v1/executions", {"headers": {"accept": "text/html"}}),
    ("GET", "/v1/executions", {"headers": [("x-a", "1"), ("x-a", "2")]}),
    ("GET", "/v1/executions", {"params": {"filter": "a = 'b'"}}),
    ("GET", "/v1/executions/a%2fb?x=%20+y", {}),
    ("GET", "/v1/executions/ä b?x='", {}),
    ("GET", "/v1/../executions/./x", {}),
    ("GET", "/v1//executions", {}),
]
"""Method, path and what else; the last few are not plain."""


class Echo:
    """An application that answers `status` and keeps what it was told."""

    def __init__(self, status: int = 200, fails: bool = False) -> None:
        self.status, self.fails = status, fails
        self.told: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.told.append(scope)
        self.told += [await receive(), await receive()]
        if self.fails:
            raise ValueError("an accident")
        headers = [
            (b"content-type", b"application/json"),
            (b"x-two", b"1"),
            (b"x-two", b"2"),
            (b"content-length", b"7"),
        ]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"a":', "more_body": True})
        await send({"type": "http.response.body", "body": b"1}"})
        self.told.append(await receive())


def usual(app: Any) -> httpx.AsyncClient:
    """What the client stands for."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://holdfast", headers=HEADERS)


async def both(method: str, path: str, more: dict[str, Any], **echo: Any) -> None:
    """One request by either: the same was told, the same was answered."""
    ours, theirs = Echo(**echo), Echo(**echo)
    one, other = [await client.request(method, path, **more) for client in (Client(ours, HEADERS), usual(theirs))]
    assert ours.told == theirs.told
    assert (one.status_code, one.headers.raw, one.content) == (other.status_code, other.headers.raw, other.content)


@pytest.mark.parametrize(("method", "path", "more"), REQUESTS)
async def test_a_request_is_what_httpx_would_send(method: str, path: str, more: dict[str, Any]) -> None:
    await both(method, path, more)


@pytest.mark.parametrize("echo", [{"status": 404}, {"status": 204}, {"fails": True}])
async def test_an_answer_is_what_httpx_would_give(echo: dict[str, Any]) -> None:
    await both("POST", "/v1/executions", {"json": {"a": 1}}, **echo)
