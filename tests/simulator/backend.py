"""The seam over the double: what a process of the service holds of the database."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from backends.errors import Conflict
from backends.postgres import apart
from backends.protocol import EVERY, Heard, Read, Row, StateBackend, Tenants, Tx, Where, Work, Write
from backends.statements import load
from tests.simulator.database import Database, Race, Transaction, Waiting

T = TypeVar("T")
ALL_OF_THEM = "1 = 1"
ATTEMPTS = 8
"""How often a transaction that lost a race is tried, as `backends.postgres` has it."""


class SimulatedTx:
    """A transaction over one connection: each statement suspends until the database has done it."""

    def __init__(self, database: Database, owner: str, now: int, loop: asyncio.AbstractEventLoop) -> None:
        self.now, self._database, self._loop = now, database, loop
        self.inside = database.begin(owner, self._told)
        self._answer: asyncio.Future[Any] | None = None
        self.channels: Counter[str] = Counter()

    def _told(self, result: Any, error: Exception | None) -> None:
        assert self._answer is not None
        if error is None:
            self._answer.set_result(result)
        else:
            self._answer.set_exception(error)

    def ask(self, op: Waiting, said: str) -> asyncio.Future[Any]:
        """Send a statement; its answer."""
        self._answer = self._loop.create_future()
        self._database.ask(self.inside, op, said)
        return self._answer

    def _statement(self, name: str, rows: Sequence[Any], params: Any, where: str = ALL_OF_THEM) -> asyncio.Future[Any]:
        plans = self._database.plan(name, where)
        said = "" if self._database.say is None else f"{name} {list(rows) or params or ''}"[:200]
        return self.ask(self.inside.statement(plans, [tuple(row) for row in rows], params), said)

    async def one(self, statement: str, /, **params: Any) -> Row | None:
        found = await self._statement(statement, (), params)
        return found[0] if found else None

    async def all(
        self, statement: str, /, rows: Sequence[Sequence[Any]] | None = None, where: Where | None = None, **params: Any
    ) -> list[Row]:
        if rows is not None and not rows:
            return []
        if where is not None:
            return list(await self._statement(statement, rows or (), params | dict(where[1]), where[0]))
        return list(await self._statement(statement, rows or (), params))

    async def load(self, reads: Sequence[Read], /) -> list[list[Row]]:
        parts = [(self._database.plan(name, ALL_OF_THEM), [tuple(row) for row in rows]) for name, rows in reads]
        said = "" if self._database.say is None else " + ".join(f"{name} {list(rows)}"[:200] for name, rows in reads)
        return [*await self.ask(self.inside.gathered(parts), said)]

    async def run(self, statement: str, /, **params: Any) -> int:
        return int(await self._statement(statement, (), params))

    async def many(self, statement: str, rows: Sequence[Sequence[Any]], /) -> int:
        return int(await self._statement(statement, rows, {})) if rows else 0

    async def save(self, writes: Sequence[Write], /) -> list[int]:
        counts: list[int] = []
        for group in apart(load("postgres"), writes):
            parts = [(self._database.plan(name, ALL_OF_THEM)[0], [tuple(row) for row in rows]) for name, rows in group]
            said = "" if self._database.say is None else " + ".join(f"{name} {len(rows)}" for name, rows in group)
            counts += await self.ask(self.inside.together(parts), said)
        return counts

    def wake(self, channel: str) -> None:
        self.channels[channel] += 1


class SimulatedBackend:
    """One process's way to the database; it behaves as `backends.postgres` does when a statement fails."""

    name = "postgres"
    serial = False

    def __init__(
        self, database: Database, owner: str, lanes: int, clock: Callable[[], int], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._database, self._owner, self.lanes, self._clock, self._loop = database, owner, lanes, clock, loop
        self._heard: list[Heard] = []

    def now(self) -> int:
        return self._clock()

    def _begin(self) -> SimulatedTx:
        return SimulatedTx(self._database, self._owner, self.now(), self._loop)

    async def write(self, work: Work[T], *, tenants: Tenants = EVERY, lock_ms: int | None = None) -> T:
        for _ in range(ATTEMPTS):
            tx = self._begin()
            try:
                result = await work(tx)
                await self._commit(tx)
                for channel, count in tx.channels.items():
                    for heard in self._heard:
                        heard(channel, count)
                return result
            except Race:
                continue
            except Exception:
                await self._rollback(tx)
                raise
        raise Conflict("the transaction lost every race it entered")

    async def _commit(self, tx: SimulatedTx) -> None:
        tx.inside.committing = True
        await tx.ask(self._database.commit(tx.inside), "COMMIT")

    async def _rollback(self, tx: SimulatedTx) -> None:
        inside: Transaction = tx.inside
        if not (inside.over or inside.orphan):
            await tx.ask(self._database.rollback(inside), "ROLLBACK")

    async def read(self, work: Work[T], *, tenants: Tenants = EVERY, scan: bool = False) -> T:
        tx = self._begin()
        try:
            return await work(tx)
        finally:
            self._database.undo(tx.inside)

    def subscribe(self, heard: Heard) -> None:
        """Only who waits in the same process is told: what others hear is a hint, and may be lost."""
        self._heard.append(heard)

    def want(self, topics: frozenset[str]) -> None: ...

    async def migrate(self) -> int:
        return 0

    async def check(self) -> None: ...

    async def ping(self) -> None: ...

    async def close(self) -> None: ...


def is_a_backend(found: SimulatedBackend) -> StateBackend:
    """For the type checker: the double has everything that the seam asks for."""
    return found


def is_a_transaction(found: SimulatedTx) -> Tx:
    """The same for a transaction."""
    return found
