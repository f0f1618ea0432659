"""Requests as bytes: what no well-behaved client sends, put to the application as a server would."""

import json
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote

import pytest

from service.errors import CODES

JSON = (b"content-type", b"application/json")
Send = Callable[..., Awaitable["Reply"]]


class Reply(NamedTuple):
    """An answer: its status, headers (of one name the last) and bytes."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str | None:
        """The code of a problem document, None for any other answer."""
        return json.loads(self.body)["code"] if self.headers.get("content-type") == "application/problem+json" else None

    def refused(self, *codes: str) -> "Reply":
        """This, a refusal: 4xx, a whole problem document, a code of ours (one of `codes`, if any are named)."""
        assert 400 <= self.status < 500, f"{self.status} {self.body[:500]!r}"
        problem = json.loads(self.body)
        assert self.headers["content-type"] == "application/problem+json", self.body[:500]
        assert CODES[problem["code"]] == (problem["status"], problem["title"])
        assert (problem["status"], problem["type"]) == (self.status, f"/problems/{problem['code']}")
        assert problem["detail"]
        assert not codes or problem["code"] in codes, f"{problem['code']}: {problem['detail'][:500]}"
        return self

    def answered(self) -> "Reply":
        """This, an answer that may be anything but a failure."""
        assert self.status < 500, f"{self.status} {self.body[:500]!r}"
        return self if self.status < 400 else self.refused()


async def request(
    app: Any,
    method: str,
    target: str,
    token: str | None = None,
    body: bytes | Sequence[bytes] | None = None,
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> Reply:
    """Send `method target` (percent-encoded, as on the wire). The body goes in the chunks given, with a JSON content
    type and a true Content-Length unless `headers` name a type, a length or a transfer encoding of their own."""
    path, _, query = target.partition("?")
    sent = list(headers)
    named = {name for name, _ in sent}
    if b"host" not in named:
        sent.append((b"host", b"holdfast"))
    if token is not None:
        sent.append((b"authorization", b"Bearer " + token.encode()))
    chunks = [] if body is None else [body] if isinstance(body, bytes) else list(body)
    if body is not None and b"content-type" not in named:
        sent.append(JSON)
    if body is not None and not named & {b"content-length", b"transfer-encoding"}:
        sent.append((b"content-length", b"%d" % sum(map(len, chunks))))
    parts = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    parts.append({"type": "http.request", "body": b"", "more_body": False})
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": unquote(path), "raw_path": path.encode(), "query_string": query.encode("latin-1"), "root_path": "",
        "headers": sent, "client": ("127.0.0.1", 1), "server": ("holdfast", 80), "state": {},
    }  # fmt: skip
    told: list[Any] = []

    async def receive() -> Any:
        return parts.pop(0) if parts else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        told.append(message)

    await app(scope, receive, send)
    headers_back = {name.decode(): value.decode() for name, value in told[0]["headers"]}
    return Reply(told[0]["status"], headers_back, b"".join(part.get("body", b"") for part in told[1:]))


@pytest.fixture(scope="session")
def raw(service: Any) -> Send:
    """`request` of this service."""

    async def send(*args: Any, **kwargs: Any) -> Reply:
        return await request(service.app, *args, **kwargs)

    return send


PICTURED = ("executions", "events", "work-items", "dead-letters", "queues", "tokens", "definitions", "audit", "workers")


class World:
    """A tenant with one of everything, and ways to name it."""

    def __init__(self, service: Any, api: Any) -> None:
        self.service, self.api, self.owner, self.admin = service, api, api.owner_token, service.admin
        self.ids = {"executions": "run", "work-items": "held", "dead-letters": "dead", "tenants": api.tenant}
        self.ids |= {"schedules": "nightly", "namespaces": "side", "workers": "w1"}
        self.made: list[str] = []
        self.last: list[Any] | None = None
        self.ids |= {"definitions": "wf", "queues": "q", "jobs": "none", "problems": "not-found", "pages": "none"}

    async def furnish(self) -> "World":
        """Make the things that `ids` name."""
        ok = self.api.ok
        await ok("PUT", "/v1/definitions/wf/1?validate=false", json={"steps": []})
        await ok("PUT", "/v1/definitions/unused/1?validate=false", json={"steps": []})
        await self.api.start(execution_id="run", task_queue="flows", state={"list": [1], "text": "x"})
        schedule = {"spec": {"every_ms": 86_400_000}, "action": {"workflow_type": "wf", "task_queue": "flows"}}
        await ok("POST", "/v1/schedules", json={"schedule_id": "nightly"} | schedule)
        await ok("POST", "/v1/namespaces", json={"name": "side"})
        await ok("PUT", "/v1/workers/w1", json={"queues": ["flows"]})
        await ok("PUT", "/v1/executions/run/snapshots/1")
        await self.work("run", "held", "dead")
        minted = await ok("POST", "/v1/tokens", json={"name": "second", "role": "viewer"})
        self.ids["tokens"] = minted["token"]["id"]
        return self

    async def work(self, run: str, held: str, dead: str) -> None:
        """Items of an execution: one that is held at epoch 1, one that is dead."""
        for name in (held, dead):
            await self.api.ok("POST", "/v1/work-items", json={"id": name, "queue": name, "execution_id": run})
        await self.api.claim(held)
        await self.api.ok("POST", f"/v1/work-items/{dead}/dead-letter", json={"error": {"type": "broken"}})

    async def renew(self) -> None:
        """Another execution, with items, in place of those that are used up."""
        mark = len(self.made)
        self.made.append(run := f"run-{mark}")
        await self.api.start(execution_id=run, state={"list": [1]})
        await self.work(run, f"held-{mark}", f"dead-{mark}")
        self.ids |= {"executions": run, "work-items": f"held-{mark}", "dead-letters": f"dead-{mark}"}

    def path(self, endpoint: Any, **parts: str) -> str:
        """The endpoint's path, naming what is there; `parts` names other things."""
        noun = endpoint.path.removeprefix("/v1").split("/")[1]
        usual = {"version": "1", "sequence": "1", "file": "none", "group": "lease"}
        named = re.findall(r"\{(\w+)\}", endpoint.path)
        return str(
            endpoint.path.format(**{name: parts.get(name, usual.get(name, self.ids.get(noun))) for name in named})
        )

    def token(self, endpoint: Any) -> str:
        """A token of somebody who may call it."""
        return self.admin if endpoint.permit in ("tenant.manage", "sweep") else self.owner

    async def picture(self) -> list[Any]:
        """Everything that the tenant and the administrator can see of it."""
        paths = [*(f"/v1/{name}?limit=1000" for name in PICTURED), "/v1/executions/run"]
        seen = [await self.seen(path, self.owner) for path in (*paths, f"/v1/tenants/{self.api.tenant}")]
        self.last = [{key: value for key, value in one.items() if key != "next_cursor"} for one in seen]
        return [*self.last, await self.tenants()]

    async def known(self) -> list[Any]:
        """The picture as it was when somebody last looked: for a tenant that no test may change. So what changes it
        between two looks is found as well."""
        return await self.picture() if self.last is None else [*self.last, await self.tenants()]

    async def tenants(self) -> list[str]:
        """The ids of all tenants; of those that other tests make there are more each time."""
        return [one["id"] for one in (await self.seen("/v1/tenants?limit=1000", self.admin))["items"]]

    async def seen(self, path: str, token: str) -> Any:
        """What a path answers, which must be there."""
        reply = await request(self.service.app, "GET", path, token)
        assert reply.status == 200, f"{path}: {reply.status} {reply.body[:500]!r}"
        return json.loads(reply.body)


@pytest.fixture(scope="session")
async def world(service: Any) -> World:
    """A furnished tenant for tests that change nothing."""
    return await World(service, await service.tenant()).furnish()


@pytest.fixture
async def own_world(service: Any) -> World:
    """A furnished tenant for a test that may change it."""
    return await World(service, await service.tenant()).furnish()
