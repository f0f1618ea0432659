"""Being told to end: SIGINT, SIGTERM and SIGHUP are one, for a server that serves and for one that still starts."""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from backends.migrate import ADVISORY_LOCK
from service.cli.dev import dev
from service.cli.ended import retire
from service.cli.scheduler import scheduler
from service.cli.serve import serve
from tests.cli.conftest import SECONDS, Command, Running, start
from tests.cli.test_dev import stores
from tests.conftest import new_database

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
each = pytest.mark.parametrize("told", SIGNALS, ids=lambda one: one.name)
WAITING = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = $1"
HELD = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = $1"
OID = "SELECT oid FROM pg_database WHERE datname = current_database()"


@contextlib.contextmanager
def begun(folder: Path, *words: str) -> Iterator[Running]:
    """A process that nobody waits for yet."""
    found = Running(folder, *words)
    try:
        yield found
    finally:
        if found.process.poll() is None:
            found.process.kill()
            found.process.wait(SECONDS)


def ended(process: Running, told: signal.Signals) -> tuple[int, str, str]:
    """The exit code of a process that is told, and all that it said."""
    process.process.send_signal(told)
    code = process.process.wait(SECONDS)
    return code, process.said, process.logged


@each
def test_a_server_drains_whichever_way_it_is_told(tmp_path: Path, told: signal.Signals) -> None:
    with start(tmp_path, "serve", "--sweep", "false") as server, contextlib.closing(server.connect()) as polling:
        [admin] = server.tokens
        owner = server.ask(admin, "POST", "/v1/tokens", {"name": "o", "role": "owner", "tenant_id": "default"})[1]
        told_of = {"authorization": f"Bearer {owner['secret']}", "content-type": "application/json"}
        claim = '{"worker_id":"w","queues":["q"],"wait_ms":60000}'
        polling.request("POST", "/v1/work-items:claim", claim, told_of)
        code, _, logged = ended(server, told)
        assert polling.getresponse().read() == b'{"items":[]}'
        assert (code, logged) == (0, "")


@each
def test_a_trial_is_gone_whichever_way_it_is_told_to_end(tmp_path: Path, told: signal.Signals) -> None:
    with start(tmp_path, "dev") as server:
        assert len(stores(tmp_path)) == 1
        code, said, _ = ended(server, told)
        assert (code, said.splitlines()[-1]) == (0, "Stopped; everything is gone.")
    assert stores(tmp_path) == []


@pytest.mark.parametrize("command", [serve, scheduler, dev])
def test_who_is_told_while_it_loads_ends_in_order(command: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    heeded = []

    class Loading:
        def __getattr__(self, name: str) -> None:
            heeded.append(signal.getsignal(signal.SIGTERM))
            raise LookupError(name)

    monkeypatch.setitem(sys.modules, "service.logging", Loading())
    with pytest.raises(LookupError):
        command()
    assert set(heeded) == {retire}


@each
@pytest.mark.parametrize("command", ["serve", "scheduler"])
def test_who_waits_for_the_database_is_told_to_end_in_order(tmp_path: Path, command: str, told: signal.Signals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(SECONDS)
        url = f"postgresql://me@127.0.0.1:{silent.getsockname()[1]}/db"
        with begun(tmp_path, command, "--database-url", url) as starting, silent.accept()[0]:
            assert ended(starting, told) == (0, "", "")


@each
async def test_who_waits_to_migrate_is_told_to_end_and_leaves_no_lock(
    postgres_server: str, tmp_path: Path, holdfast: Command, told: signal.Signals
) -> None:
    url = await new_database(postgres_server)
    async with other_migrator(url) as (db, oid):
        with begun(tmp_path, "serve", "--database-url", url) as starting:
            async with asyncio.timeout(SECONDS):
                while not await db.fetch(WAITING, oid):
                    await asyncio.sleep(0.01)
            assert await asyncio.to_thread(ended, starting, told) == (0, "", "")
        async with asyncio.timeout(SECONDS):
            while await db.fetchval(HELD, oid) != 1:
                await asyncio.sleep(0.01)
    done = await asyncio.to_thread(holdfast, "migrate", "--database-url", url)
    assert done.returncode == 0, done.stderr


@contextlib.asynccontextmanager
async def other_migrator(url: str) -> AsyncIterator[tuple[asyncpg.Connection, int]]:
    """A session that migrates as long as the block takes, and the number of its database."""
    db = await asyncpg.connect(url)
    try:
        await db.execute("SELECT pg_advisory_lock($1)", ADVISORY_LOCK)
        yield db, await db.fetchval(OID)
    finally:
        await db.close()
