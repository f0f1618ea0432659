"""The connections to Postgres of one process: kept at hand, and mended or closed when something went wrong on them.

asyncpg's pool makes them and bounds their number. Its own taking and giving back costs as much processor as two
statements (measured), so those that are well stay out of it until the process ends.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import asyncpg

from backends.errors import StoreError, Unavailable
from backends.postgres_fence import LEAVE
from backends.postgres_fit import explained

ACQUIRE_SECONDS = 5
PLANS_SECONDS = 1.0
AGAIN_SECONDS = 1.0
"""After Postgres had no connection left, those that we have must do for so long before it is asked for one more."""
ALL_IN_USE = (
    "every connection of this process was in use for too long; see what holds them, or raise postgres_connections_max"
)
LOST = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncio.TimeoutError,
)


NO_MORE = (asyncpg.TooManyConnectionsError, asyncpg.ObjectNotInPrerequisiteStateError)
"""Postgres, or the database, takes no new connection, and leaves us those that we have."""


class Connection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """A connection that knows for whom its session acts."""

    scope = LEAVE

    async def act(self, scope: str) -> None:
        """Have the session act under `scope`, the commands that say so; no round trip where it does already."""
        if scope != self.scope:
            self.scope = ""  # if the command is cut short, nobody knows
            await self.execute(scope)
            self.scope = scope


class Connections:
    """As many as the pool has, at most. Who finds none stands in line here, not there, for one that is given back."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._idle: list[Any] = []
        self._line: deque[asyncio.Future[Any]] = deque()
        self._ours = self._making = 0
        self._refusal: Exception | None = None
        self._again_at = 0.0
        self._asks: asyncio.TimerHandle | None = None
        self._closing = False
        self._planned: dict[int, float] = {}

    @contextlib.asynccontextmanager
    async def one(self) -> AsyncIterator[Any]:
        """A connection for as long as the `with` lasts."""
        db, failed = await self.take(), None
        try:
            await self.plan_anew(db)
            yield db
        except BaseException as error:
            failed = error
            refuse_misuse(error, db)
            raise
        finally:
            await self.give_back(db, failed)

    async def take(self) -> Any:
        """A connection, the one that was given back last. While Postgres has no more for us, those that we have must
        do. Raises `Unavailable` when none can be had in five seconds."""
        if (db := await self._idle_one()) is not None:
            return db
        try:
            async with asyncio.timeout(ACQUIRE_SECONDS):
                return await self._found()
        except (*LOST, asyncpg.PostgresError) as error:
            raise Unavailable(self._why(error)) from error

    def _why(self, error: Exception) -> str:
        """What to do about a connection that was not had."""
        if isinstance(error, TimeoutError):
            if self._refusal is not None and time.monotonic() < self._again_at + ACQUIRE_SECONDS:
                return explained(self._refusal)
            if self._ours >= self._pool.get_max_size():
                return ALL_IN_USE
        return explained(error)

    async def _idle_one(self) -> Any:
        """One that idles and is well, if there is any."""
        while self._idle:
            db = self._idle.pop()
            if is_open(db):
                return db
            await self._part_with(db)
        return None

    async def _found(self) -> Any:
        stood = False
        while True:
            if (db := await self._idle_one()) is not None:
                return db
            if self._may_make():
                try:
                    return await self._make()
                except NO_MORE as error:
                    self._refusal, self._again_at = error, time.monotonic() + AGAIN_SECONDS
                    if not self._ours:
                        self._pass_on(None)
                        raise
                    if self._asks is None:
                        self._asks = asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._ask_again)
            if not self._idle:
                if (db := await self._stand_in_line(first=stood)) is not None:
                    return db
                stood = True

    def _ask_again(self) -> None:
        """Have the first in line ask Postgres: it may have room by now."""
        self._asks, self._again_at = None, 0.0
        self._pass_on(None)

    def _may_make(self) -> bool:
        """Whether there may be one more, and Postgres did not just refuse it."""
        if self._ours + self._making >= self._pool.get_max_size():
            return False
        return not self._ours or time.monotonic() >= self._again_at

    async def _make(self) -> Any:
        self._making += 1
        try:
            db = await self._pool.acquire(timeout=ACQUIRE_SECONDS)
        except NO_MORE:
            raise
        except BaseException:
            self._pass_on(None)
            raise
        finally:
            self._making -= 1
        self._ours += 1
        if self._may_make():
            self._pass_on(None)
        return db

    async def _stand_in_line(self, *, first: bool) -> Any:
        """The next one that is given back; None where there may be room for a new one instead. Who had come to the head
        of the line is `first` again."""
        place: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._line.insert(0 if first else len(self._line), place)
        try:
            return await place
        except asyncio.CancelledError:
            if not place.cancelled():  # it had come as its taker went away
                self._pass_on(place.result())
            raise

    def _pass_on(self, db: Any) -> None:
        """Give a connection, or word of room for one, to the first in line; who went away is passed over."""
        while self._line:
            place = self._line.popleft()
            if not place.done():
                place.set_result(db)
                return
        if db is not None:
            self._idle.append(db)

    async def _part_with(self, db: Any) -> None:
        """Leave one to the pool: there may be a new one in its place."""
        try:
            await self._pool.release(db)
        finally:
            self._ours, self._again_at = self._ours - 1, 0.0
            self._pass_on(None)

    async def give_back(self, db: Any, error: BaseException | None = None) -> None:
        """Part with a connection, on which `error` may have left something open, or nothing that can be used."""
        if isinstance(error, (*LOST, asyncio.CancelledError)) and not misused(error, db):
            drop(db)
        kept = False
        try:
            await undo(db)
            kept = is_open(db) and not self._closing
        finally:
            if kept:
                self._pass_on(db)
            else:
                await self._part_with(db)

    async def plan_anew(self, db: Any) -> None:
        """Throw a connection's plans away once they are a second old."""
        pid, now = db.get_server_pid(), time.monotonic()
        if now - self._planned.get(pid, -PLANS_SECONDS) < PLANS_SECONDS:
            return
        if len(self._planned) > 1_000:
            self._planned.clear()  # of connections that are gone
        self._planned[pid] = now
        await db.execute("DISCARD PLANS")

    async def forget(self) -> None:
        """Close those that idle, here and in the pool; one that is in use shows by itself whether it was lost. Nothing
        is said to a server that may be gone: a farewell could fail, or be waited for."""
        await self._pool.expire_connections()
        while self._idle:
            db = self._idle.pop()
            drop(db)
            await self._part_with(db)

    async def close(self) -> None:
        """Close all, once they are given back."""
        self._closing = True  # so that those still out go to the pool, which waits for them
        while self._idle:
            await self._part_with(self._idle.pop())
        await self._pool.close()

    def terminate(self) -> None:
        """Close all, now."""
        self._pool.terminate()


def misused(error: BaseException | None, db: Any) -> bool:
    """Whether the driver refused what it was asked, on a connection that is well."""
    return isinstance(error, asyncpg.InterfaceError) and is_open(db)


def refuse_misuse(error: BaseException, db: Any) -> None:
    """Raise what such a refusal is to callers."""
    if misused(error, db):
        raise StoreError("Postgres was asked in a way that its driver refuses") from error


async def undo(db: Any) -> None:
    """Roll back what is open. A connection on which that fails, or is cut short, is not used again."""
    try:
        if is_open(db) and db.is_in_transaction():
            await db.execute("ROLLBACK")
    except BaseException:
        drop(db)
        raise


def drop(db: Any) -> None:
    """Close a connection now, if it is not closed yet."""
    with contextlib.suppress(asyncpg.InterfaceError):
        db.terminate()


def is_open(db: Any) -> bool:
    """Whether a connection of the pool can still be used; the pool takes a closed one back by itself."""
    try:
        return not db.is_closed()
    except asyncpg.InterfaceError:
        return False
