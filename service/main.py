"""The composition root: settings → store → kernel → app → server. The only file that knows everything."""

import asyncio
import contextlib
import gc
import inspect
import logging
import resource
import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import msgspec
import structlog
import uvicorn
from litestar.types import ASGIApp

from backends import connect, sqlite_path
from backends.backup import back_up
from backends.errors import of_the_system
from backends.protocol import Row, StateBackend, Tx
from service import capabilities
from service.ending import Ending
from service.http.app import build
from service.http.endpoint import Services
from service.http.server import REFUSED_MAX, Connection, Limits, State
from service.kernel.page import Cursors
from service.kernel.principal import SYSTEM
from service.kernel.rate import Limiter, Rates
from service.kernel.run import Kernel
from service.kernel.slices import SharedRates
from service.kernel.sweeps import Sweeper
from service.kernel.turns import Turns
from service.kernel.wake import Wakes
from service.logging import set_up
from service.settings import Settings
from service.tokens.directory import Directory
from service.tokens.sources import Sources, networks
from service.tokens.verify import Parameters, Verifier
from service.work.throughput import Throughput

log = structlog.get_logger()
Ready = Callable[[Services, int], Any]
"""Told of the services and the port once requests are accepted; when it is a coroutine, it is awaited."""

OWN_FILES = REFUSED_MAX + 256
"""Files beside connections that are served: connections that are refused, and what a store and requests open."""
DAY_SECONDS = 86_400.0
STRICT = ("strict-transport-security", "max-age=31536000")


class CannotListen(Exception):
    """The address of the settings cannot be listened on: it is taken, not allowed, none of this machine's; says why."""


class BadCertificate(Exception):
    """The certificate and key of the settings cannot be used; says why."""


async def open_store(settings: Settings, clock: Callable[[], int] | None = None) -> StateBackend:
    """The store that the settings name, whatever state its schema is in."""
    return await connect(
        settings.database_url,
        synchronous=settings.sqlite_synchronous,
        lock=settings.sqlite_path_lock,
        clock=clock,
        connections=settings.postgres_connections_max,
        lanes=settings.postgres_batches_in_flight,
        pooler=settings.postgres_pooler,
        roles=None if settings.postgres_unfenced else (settings.postgres_app_role, settings.postgres_sweep_role),
        lock_ms=settings.postgres_lock_ms_max,
    )


def copy_store(settings: Settings, target: Path) -> int:
    """Copy a SQLite store, served or not, to the new file `target`; its size in bytes."""
    return back_up(sqlite_path(settings.database_url), target)


async def compose(settings: Settings, backend: StateBackend) -> Services:
    """Everything that endpoints and sweeps work with, over a migrated store."""
    on_postgres = backend.name == "postgres"
    backend.scan_seconds = settings.scan_seconds_max or None
    batch_max = settings.postgres_batch_commands_max if on_postgres else settings.batch_commands_max
    kernel = Kernel(
        backend,
        capabilities.schema(),
        capabilities.rules(),
        batch_max=batch_max,
        waiting_max=settings.queue_commands_max,
    )
    wakes = Wakes(backend.want, settings.parked_max)
    backend.subscribe(wakes.heard)
    kernel.wakes = wakes
    parameters = Parameters(settings.argon2_memory_kib, settings.argon2_time)
    verifier = Verifier(parameters, workers=settings.argon2_workers, waiting=settings.argon2_queue_max)
    sources = Sources(networks(settings.trusted_proxies), settings.failures_per_minute)
    rates: Limiter = SharedRates(backend) if on_postgres and settings.rates == "shared" else Rates()
    tokens = Directory(backend, kernel, verifier, sources, rates, settings.token_warning_days)
    scans = Turns(backend.scan_lanes)
    throughput = Throughput(backend)
    kernel.meter = throughput.note
    return Services(kernel, backend, wakes, Cursors(await cursor_key(backend)), settings, scans, tokens, throughput)


async def cursor_key(backend: StateBackend) -> bytes:
    """The key that seals cursors: made once, kept in the store, so that every process accepts every cursor."""

    async def find(tx: Tx) -> Row | None:
        return await tx.one("load_secret", tenant_id=SYSTEM, name="cursors")

    async def make(tx: Tx) -> None:
        await tx.run("insert_secret", tenant_id=SYSTEM, name="cursors", value=secrets.token_bytes(32))

    if await backend.read(find, tenants=[SYSTEM]) is None:
        await backend.write(make, tenants=[SYSTEM])
    row = await backend.read(find, tenants=[SYSTEM])
    assert row is not None
    return bytes(row[0])


@contextlib.asynccontextmanager
async def running(
    settings: Settings, clock: Callable[[], int] | None = None, *, migrate: bool = True
) -> AsyncIterator[Services]:
    """A composed service over its store, sweeping if the settings say so; closed at the end.

    Without `migrate` the schema must fit already.
    """
    backend = await open_store(settings, clock)
    try:
        if migrate:
            await backend.migrate()
        await backend.check()
        services = await compose(settings, backend)
        sweeps = list(capabilities.parts("sweeps", "SWEEPS"))
        sweeper = Sweeper(backend, services, sweeps, settings.sweep_interval_ms, settings.sweep_lease_ms)
        services.lease = sweeper.lease
        if settings.sweep:
            sweeper.start()
        try:
            yield services
        finally:
            await sweeper.close()
            await services.tokens.close()
            await services.kernel.close()
            await services.throughput.close()
    finally:
        await backend.close()


def application(services: Services) -> ASGIApp:
    """The ASGI application over composed services."""
    return build(services, capabilities.endpoints())


class Server(uvicorn.Server):
    """uvicorn, which watches its connections, and on its way out sends long polls home: a drain takes no longer than
    the work in hand. For `drain_delay_seconds` before that, balancers are told, and all else goes on.

    It is told by `told`: signals are heeded from before it begins until after the store is closed.
    """

    server_state: State

    def __init__(self, config: uvicorn.Config, services: Services, ready: Ready | None) -> None:
        super().__init__(config)
        self._services, self._ready = services, ready
        services.introduced = asyncio.Event()
        self.server_state = State(limits(services.settings))

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """They are heeded already."""
        yield

    def told(self, number: int) -> None:
        """Drain; told by a second Ctrl-C, wait for nobody."""
        self.handle_exit(number, None)

    async def startup(self, sockets: Any = None) -> None:
        with quiet("uvicorn.error"), patient(self.server_state.limits):  # it would log the failure as well, and exit
            try:
                await super().startup(sockets)
            except SystemExit as ended:  # uvicorn's way to say what the system said
                why = of_the_system(ended.__context__) or "it cannot be used"
                raise CannotListen(f"{self.config.host} port {self.config.port} ({why})") from None
            except UnicodeError:  # of looking a name up that breaks the rules of names
                raise CannotListen(f"{self.config.host!r} (it cannot be the name of a host)") from None
        self._watching = asyncio.create_task(self.server_state.watch())
        if self._ready is not None and self.servers:
            told = self._ready(self._services, self.servers[0].sockets[0].getsockname()[1])
            if inspect.isawaitable(told):
                await told
        introduced = self._services.introduced
        assert introduced is not None
        introduced.set()

    async def shutdown(self, sockets: Any = None) -> None:
        self._services.draining = True
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        ticks = 10 * self._services.settings.drain_delay_seconds
        while ticks and not self.force_exit:
            await asyncio.sleep(0.1)
            ticks -= 1
        self._services.wakes.close()
        await super().shutdown(sockets)
        self._watching.cancel()


def limits(settings: Settings) -> Limits:
    """What a connection may take, as the settings say."""
    return Limits(
        settings.head_seconds_max, settings.body_seconds_max, settings.idle_seconds_max, settings.body_bytes_max,
        settings.connections_max,
    )  # fmt: skip


def certificate(settings: Settings) -> ssl.SSLContext | None:
    """TLS 1.2 or newer with the certificate of the settings, or None for plain HTTP. Raises `BadCertificate`."""
    if not settings.tls_certificate_file:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.tls_certificate_file, settings.tls_key_file, password="")
    except OSError as error:
        files = f"{settings.tls_certificate_file} and {settings.tls_key_file}"
        raise BadCertificate(f"{files}: {error.strerror or error}") from None
    return context


def with_files(settings: Settings) -> Settings:
    """Let the process have as many files open as `connections_max` needs, and some of its own. Where the system will
    not, that is said, and there are as many connections as leave it some: without any, requests fail."""
    own, (soft, hard) = OWN_FILES + settings.postgres_connections_max, resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = settings.connections_max + own
    able = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < able:
        resource.setrlimit(resource.RLIMIT_NOFILE, (able, hard))
    if able == needed:
        return settings
    fewer = max(able - own, able // 4)
    log.warning("fewer files may be open than connections_max needs", files=able, needed=needed, connections=fewer)
    return msgspec.structs.replace(settings, connections_max=fewer)


@contextlib.contextmanager
def patient(limits: Limits) -> Iterator[None]:
    """Servers that are made meanwhile give a TLS handshake as long as a head, and leave it to a look at the connection
    how long its end may take. uvicorn hands on neither; of itself the loop gives a minute, and half of one in which all
    that is unsent must be taken."""
    loop: Any = asyncio.get_running_loop()
    tls = {"ssl_handshake_timeout": limits.head_seconds, "ssl_shutdown_timeout": DAY_SECONDS}

    def create(*args: Any, ssl: Any = None, **more: Any) -> Any:
        return type(loop).create_server(loop, *args, ssl=ssl, **(tls if ssl else {}), **more)

    loop.create_server = create
    try:
        yield
    finally:
        del loop.create_server


@contextlib.contextmanager
def quiet(name: str) -> Iterator[None]:
    """Nothing is logged under `name` meanwhile."""
    logger = logging.getLogger(name)
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = False


async def serve(settings: Settings, ending: Ending, ready: Ready | None = None) -> None:
    """Serve until told to end. Raises `CannotListen`, `BadCertificate`."""
    context = certificate(settings)
    async with running(settings) as services:
        config = uvicorn.Config(
            application(services), host=settings.host, port=settings.port, loop="none", http=Connection, ws="none",
            lifespan="off", access_log=False, log_config=None, proxy_headers=False, server_header=False,
            date_header=True, timeout_graceful_shutdown=settings.drain_seconds, backlog=4096,
            headers=[] if context is None else [STRICT],
        )  # fmt: skip
        config.load()
        config.ssl = context
        gc.freeze()  # what was built so far lives as long as the process: no collection need look at it again
        server = Server(config, services, ready)
        ending.by = server.told
        await server.serve()


async def schedule(settings: Settings, ending: Ending, ready: Callable[[Services], None] | None = None) -> None:
    """Sweep until told to end, whatever `sweep` says of servers, and serve nobody."""
    told = asyncio.Event()
    async with running(msgspec.structs.replace(settings, sweep=True)) as services:
        ending.by = lambda _: told.set()
        gc.freeze()
        if ready is not None:
            ready(services)
        await told.wait()


def run(settings: Settings, ready: Ready | None = None) -> None:
    """`serve` on uvloop, in this thread, until SIGINT, SIGTERM or SIGHUP."""
    set_up(settings.log_level, settings.log_format)
    run_to_end(lambda ending: serve(with_files(settings), ending, ready))


def run_scheduler(settings: Settings, ready: Callable[[Services], None] | None = None) -> None:
    """`schedule` on uvloop, in this thread, until SIGINT, SIGTERM or SIGHUP."""
    set_up(settings.log_level, settings.log_format)
    run_to_end(lambda ending: schedule(settings, ending, ready))


def run_to_end(work: Callable[[Ending], Coroutine[Any, Any, None]]) -> None:
    """Run what a process is there for."""
    import uvloop

    gc.set_threshold(20_000, 20, 50)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, Ending(runner.get_loop()).heeded() as ending:
        runner.run(ending.of(work(ending)))
