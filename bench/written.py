"""How many bytes of log a store wrote: SQLite's WAL file, Postgres' place in its WAL."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import apsw
import asyncpg

Meter = Callable[[], Awaitable[int]]
"""Bytes written since it was last asked."""


def of_sqlite(path: Path) -> Meter:
    """For a file whose server is idle whenever the meter is asked: it empties the WAL."""
    log = path.with_name(path.name + "-wal")

    async def meter() -> int:
        size = log.stat().st_size if log.exists() else 0
        db = apsw.Connection(str(path))
        try:
            busy = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        finally:
            db.close()
        if busy:
            raise RuntimeError("the WAL cannot be emptied: somebody reads or writes")
        return size

    return meter


def of_postgres(url: str) -> Meter:
    """For a server that nobody else uses: the WAL is the whole server's."""
    last = 0

    async def meter() -> int:
        nonlocal last
        db = await asyncpg.connect(url)
        try:
            before, last = last, int(await db.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))
        finally:
            await db.close()
        return last - before

    return meter


def of(url: str) -> Meter:
    """The meter of a store."""
    prefix = "sqlite:///"
    return of_sqlite(Path(url.removeprefix(prefix))) if url.startswith(prefix) else of_postgres(url)
