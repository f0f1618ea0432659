"""Transactions that are begun before anybody asks for one: as a write ends, the next begins on its connection while the
callers get their answers. Whoever writes next finds one begun.

A transaction that has done nothing yet holds no lock and no snapshot, so it is in nobody's way. One that nobody has
taken for a second or two is ended.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from backends.postgres_connections import Connections, drop, is_open, refuse_misuse


class Begun(NamedTuple):
    """A connection on which a transaction begins that acts under `scope`, and the task that begins it."""

    db: Any
    scope: str
    task: asyncio.Task[None]


def ahead_of(lanes: int, connections: int) -> int:
    """How many may be begun ahead: one for each lane, but most of the connections are for who reads."""
    return min(lanes, connections // 4)


class Ahead:
    """Transactions to write in, begun as `how` says, at most `most` of them ahead."""

    def __init__(self, connections: Connections, how: str, most: int) -> None:
        self._connections, self._how, self._most = connections, how, most
        self._begun: list[Begun] = []
        self._seen: list[Begun] = []

    @contextlib.asynccontextmanager
    async def transaction(self, scope: str) -> AsyncIterator[Any]:
        """A connection in a transaction that acts under `scope`. Who ends it leaves the connection to the next."""
        begun = await self._take()
        db, failed = begun.db if begun else await self._connections.take(), None
        try:
            if begun is None:
                await self._begin(db, scope)
            elif begun.scope != scope:
                await db.execute(scope)
            yield db
        except BaseException as error:
            failed = error
            refuse_misuse(error, db)
            raise
        finally:
            if failed is None and len(self._begun) < self._most:
                self._begun.append(Begun(db, scope, asyncio.create_task(self._begin(db, scope))))
            else:
                await self._connections.give_back(db, failed)

    async def _begin(self, db: Any, scope: str) -> None:
        """Begin a transaction, in one message."""
        await self._connections.plan_anew(db)
        await db.execute(f"BEGIN{self._how}; {scope}")

    async def _take(self) -> Begun | None:
        """One that is begun and well; the last one, so that it is the first to stay away when fewer are needed."""
        while self._begun:
            begun = self._begun.pop()
            if not begun.task.done():
                try:
                    await asyncio.wait([begun.task])
                except asyncio.CancelledError:
                    self._begun.append(begun)
                    raise
            if begun.task.exception() is None and is_open(begun.db):
                return begun
            await self._part_with(begun)  # nothing was done in it: the next one may do better
        return None

    async def retire(self) -> None:
        """End those that were there the last time as well."""
        for begun in self._seen:
            if begun in self._begun:
                self._begun.remove(begun)
                await self._part_with(begun)
        self._seen = list(self._begun)

    async def forget(self) -> None:
        """Close the connections of all that are begun: they may be lost, though nobody has noticed."""
        while self._begun:
            begun = self._begun.pop()
            drop(begun.db)
            await self._part_with(begun)

    async def close(self) -> None:
        """End all of them, and begin none any more."""
        self._most = 0
        while self._begun:
            await self._part_with(self._begun.pop())

    async def _part_with(self, begun: Begun) -> None:
        [error] = await asyncio.gather(begun.task, return_exceptions=True)
        await self._connections.give_back(begun.db, error)
