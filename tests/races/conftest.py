"""Two ways in to one store: where two callers can meet."""

import asyncio
import contextlib
import itertools
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import httpx
import pytest

from service.main import running
from service.tokens.bootstrap import bootstrap
from tests.conftest import Clock, Service, new_store, settings_for
from tests.races.server import Server, http, new_tenant, prepared, serving_process

WAYS = ("postgres-services", "postgres-processes", "sqlite-process")
PATIENCE = 30.0
Pass = Callable[[int], Awaitable[None]]
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@contextlib.asynccontextmanager
async def held_up(url: str, row: str, asked: Awaitable[Any]) -> AsyncIterator["asyncio.Future[Any]"]:
    """A request that waits for a row (`executions WHERE id = 'e'`) as long as the `with` lasts: its answer to come."""
    db = await asyncpg.connect(url)
    try:
        async with db.transaction():
            await db.execute(f"SELECT 1 FROM {row} FOR UPDATE")
            waits = asyncio.ensure_future(asked)
            while not await db.fetchval(WAITING):
                await asyncio.sleep(0)
                assert not waits.done(), "it waits for nobody"
            yield waits
    finally:
        await db.close()


class Ways:
    """The doors to one store; `admin` speaks through the first. `wait(ms)` lets the store's time pass; `services` are
    those behind the doors, when they are in this process."""

    def __init__(self, doors: list[Callable[[str], httpx.AsyncClient]], admin: str, wait: Pass) -> None:
        self._doors, self.wait = doors, wait
        self.services: tuple[Any, ...] = ()
        self._clients: list[httpx.AsyncClient] = []
        self.admin = self.client(0, admin)

    def client(self, door: int, token: str) -> httpx.AsyncClient:
        """A client at one of the doors."""
        self._clients.append(self._doors[door](token))
        return self._clients[-1]

    async def tenant(self, **body: Any) -> "Pair":
        """A new tenant, with its owner at both doors."""
        name = f"t-{uuid.uuid4().hex[:12]}"
        owner = await new_tenant(self.admin, name, **body)
        return Pair(self, name, [self.client(door, owner) for door in range(len(self._doors))])

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()


class Pair:
    """One tenant's owner at every door; `next` deals them out in turn."""

    def __init__(self, ways: Ways, tenant: str, clients: list[httpx.AsyncClient]) -> None:
        self.ways, self.tenant, self.clients = ways, tenant, clients
        self._turn = itertools.cycle(clients)

    @property
    def first(self) -> httpx.AsyncClient:
        """The first door."""
        return self.clients[0]

    @property
    def last(self) -> httpx.AsyncClient:
        """The last door; on SQLite there is only one."""
        return self.clients[-1]

    async def ok(self, method: str, path: str, **kwargs: Any) -> Any:
        """The JSON of a request that must succeed, through the next door."""
        answer = await next(self._turn).request(method, path, **kwargs)
        assert answer.status_code < 300, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    async def all(self, method: str, path: str, bodies: list[Any], **kwargs: Any) -> list[httpx.Response]:
        """One request for each body, all at once, dealt out over the doors."""
        sent = [next(self._turn).request(method, path, json=body, **kwargs) for body in bodies]
        return list(await asyncio.gather(*sent))

    async def events(self, execution_id: str) -> list[Any]:
        """The whole log of an execution."""
        out: list[Any] = []
        while True:
            page = await self.ok("GET", f"/v1/executions/{execution_id}/events?limit=1000&after={len(out)}")
            out += page["items"]
            if page["next_after"] is None:
                return out


@contextlib.asynccontextmanager
async def in_one_process(url: str, count: int) -> AsyncIterator[Ways]:
    """So many services in this process, each with its own pool, under one clock."""
    clock = Clock()
    async with contextlib.AsyncExitStack() as stack:
        services = [await stack.enter_async_context(running(settings_for(url), clock)) for _ in range(count)]
        admin = await bootstrap(services[0])
        houses = [Service(one, clock, admin) for one in services]

        async def wait(ms: int) -> None:
            clock.advance(ms)

        ways = Ways([house.client for house in houses], admin, wait)
        ways.services = tuple(services)
        try:
            yield ways
        finally:
            await ways.close()


def two_services(url: str) -> contextlib.AbstractAsyncContextManager[Ways]:
    """Two services in this process."""
    return in_one_process(url, 2)


async def really(ms: int) -> None:
    """A server of its own has a clock of its own."""
    await asyncio.sleep(ms / 1000)


def door(server: Server) -> Callable[[str], httpx.AsyncClient]:
    """The way in to a server process."""
    return lambda token: http(server.base, token)


@pytest.fixture(scope="session", params=WAYS)
async def ways(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ways]:
    """One store and the ways in to it: two services, two server processes, or one server process on SQLite."""
    folder = tmp_path_factory.mktemp(request.param)
    url = f"sqlite:///{folder / 'holdfast.db'}"
    if request.param != "sqlite-process":
        url = await new_store(request.getfixturevalue("postgres_server"))
    if request.param == "postgres-services":
        async with two_services(url) as found:
            yield found
        return
    admin = await prepared(url)
    count = 1 if request.param == "sqlite-process" else 2
    async with contextlib.AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(serving_process(url, folder / f"log{n}")) for n in range(count)]
        found = Ways([door(server) for server in servers], admin, really)
        stack.push_async_callback(found.close)
        yield found


@pytest.fixture
async def pair(ways: Ways) -> Pair:
    """A tenant of the test's own at every door."""
    return await ways.tenant()
