"""Sockets and nothing else: what the server does with bytes, on a process of its own."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.conftest import new_store
from tests.races.server import Server, http, new_tenant, prepared, serving_process

PATIENCE = 60.0
HEALTH = b"GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n"
LAST = b"GET /healthz HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n"


class Reply(NamedTuple):
    """One answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> Any:
        """The code of a problem document, which must be whole; None for any other answer."""
        if self.headers.get("content-type") != "application/problem+json":
            return None
        problem = json.loads(self.body)
        assert (problem["status"], problem["type"]) == (self.status, f"/problems/{problem['code']}")
        assert problem["request_id"] == self.headers["x-request-id"]
        return problem["code"]


def replies(text: bytes) -> Iterator[Reply]:
    """The answers in what a connection said; each has a length."""
    while text:
        head, _, text = text.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        length = int(headers.get("content-length", 0))
        yield Reply(int(first.split()[1]), headers, text[:length])
        text = text[length:]


class Wire:
    """A connection to a server, as bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, *parts: bytes) -> "Wire":
        """Send these, one after another; a server that no longer listens is no error."""
        with contextlib.suppress(ConnectionError):
            for part in parts:
                self.writer.write(part)
                await self.writer.drain()
        return self

    async def to_end(self) -> list[Reply]:
        """Every answer until the server closes."""
        async with asyncio.timeout(PATIENCE):
            return list(replies(await self.reader.read()))

    async def head(self) -> bytes:
        """What comes up to the end of a head."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


@contextlib.asynccontextmanager
async def wire(port: int) -> AsyncIterator[Wire]:
    """A connection, closed at the end."""
    found = Wire(*await asyncio.open_connection("127.0.0.1", port))
    try:
        yield found
    finally:
        await found.close()


async def said(port: int, *parts: bytes) -> list[Reply]:
    """What a server answers to these bytes until it closes."""
    async with wire(port) as found:
        return await (await found.send(*parts)).to_end()


def request(method: str, path: str, token: str, body: bytes = b"", *lines: str, length: int | None = None) -> bytes:
    """A request as bytes."""
    head = [f"{method} {path} HTTP/1.1", "host: h", f"authorization: Bearer {token}", "content-type: application/json"]
    head += [f"content-length: {len(body) if length is None else length}", *lines, "", ""]
    return "\r\n".join(head).encode() + body


class Edge(NamedTuple):
    """A running server and an owner's token."""

    server: Server
    owner: str

    @property
    def port(self) -> int:
        return self.server.port


@contextlib.asynccontextmanager
async def edge_over(url: str, folder: Path, **changes: Any) -> AsyncIterator[Edge]:
    """A server process over a fresh store, with a tenant."""
    admin = await prepared(url)
    async with serving_process(url, folder / "server.log", **changes) as server:
        async with http(server.base, admin) as client:
            owner = await new_tenant(client, "acme")
        yield Edge(server, owner)


@pytest.fixture(scope="session")
async def edge(
    engine: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> AsyncIterator[Edge]:
    """A server with little patience, shared."""
    folder = tmp_path_factory.mktemp(f"edge-{engine}")
    url = f"sqlite:///{folder / 'holdfast.db'}"
    if engine == "postgres":
        url = await new_store(request.getfixturevalue("postgres_server"))
    async with edge_over(url, folder, head_seconds_max=2, body_seconds_max=2, idle_seconds_max=4) as found:
        yield found
