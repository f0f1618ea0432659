"""Postgres: a small pool, ordered locks by the caller, lost races retried, wake-ups beside the transaction.

Promises: a transaction is retried after 40001 and 40P01 (it left no trace); a connection lost before COMMIT is
`Unavailable`, during COMMIT `OutcomeUnknown`; time is the database's.

The odd things: BEGIN and COMMIT are plain messages (asyncpg's transaction object costs more than the statement);
the pool runs no reset query, because nothing here sets session state. Postgres keeps the plan of a prepared
statement until the table is analyzed, a minute late at best, and on an empty table one index is as good as another:
so plans that read whole tables are switched off for our sessions, and each connection plans anew every second
(measured: without it, loading 32 executions takes 200 ms once 40,000 have come to a table that was empty).
"""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeVar, cast

import asyncpg

from backends import migrate
from backends.errors import Conflict, Full, OutcomeUnknown, StoreError, Unavailable
from backends.postgres_listen import Listener
from backends.protocol import Heard, Row, Tx, Where, Work, Write
from backends.statements import Statement, load, together

T = TypeVar("T")
ATTEMPTS = 8
PLANS_SECONDS = 1.0
PING_SECONDS = 5.0
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
RACES = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
FULL = (asyncpg.DiskFullError,)
SESSION = {
    "enable_seqscan": "off", "enable_bitmapscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off",
    "enable_material": "off", "jit": "off",
    "idle_in_transaction_session_timeout": "30000", "application_name": "holdfast",
}  # fmt: skip


class PostgresTx:
    """A transaction, or a reader whose statements stand alone, on one connection."""

    def __init__(self, db: Any, statements: dict[str, Statement], now: int) -> None:
        self._db, self._statements, self.now = db, statements, now
        self.channels: dict[str, int] = {}

    async def one(self, statement: str, /, **params: Any) -> Row | None:
        found = self._statements[statement]
        return cast("Row | None", await self._db.fetchrow(found.sql, *found.values(params)))

    async def all(
        self, statement: str, /, rows: Sequence[Sequence[Any]] | None = None, where: Where | None = None, **params: Any
    ) -> list[Row]:
        found = self._statements[statement]
        if where is not None:
            found, params = found.filtered(where[0]), params | dict(where[1])
        if rows is not None and not rows:
            return []
        columns = [] if rows is None else [list(column) for column in zip(*rows, strict=True)]
        return cast("list[Row]", await self._db.fetch(found.sql, *columns, *found.values(params)))

    async def run(self, statement: str, /, **params: Any) -> int:
        found = self._statements[statement]
        return touched(await self._db.execute(found.sql, *found.values(params)))

    async def many(self, statement: str, rows: Sequence[Sequence[Any]], /) -> int:
        if not rows:
            return 0
        columns = [list(column) for column in zip(*rows, strict=True)]
        return touched(await self._db.execute(self._statements[statement].sql, *columns))

    async def save(self, writes: Sequence[Write], /) -> list[int]:
        out: list[int] = []
        for group in apart(self._statements, writes):
            if len(group) == 1:
                out.append(await self.many(*group[0]))
                continue
            sql = together(tuple(self._statements[name] for name, _ in group))
            out += await self._db.fetchrow(sql, *(list(c) for _, rows in group for c in zip(*rows, strict=True)))
        return out

    def wake(self, channel: str) -> None:
        self.channels[channel] = self.channels.get(channel, 0) + 1


def apart(statements: dict[str, Statement], writes: Sequence[Write]) -> list[list[Write]]:
    """Cut writes into groups that change rows of a table once: the parts of one statement do not see what others did
    to a row. What a part inserts is no row that another changes."""
    groups: list[list[Write]] = []
    changed: set[str] = set()
    for write in writes:
        table = statements[write[0]].changes
        if not groups or table in changed:
            groups.append([])
            changed.clear()
        if table is not None:
            changed.add(table)
        groups[-1].append(write)
    return groups


def touched(tag: str) -> int:
    """The row count of a command tag such as `UPDATE 3`."""
    return int(tag.rpartition(" ")[2])


class PostgresBackend:
    """A database; any number of processes may serve it."""

    name = "postgres"

    def __init__(self, dsn: str, pool: Any, lanes: int, clock: Callable[[], int] | None = None) -> None:
        self._dsn, self._pool, self.lanes, self._clock = dsn, pool, lanes, clock
        self._statements = load("postgres")
        self._listener = Listener(lambda: asyncpg.connect(dsn, timeout=5))
        self._offset = 0.0
        self._planned: dict[int, float] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Read the database's clock once, and keep reading it each second."""
        await self._read_clock()
        self._tasks.append(asyncio.create_task(self._keep_time()))

    def now(self) -> int:
        """The database's clock: read each second, carried between by a clock that only moves forward."""
        if self._clock is not None:
            return self._clock()
        return int(time.monotonic() * 1000 + self._offset)

    async def _read_clock(self) -> None:
        async with self._connection() as db:
            before = time.monotonic()
            theirs = await db.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8 * 1000")
            self._offset = theirs - (before + time.monotonic()) * 500

    async def _keep_time(self) -> None:
        while True:
            await asyncio.sleep(1)
            with contextlib.suppress(StoreError, asyncpg.PostgresError, *LOST):
                await self._read_clock()

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        try:
            db = await self._pool.acquire(timeout=5)
        except LOST as error:
            raise Unavailable("Postgres cannot be reached") from error
        try:
            await self._plan_anew(db)
            yield db
        except BaseException as error:
            misused = isinstance(error, asyncpg.InterfaceError) and is_open(db)
            if isinstance(error, (*LOST, asyncio.CancelledError)) and not misused:
                drop(db)
            else:
                await undo(db)
            if misused:
                raise StoreError("Postgres was asked in a way that its driver refuses") from error
            raise
        finally:
            await self._pool.release(db)

    async def _plan_anew(self, db: Any) -> None:
        """Throw a connection's plans away once they are a second old."""
        pid, now = db.get_server_pid(), time.monotonic()
        if now - self._planned.get(pid, -PLANS_SECONDS) < PLANS_SECONDS:
            return
        if len(self._planned) > 1_000:
            self._planned.clear()  # of connections that are gone
        self._planned[pid] = now
        await db.execute("DISCARD PLANS")

    async def write(self, work: Work[T]) -> T:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._transaction(work)
            except RACES as error:
                if attempt == ATTEMPTS:
                    raise Unavailable("the transaction lost every race it entered") from error
                await asyncio.sleep(random.uniform(0, 0.002 * 2**attempt))
        raise AssertionError("unreachable")

    async def _transaction(self, work: Work[T]) -> T:
        committing = False
        try:
            async with self._connection() as db:
                await db.execute("BEGIN; SET LOCAL plan_cache_mode = force_generic_plan")
                tx = PostgresTx(db, self._statements, self.now())
                result = await work(cast("Tx", tx))
                committing = True
                if await db.execute("COMMIT") != "COMMIT":  # a statement had failed, whatever `work` made of it
                    raise Conflict("a statement of the transaction was refused; it was rolled back")
        except LOST as error:
            raise (OutcomeUnknown if committing else Unavailable)("the connection to Postgres was lost") from error
        except RACES:
            raise
        except asyncpg.PostgresError as error:
            raise translate(error) from error
        self._listener.tell(tx.channels)
        return result

    async def read(self, work: Work[T], *, scan: bool = False) -> T:
        for attempt in (1, 2):
            try:
                async with self._connection() as db:
                    tx = cast("Tx", PostgresTx(db, self._statements, self.now()))
                    if not scan:
                        return await work(tx)
                    async with db.transaction(isolation="repeatable_read", readonly=True):
                        return await work(tx)
            except LOST as error:
                if attempt == 2:
                    raise Unavailable("the connection to Postgres was lost") from error
            except asyncpg.PostgresError as error:
                raise translate(error) from error
        raise AssertionError("unreachable")

    def subscribe(self, heard: Heard) -> None:
        self._listener.heard.append(heard)
        self._listener.start()

    def want(self, topics: frozenset[str]) -> None:
        self._listener.want(topics)

    async def migrate(self) -> int:
        async with self._connection() as db:
            return await migrate.on_postgres(db)

    async def check(self) -> None:
        async with self._connection() as db:
            migrate.compare(await migrate.applied_on_postgres(db))

    async def ping(self) -> None:
        try:
            async with asyncio.timeout(PING_SECONDS):
                await self.read(self._touch)
        except TimeoutError:
            raise Unavailable("Postgres does not answer") from None

    @staticmethod
    async def _touch(tx: Tx) -> None:
        await tx.one("ping")

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self._listener.close()
        try:
            async with asyncio.timeout(5):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()


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


def translate(error: asyncpg.PostgresError) -> StoreError:
    """The store error for what Postgres said; its own text stays in the log's traceback."""
    if isinstance(error, FULL):
        return Full("the database's disk is full")
    if isinstance(error, asyncpg.IntegrityConstraintViolationError):
        return Conflict("a constraint refused the rows")
    if (error.sqlstate or "").startswith(("53", "57", "58", "08", "25006", "25P03")):
        return Unavailable(f"Postgres: {error.sqlstate}")
    return StoreError(f"Postgres: {error.sqlstate}")


async def no_reset(_db: Any) -> None:
    """Nothing to undo: no session state is ever set."""


async def connect(
    url: str,
    *,
    connections: int = 16,
    lanes: int = 2,
    pooler: str = "none",
    clock: Callable[[], int] | None = None,
) -> PostgresBackend:
    """Open a pool. With `pooler="transaction"` nothing is kept per session: no prepared statements, no settings.

    `clock` stands for the database's, in tests.
    """
    plain = pooler == "none"
    try:
        pool = await asyncpg.create_pool(
            url, min_size=min(2, connections), max_size=connections, reset=no_reset, timeout=5, command_timeout=60,
            statement_cache_size=1024 if plain else 0, server_settings=SESSION if plain else {},
            max_inactive_connection_lifetime=0,
        )  # fmt: skip
    except (*LOST, asyncpg.PostgresError) as error:
        raise Unavailable("Postgres cannot be reached; check the address, the database and the password") from error
    backend = PostgresBackend(url, pool, lanes, clock)
    await backend.start()
    return backend
