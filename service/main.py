"""The composition root: settings → store → kernel → app → server. The only file that knows everything."""

import asyncio
import contextlib
import gc
import inspect
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import structlog
import uvicorn
from litestar.types import ASGIApp

from backends import connect
from backends.protocol import Row, StateBackend, Tx
from service import capabilities
from service.http.app import build
from service.http.endpoint import Services
from service.kernel.page import Cursors
from service.kernel.principal import SYSTEM
from service.kernel.run import Kernel
from service.kernel.sweeps import Sweeper
from service.kernel.wake import Wakes
from service.logging import set_up
from service.settings import Settings
from service.tokens.directory import Directory
from service.tokens.verify import Parameters, Verifier

log = structlog.get_logger()
Ready = Callable[[Services, int], Any]
"""Told of the services and the port once requests are accepted; when it is a coroutine, it is awaited."""


class CannotListen(Exception):
    """The address of the settings is taken, or is none of this machine's."""


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
    )


async def compose(settings: Settings, backend: StateBackend) -> Services:
    """Everything that endpoints and sweeps work with, over a migrated store."""
    on_postgres = backend.name == "postgres"
    batch_max = settings.postgres_batch_commands_max if on_postgres else settings.batch_commands_max
    kernel = Kernel(
        backend,
        capabilities.schema(),
        capabilities.rules(),
        batch_max=batch_max,
        waiting_max=settings.queue_commands_max,
    )
    wakes = Wakes(backend.want)
    backend.subscribe(wakes.heard)
    parameters = Parameters(settings.argon2_memory_kib, settings.argon2_time)
    verifier = Verifier(parameters, workers=settings.argon2_workers, waiting=settings.argon2_queue_max)
    tokens = Directory(backend, kernel, verifier, settings.failures_per_minute)
    return Services(kernel, backend, wakes, Cursors(await cursor_key(backend)), settings, tokens)


async def cursor_key(backend: StateBackend) -> bytes:
    """The key that seals cursors: made once, kept in the store, so that every process accepts every cursor."""

    async def find(tx: Tx) -> Row | None:
        return await tx.one("load_secret", tenant_id=SYSTEM, name="cursors")

    async def make(tx: Tx) -> None:
        await tx.run("insert_secret", tenant_id=SYSTEM, name="cursors", value=secrets.token_bytes(32))

    if await backend.read(find) is None:
        await backend.write(make)
    row = await backend.read(find)
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
        await (backend.migrate() if migrate else backend.check())
        services = await compose(settings, backend)
        sweeper = Sweeper(backend, services, list(capabilities.parts("sweeps", "SWEEPS")), settings.sweep_interval_ms)
        if settings.sweep:
            sweeper.start()
        try:
            yield services
        finally:
            await sweeper.close()
            await services.kernel.close()
            services.tokens.verifier.close()
    finally:
        await backend.close()


def application(services: Services) -> ASGIApp:
    """The ASGI application over composed services."""
    return build(services, capabilities.endpoints())


class Server(uvicorn.Server):
    """uvicorn, which on its way out first sends long polls home: draining takes no longer than the work in hand.

    A signal that it obeyed is not raised again afterwards: the store is closed in peace and the exit code is 0.
    """

    def __init__(self, config: uvicorn.Config, services: Services, ready: Ready | None) -> None:
        super().__init__(config)
        self._services, self._ready = services, ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            yield
            self._captured_signals.clear()

    async def startup(self, sockets: Any = None) -> None:
        with quiet("uvicorn.error"):  # it would log the failure as well, and exit
            try:
                await super().startup(sockets)
            except SystemExit:
                raise CannotListen(f"{self.config.host} port {self.config.port}") from None
        if self._ready is not None and self.servers:
            told = self._ready(self._services, self.servers[0].sockets[0].getsockname()[1])
            if inspect.isawaitable(told):
                await told

    async def shutdown(self, sockets: Any = None) -> None:
        self._services.wakes.close()
        await super().shutdown(sockets)


@contextlib.contextmanager
def quiet(name: str) -> Iterator[None]:
    """Nothing is logged under `name` meanwhile."""
    logger = logging.getLogger(name)
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = False


async def serve(settings: Settings, ready: Ready | None = None) -> None:
    """Serve until told to stop. Raises `CannotListen`."""
    async with running(settings) as services:
        config = uvicorn.Config(
            application(services), host=settings.host, port=settings.port, loop="none", http="httptools",
            lifespan="off", access_log=False, log_config=None, proxy_headers=False, server_header=False,
            date_header=True, timeout_keep_alive=75, timeout_graceful_shutdown=settings.drain_seconds,
            h11_max_incomplete_event_size=32_768, backlog=4096,
        )  # fmt: skip
        await Server(config, services, ready).serve()


def run(settings: Settings, ready: Ready | None = None) -> None:
    """`serve` on uvloop, in this thread, until SIGINT or SIGTERM."""
    import uvloop

    set_up(settings.log_level, settings.log_format)
    gc.collect()
    gc.freeze()  # what was built at start-up lives as long as the process: no collection need look at it again
    gc.set_threshold(20_000, 20, 50)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings, ready))
