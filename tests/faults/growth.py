"""What must not grow: a server's memory and handles, its store's rows and bytes, sampled and fitted to a line."""

import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg

from backends.sqlite_file import open_to_read
from bench import machine

FOR_EVER = frozenset({"audit", "audit_checkpoints", "jobs", "schema_migrations"})
"""Tables that are meant to grow: what was done to tenants is never forgotten."""


class Sample(NamedTuple):
    """One look: seconds since the start, MiB of memory, open file handles, rows, idempotency keys, MiB stored."""

    at: float
    memory: float
    handles: float
    rows: float
    keys: float
    stored: float


class Tables:
    """A store as its database sees it, past the service."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def names(self) -> list[str]:
        """Every table that must not grow for ever."""
        if self._path is not None:
            found = await self._all("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        else:
            found = await self._all("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return sorted(row[0] for row in found if row[0] not in FOR_EVER)

    async def rows(self, condition: str = "1 = 1") -> dict[str, int]:
        """How many rows each of them has."""
        names = await self.names()
        text = " UNION ALL ".join(f"SELECT '{name}', count(*) FROM {name} WHERE {condition}" for name in names)
        return dict(await self._all(text))

    async def mib(self) -> float:
        """What the store takes on disk, its log beside it."""
        if self._path is not None:
            return sum(file.stat().st_size for file in self._path.parent.glob(self._path.name + "*")) / 2**20
        [[size]] = await self._all("SELECT pg_database_size(current_database())")
        return float(size) / 2**20

    @property
    def _path(self) -> Path | None:
        return Path(self._url.removeprefix("sqlite:///")) if self._url.startswith("sqlite") else None

    async def _all(self, text: str) -> list[tuple[Any, ...]]:
        if self._path is not None:
            db = open_to_read(self._path)
            try:
                return db.execute(text).fetchall()
            finally:
                db.close()
        connection = await asyncpg.connect(self._url)
        try:
            return [tuple(row) for row in await connection.fetch(text)]
        finally:
            await connection.close()


async def look(at: float, pid: int, tables: Tables) -> Sample:
    """A sample of a server and its store."""
    rows = await tables.rows()
    handles = len(os.listdir(f"/proc/{pid}/fd"))
    total, keys = sum(rows.values()), rows["idempotency_keys"]
    return Sample(at, machine.resident_mib(pid), handles, total, keys, await tables.mib())


def growth(samples: Sequence[Sample], what: str) -> float:
    """By how much of its mean a figure grew over the samples, by the line that fits them best. What grows evenly from
    nothing, warm-up left out, gives 1."""
    at, values = [one.at for one in samples], [float(getattr(one, what)) for one in samples]
    slope = statistics.linear_regression(at, values).slope
    return slope * (at[-1] - at[0]) / statistics.fmean(values)


def warm(samples: Sequence[Sample]) -> Sequence[Sample]:
    """The samples without the first third."""
    return samples[len(samples) // 3 :]
