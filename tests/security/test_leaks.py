"""No secret comes out where it does not belong: tokens of every kind are used well and badly, and everything that the
service says, logs and stores is searched for every one of them. The database's password and the cursors' key as well.

A token is given out once, in the answer to who minted it. Those answers are the only ones that are not searched.
"""

import base64
import contextlib
import io
import itertools
import logging
import re
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import structlog

from backends.errors import OutcomeUnknown, StoreError, Unavailable
from service import capabilities
from service.http.endpoint import PUBLIC
from service.logging import set_up
from service.tokens.secret import parse
from tests.cli.conftest import Command, holdfast
from tests.conftest import ROLES, Service, serving

__all__ = ["holdfast"]  # a fixture
ENDPOINTS = capabilities.endpoints()
ENDLESS = {"tailEvents"}
LOSES = {"revokeOwnToken", "revokeExposedToken", "revokeToken", "rotateToken", "mintToken"}
PASSWORD = "hunter2-correct-horse"


@contextlib.contextmanager
def logging_all() -> Iterator[io.StringIO]:
    """Everything that is logged, from debug up, by us and by libraries, with tracebacks."""
    stream, root = io.StringIO(), logging.getLogger()
    before, handlers, level = structlog.get_config(), root.handlers, root.level
    set_up("debug", "json", stream)
    root.setLevel(logging.DEBUG)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # the test's own client
    try:
        yield stream
    finally:
        structlog.configure(**before)
        root.handlers, root.level = handlers, level


class House:
    """A service, every token that it ever gave out, and everything that it said since."""

    def __init__(self, service: Service, log: io.StringIO) -> None:
        self.service, self.log = service, log
        self.tokens: dict[str, str] = {"bootstrap": service.admin}
        self.heard: list[tuple[str, str]] = []

    async def ask(self, method: str, path: str, token: str | None, **more: Any) -> Any:
        """A request whose answer is searched later."""
        answer = await self.service.client(token).request(method, path, **more)
        head = "\n".join(f"{name}: {value}" for name, value in answer.headers.items())
        self.heard.append((f"{method} {path[:40]}", f"{head}\n\n{answer.text}"))
        return answer

    async def mint(self, called: str, by: str, path: str = "/v1/tokens", headers: Any = None, **body: Any) -> str:
        """Mint over HTTP; the one answer that holds the secret."""
        answer = await self.service.client(self.tokens[by]).post(path, json=body, headers=headers)
        assert answer.status_code < 300, answer.text
        self.tokens[called] = str(answer.json()["secret"])
        return str(answer.json()["token"]["id"])

    def needles(self) -> Iterator[tuple[str, str]]:
        """(what, text) of everything that must not be found."""
        for name, token in self.tokens.items():
            parts = parse(token)
            assert parts is not None
            yield name, parts.secret
            yield f"{name} in base64", base64.b64encode(parts.secret.encode()).decode().rstrip("=")
        key = cursor_key(self.service.services.cursors)
        yield "the cursors' key in hex", key.hex()
        yield "the cursors' key in base64", base64.b64encode(key).decode().rstrip("=")
        yield "the cursors' key", repr(key)[2:-1]

    def search(self, places: Iterable[tuple[str, str]]) -> None:
        """Fail with the places that hold a secret; the secret itself is not told."""
        needles = list(self.needles())
        found = {f"{what} in {place}" for place, text in places for what, needle in needles if needle in text}
        assert not found


def cursor_key(cursors: Any) -> bytes:
    """The key that seals cursors."""
    [key] = [value for value in vars(cursors).values() if isinstance(value, bytes)]
    return key


@pytest.fixture
async def house(fresh_url: str) -> AsyncIterator[House]:
    """A house with a token of every role and kind."""
    with logging_all() as log:
        async with serving(fresh_url) as service:
            found = House(service, log)
            await found.service.client(service.admin).post("/v1/tenants", json={"id": "acme"})
            await found.mint("owner", "bootstrap", tenant_id="acme", role="owner", name="owner")
            for role in ROLES[1:]:
                await found.mint(role, "owner", role=role, name=role)
            for role in ("admin", "scheduler"):
                await found.mint(role, "bootstrap", role=role, name=role)
            await found.mint("keyed", "owner", role="viewer", name="keyed", headers={"idempotency-key": "mint"})
            old = await found.mint("rotated", "owner", role="viewer", name="rotated")
            await found.mint("successor", "owner", f"/v1/tokens/{old}/rotate", grace_seconds=60)
            gone = await found.mint("revoked", "owner", role="viewer", name="revoked")
            await found.service.client(found.tokens["owner"]).delete(f"/v1/tokens/{gone}")
            yield found


def path_of(endpoint: Any, part: str) -> str:
    """The endpoint's path, every part of it `part`."""
    return re.sub(r"\{\w+\}", part, endpoint.path.replace("{sequence}", "1"))


def misuses(endpoint: Any, token: str) -> Iterator[tuple[str, Any]]:
    """(path, what else) of requests that show a token where it does not belong."""
    plain = path_of(endpoint, "none")
    for header in (
        token,
        f"Basic {token}",
        f"Bearer  {token}",
        f"Bearer {token}x",
        f"Bearer {token[:-1]}",
        f"Bearer x{token}",
    ):
        yield plain, {"headers": {"authorization": header}}
    yield plain, {"headers": [("authorization", f"Bearer {token}"), ("authorization", f"Bearer {token}")]}
    for name in ("x-request-id", "holdfast-tenant", "holdfast-reason", "idempotency-key", "last-event-id", "if-match"):
        yield plain, {"headers": {name: token, "authorization": f"Bearer {token}"}}
    yield plain, {"headers": {"content-type": token}, "content": b"{}"}
    yield plain, {"headers": {"content-type": "application/json", "content-length": token}, "content": b"{}"}
    yield plain, {"headers": {"cookie": f"token={token}"}}
    yield path_of(endpoint, token), {}
    yield f"/{token}", {}
    yield f"{plain}/{token}", {}
    for name in ("token", token, *(query.name for query in endpoint.query)):
        yield plain, {"params": {name: token}}
    yield plain, {"json": token}
    yield plain, {"json": {token: token}}
    yield plain, {"json": [{token: token}]}
    for name in getattr(endpoint.body, "__struct_fields__", ()):
        yield plain, {"json": {name: token, "no_such_field": token}}
        yield plain, {"json": {name: [token]}}
    yield plain, {"content": f'{{"{token}'.encode(), "headers": {"content-type": "application/json"}}


async def test_no_answer_and_no_line_of_the_log_holds_a_secret_that_was_shown_in_the_wrong_place(house: House) -> None:
    tokens = itertools.cycle(house.tokens.values())
    for endpoint in ENDPOINTS:
        if endpoint.operation in LOSES or endpoint.operation in ENDLESS:
            continue
        for path, more in misuses(endpoint, next(tokens)):
            given = dict(more.get("headers", {})).get("authorization")
            await house.ask(endpoint.method, path, None if given else house.tokens["owner"], **more)
    refusals = [(place, text) for place, text in house.heard if '"code":"' in text]
    assert len(refusals) > 1_200  # the others took the token for data, as any text: a name, a payload
    house.search(refusals)
    house.search([("the log", house.log.getvalue())])


async def test_nothing_that_tokens_were_used_for_shows_them(house: House) -> None:
    for token in house.tokens.values():
        for endpoint in ENDPOINTS:
            if endpoint.operation not in LOSES | ENDLESS and endpoint.method == "GET":
                await house.ask("GET", path_of(endpoint, "none"), token)
    for path in ("/v1/tokens", "/v1/audit", "/v1/events", "/v1/tenants/acme", "/v1/audit:export", "/v1/audit:verify"):
        for name in ("owner", "bootstrap"):
            await house.ask("GET", path, house.tokens[name])
    assert "keyed" in house.heard[-1][1] or any("keyed" in text for _, text in house.heard)
    house.search(house.heard)
    house.search([("the log", house.log.getvalue())])


@pytest.mark.parametrize("error", [Unavailable, OutcomeUnknown, StoreError, RuntimeError])
async def test_an_accident_with_a_token_in_hand_shows_it_nowhere(
    error: type[Exception], house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = " ".join(house.tokens.values())

    async def fail(*_args: Any, **_kwargs: Any) -> Any:
        local = everything
        raise error(f"postgresql://u:p@h/d {local}") from ValueError({"token": local.encode()})

    unseen = await house.service.token("acme", "owner")
    house.tokens["unseen"] = unseen
    monkeypatch.setattr(house.service.services.backend, "read", fail)
    monkeypatch.setattr(house.service.services.backend, "write", fail)
    for token in house.tokens.values():
        await house.ask("GET", "/v1/executions", token)
        await house.ask("POST", "/v1/executions", token, json={"workflow_id": "w"})
        await house.ask("POST", "/v1/tokens", token, json={"name": "x", "role": "viewer"})
    logging.getLogger("library").error("failed with %s", house.tokens, exc_info=error(everything))
    monkeypatch.undo()
    house.search(house.heard)
    assert "failed with" in house.log.getvalue()
    house.search([("the log", house.log.getvalue())])


async def test_the_store_holds_no_secret(house: House, fresh_url: str) -> None:
    await house.ask("POST", "/v1/executions", house.tokens["owner"], json={"workflow_id": "findable"})
    rows = [place async for place in stored(fresh_url)]
    assert any("findable" in text for _, text in rows)
    tokens = [(what, needle) for what, needle in house.needles() if "key" not in what or what.startswith("keyed")]
    found = {
        f"{what} in {place}"
        for place, text in rows
        for what, needle in tokens
        if needle in text or needle.encode().hex() in text
    }
    assert not found


async def stored(url: str) -> AsyncIterator[tuple[str, str]]:
    """(place, text) of everything in a store: a SQLite file with its log, or every row of every table."""
    if url.startswith("sqlite"):
        file = Path(url.removeprefix("sqlite:///"))
        for path in file.parent.glob(file.name + "*"):
            yield path.suffix, path.read_bytes().decode("latin-1")
        return
    db = await asyncpg.connect(url)
    try:
        for (table,) in await db.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"):
            for (text,) in await db.fetch(f'SELECT t::text FROM "{table}" t'):
                yield table, text
    finally:
        await db.close()


@pytest.mark.parametrize(
    "words",
    [("config", "show"), ("config", "show", "--format", "json", "--origins"), ("doctor",), ("migrate",),
     ("serve", "--log-level", "debug", "--port", "0"), ("serve", "--port", "x")],
    ids=" ".join,
)  # fmt: skip
def test_no_command_shows_the_databases_password(words: tuple[str, ...], holdfast: Command) -> None:
    by_flag = holdfast(*words, "--database-url", f"postgresql://somebody:{PASSWORD}@127.0.0.1:1/none")
    by_environment = holdfast(
        *words, HOLDFAST__DATABASE_URL=f"postgresql://127.0.0.1:1/none?user=somebody&password={PASSWORD}"
    )
    not_one = holdfast(*words, "--database-url", f"postgres:/somebody:{PASSWORD}@127.0.0.1:x/none")
    for done in (by_flag, by_environment, not_one):
        assert done.stdout + done.stderr
        assert PASSWORD not in done.stdout + done.stderr


def test_no_public_operation_is_left_out_of_the_search() -> None:
    left_out = {endpoint.operation for endpoint in ENDPOINTS} & (LOSES | ENDLESS)
    assert left_out == LOSES | ENDLESS
    assert [endpoint for endpoint in ENDPOINTS if endpoint.permit == PUBLIC]
