"""A client of an application in this process that does what httpx's does, in a third of the time, where the request is
a plain one: the tests send a hundred thousand of them. Whatever is not plain goes through httpx.

`tests/http/test_client.py` holds the two to each other.
"""

import asyncio
import json as encoding
import re
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from tests.declared import refuse_undeclared

HOST = "holdfast"
PLAIN = re.compile(r"(/(?![./])[A-Za-z0-9_:~.\-]*)+(\?[A-Za-z0-9_:~.,=&\-]*)?")
"""A path and a query in which httpx has nothing to quote and no dots to resolve."""
SENT = {"headers", "json", "content"}
LENGTH_OF_NOTHING = ("POST", "PUT", "PATCH")
ANSWERS = "http://" + HOST


class Client(httpx.AsyncClient):
    """Sends to `app`, with `headers` in every request; an application that fails answers 500."""

    def __init__(self, app: Any, headers: dict[str, str]) -> None:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        super().__init__(transport=transport, base_url=ANSWERS, headers=headers, trust_env=False)
        self._app = app
        self._always = [(b"host", HOST.encode()), *((name.lower(), value) for name, value in self.headers.raw)]

    async def request(self, method: str, url: Any, **more: Any) -> httpx.Response:
        """As httpx has it; a refusal must be one that the contract announces."""
        answer = await self._request(method, url, **more)
        refuse_undeclared(method, str(url), answer)
        return answer

    async def _request(self, method: str, url: Any, **more: Any) -> httpx.Response:
        body = more.get("content")
        plain = more.keys() <= SENT and isinstance(url, str) and PLAIN.fullmatch(url) and method.isupper()
        if not plain or not (body is None or isinstance(body, bytes | str)):
            return await super().request(method, url, **more)
        headers = with_more(self._always, more.get("headers"))
        if headers is None:
            return await super().request(method, url, **more)
        path, _, query = str(url).partition("?")
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "headers": headers, "path": path, "raw_path": path.encode(), "query_string": query.encode(),
            "root_path": "", "client": ("127.0.0.1", 123), "server": (HOST, None),
        }  # fmt: skip
        return await answered(self._app, scope, encoded(method, body, more.get("json"), headers))


def with_more(always: list[tuple[bytes, bytes]], more: Any) -> list[tuple[bytes, bytes]] | None:
    """The headers of a request, those of `more` before their namesakes; None for what httpx must look at."""
    if not more:
        return list(always)
    if type(more) is not dict:
        return None
    named = {}
    for name, value in more.items():
        if not (isinstance(name, str) and isinstance(value, str) and name.isascii() and value.isascii()):
            return None
        named[name.lower().encode()] = value.encode()
    if len(named) != len(more) or b"content-length" in named or b"transfer-encoding" in named or b"host" in named:
        return None
    return [pair for pair in always if pair[0] not in named] + list(named.items())


def encoded(method: str, content: bytes | str | None, json: Any, headers: list[tuple[bytes, bytes]]) -> bytes:
    """The bytes of a body; what there is to say of them is added to `headers`."""
    if content is None and json is not None:
        body = encoding.dumps(json, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    else:
        body = content.encode() if isinstance(content, str) else content or b""
    if body:
        headers.append((b"content-length", b"%d" % len(body)))
    elif method in LENGTH_OF_NOTHING:
        headers.insert(1, (b"content-length", b"0"))
    if content is None and json is not None and all(name != b"content-type" for name, _ in headers):
        headers.append((b"content-type", b"application/json"))
    return body


async def answered(app: Callable[..., Awaitable[None]], scope: dict[str, Any], body: bytes) -> httpx.Response:
    """What the application answers. It hears of a disconnection once it has said everything."""
    parts = [(body, True), (b"", False)]
    begun: list[Any] = []
    said: list[bytes] = []
    done = asyncio.Event()

    async def receive() -> Any:
        if parts:
            found, more = parts.pop(0)
            return {"type": "http.request", "body": found, "more_body": more}
        await done.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            assert not begun
            begun.append(message)
        elif message["type"] == "http.response.body":
            assert not done.is_set()
            said.append(message.get("body", b""))
            if not message.get("more_body", False):
                done.set()

    try:
        await app(scope, receive, send)
    except Exception:
        return httpx.Response(500 if not begun else begun[0]["status"])
    assert done.is_set()
    content = b"" if scope["method"] == "HEAD" else b"".join(said)
    headers = begun[0].get("headers", [])
    answer = httpx.Response(begun[0]["status"], headers=headers, stream=httpx.ByteStream(content))
    answer.read()
    return answer
