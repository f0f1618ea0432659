"""Postgres: a small pool, ordered locks by the caller, lost races retried, wake-ups beside the transaction.

Promises: a transaction is retried after 40001 and 40P01 (it left no trace), and once when its connection is lost before
COMMIT; lost again, it is `Unavailable`, as is one that waits too long for a lock, which is undone. A connection lost
during COMMIT is `OutcomeUnknown`; time is the database's.

The odd things: BEGIN and COMMIT are plain messages (asyncpg's transaction object costs more than the statement);
the pool runs no reset query: the only session state is for whom a connection reads, and each reader says that anew
(`Connection.act`). Postgres keeps the plan of a prepared
statement until the table is analyzed, a minute late at best, and on an empty table one index is as good as another:
so plans that read whole tables are switched off for our sessions, and each connection plans anew every second
(measured: without it, loading 32 executions takes 200 ms once 40,000 have come to a table that was empty).
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeVar, cast

import asyncpg

from backends import migrate, postgres_arrays, postgres_feed, postgres_fit, postgres_hosts
from backends.errors import Conflict, Full, Locked, OutcomeUnknown, StoreError, TooSlow, Unavailable, Unfenced
from backends.postgres_clock import DatabaseClock
from backends.postgres_connections import LOST, Connection, Connections
from backends.postgres_fence import LEAVE, Fence
from backends.postgres_listen import Listener
from backends.postgres_locks import ENDLESS
from backends.protocol import EVERY, Heard, Read, Row, Tenants, Tx, Where, Work, Write
from backends.statements import Statement, gathered, load, together

T = TypeVar("T")
ATTEMPTS = 8
LOCK_MS = 5_000
COMMAND_SECONDS = 60.0
"""How long an answer to a statement is waited for: then the connection counts as lost. A scan says by itself how long
it may take, and is waited for as much longer."""
PING_SECONDS = 5.0
TIME = "SELECT extract(epoch FROM clock_timestamp())::float8 * 1000"
RACES = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
FULL = (asyncpg.DiskFullError,)
SESSION = {
    "enable_seqscan": "off", "enable_bitmapscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off",
    "enable_material": "off", "jit": "off",
    "idle_in_transaction_session_timeout": "30000", "application_name": "holdfast",
    "default_transaction_isolation": "read committed", "statement_timeout": "0",
    "idle_session_timeout": "0", "row_security": "on",
}  # fmt: skip
"""The second half is for roles and databases on which somebody has set otherwise."""
LISTENING = SESSION | {"application_name": "holdfast wake-ups"}
POOLED = (
    "; SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 30000"
    "; SET LOCAL search_path = {}"
)
"""The same for each transaction, where no session can be told."""


class Lost(Unavailable):
    """A connection was lost before COMMIT, so nothing was done. It may have been lost long before it was asked."""


class PostgresTx:
    """A transaction, or a reader whose statements stand alone, on one connection."""

    def __init__(self, db: Any, statements: dict[str, Statement], now: int, seconds: float | None = None) -> None:
        """`seconds` is how long a read waits for its answer where that is not as long as any other statement."""
        self._db, self._statements, self.now, self._seconds = db, statements, now, seconds
        self.channels: dict[str, int] = {}

    async def one(self, statement: str, /, **params: Any) -> Row | None:
        found = self._statements[statement]
        return cast("Row | None", await self._db.fetchrow(found.sql, *found.values(params), timeout=self._seconds))

    async def all(
        self, statement: str, /, rows: Sequence[Sequence[Any]] | None = None, where: Where | None = None, **params: Any
    ) -> list[Row]:
        found = self._statements[statement]
        if where is not None:
            found, params = found.filtered(where[0]), params | dict(where[1])
        if rows is not None and not rows:
            return []
        columns = [] if rows is None else [list(column) for column in zip(*rows, strict=True)]
        values = found.values(params)
        return cast("list[Row]", await self._db.fetch(found.sql, *columns, *values, timeout=self._seconds))

    async def load(self, reads: Sequence[Read], /) -> list[list[Row]]:
        if len(reads) == 1:
            return [await self.all(reads[0][0], rows=reads[0][1])]
        sql = gathered(tuple(self._statements[name] for name, _ in reads))
        out: list[list[Row]] = [[] for _ in reads]
        for part, row in await self._db.fetch(sql, *(list(c) for _, rows in reads for c in zip(*rows, strict=True))):
            out[part].append(row)
        return out

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
    serial = False
    scan_seconds: float | None = None

    def __init__(
        self,
        dsn: str,
        pool: Any,
        lanes: int,
        clock: Callable[[], int] | None = None,
        fence: Fence | None = None,
        pooled: str = "",
        lock_ms: int = LOCK_MS,
    ) -> None:
        self._dsn, self.lanes, self._clock = dsn, lanes, clock
        self._whole, self._sessions, self._pooled = fence, not pooled, pooled
        self._to_write = f" ISOLATION LEVEL READ COMMITTED{pooled}" if pooled else ""
        self._to_write += f"; SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL lock_timeout = {lock_ms}"
        self._lock_ms = lock_ms
        self._fence: Fence | None = None
        others = max(1, pool.get_max_size() - lanes)
        self.scan_lanes, self._scan_turn = min(others, max(2, others // 2)), asyncio.Semaphore(others)
        self._statements = load("postgres")
        self._listener = Listener(lambda: postgres_hosts.connect(dsn, timeout=5, server_settings=LISTENING))
        self._time = DatabaseClock()
        self._connections = Connections(pool)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Read the database's clock until a reading can be taken, and keep reading it each second."""
        try:
            while not await self._read_clock():
                pass
        except BaseException:
            self._connections.terminate()
            raise
        self._tasks.append(asyncio.create_task(self._keep_time()))

    def now(self) -> int:
        """The database's clock: read each second, and carried between."""
        return self._time.now() if self._clock is None else self._clock()

    async def _read_clock(self) -> bool:
        async with self._connections.one() as db:
            return await self._time.read(lambda: db.fetchval(TIME))

    async def _keep_time(self) -> None:
        while True:
            await asyncio.sleep(1)
            with contextlib.suppress(StoreError, asyncpg.PostgresError, *LOST):
                await self._read_clock()

    async def write(self, work: Work[T], *, tenants: Tenants = EVERY, lock_ms: int | None = None) -> T:
        how = self._to_write
        if lock_ms is not None and lock_ms < self._lock_ms:
            how += f"; SET LOCAL lock_timeout = {lock_ms}"
        try:
            return await self._through_races(work, tenants, how)
        except Lost:
            await self._connections.forget()  # it may have been lost long before, and others with it
            return await self._through_races(work, tenants, how)

    async def _through_races(self, work: Work[T], tenants: Tenants, how: str) -> T:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._transaction(work, tenants, how)
            except RACES as error:
                if attempt == ATTEMPTS:
                    raise Conflict("the transaction lost every race it entered") from error
                await asyncio.sleep(random.uniform(0, 0.002 * 2**attempt))
        raise AssertionError("unreachable")

    async def _begin(self, db: Any, tenants: Tenants, how: str) -> None:
        """Begin a transaction that acts for `tenants`, in one message."""
        await db.execute(f"BEGIN{how}; {self._fence.scope(tenants)}" if self._fence else f"BEGIN{how}")

    async def _transaction(self, work: Work[T], tenants: Tenants, how: str) -> T:
        committing = False
        try:
            async with self._connections.one() as db:
                await self._begin(db, tenants, how)
                tx = PostgresTx(db, self._statements, self.now())
                result = await work(cast("Tx", tx))
                committing = True
                if await db.execute("COMMIT") != "COMMIT":  # a statement had failed, whatever `work` made of it
                    raise Conflict("a statement of the transaction was refused; it was rolled back")
        except LOST as error:
            raise (OutcomeUnknown if committing else Lost)("the connection to Postgres was lost") from error
        except RACES:
            raise
        except asyncpg.PostgresError as error:
            raise translate(error) from error
        self._listener.tell(tx.channels)
        return result

    async def read(self, work: Work[T], *, tenants: Tenants = EVERY, scan: bool = False) -> T:
        async with self._scan_turn if scan else contextlib.nullcontext():  # the connections of batches are left to them
            return await self._read_again(work, tenants, scan)

    async def _read_again(self, work: Work[T], tenants: Tenants, scan: bool) -> T:
        for attempt in (1, 2):
            try:
                async with self._connections.one() as db:
                    return await self._read(db, work, tenants, scan)
            except asyncpg.QueryCanceledError as error:
                raise (TooSlow("the scan was cut off") if scan else translate(error)) from error
            except LOST as error:
                if attempt == 2:
                    raise Unavailable("the connection to Postgres was lost") from error
                await self._connections.forget()  # those that idle were lost with it, though nobody has noticed
            except asyncpg.PostgresError as error:
                raise translate(error) from error
        raise AssertionError("unreachable")

    async def _read(self, db: Any, work: Work[T], tenants: Tenants, scan: bool) -> T:
        """In a transaction for a scan, and where sessions are a pooler's; else the session acts for `tenants`."""
        seconds = COMMAND_SECONDS + (ENDLESS if self.scan_seconds is None else self.scan_seconds) if scan else None
        tx = cast("Tx", PostgresTx(db, self._statements, self.now(), seconds))
        if not scan and (self._sessions or self._fence is None):
            if self._fence is not None:
                await db.act(self._fence.scope(tenants, local=""))
            return await work(tx)
        how = f" ISOLATION LEVEL {'REPEATABLE READ' if scan else 'READ COMMITTED'}, READ ONLY{self._pooled}"
        if scan and self.scan_seconds is not None:
            how += f"; SET LOCAL statement_timeout = {max(1, int(self.scan_seconds * 1000))}"
        await self._begin(db, tenants, how)
        found = await work(tx)
        await db.execute("COMMIT")
        return found

    def subscribe(self, heard: Heard) -> None:
        self._listener.heard.append(heard)
        if self._sessions:  # a pooler would give the notifications to whoever has the session by then
            self._listener.start()

    def want(self, topics: frozenset[str]) -> None:
        self._listener.want(topics)

    async def migrate(self) -> int:
        async with self._alone() as db:
            if self._whole and migrate.pending(await migrate.applied_on_postgres(db)):
                await self._whole.lower(db)
            count = await migrate.on_postgres(db, sessions=self._sessions)
            if self._whole:
                await self._whole.raise_up(db)
            await postgres_feed.follow(db, self._to_see_all())
        self._fence = self._whole
        return count

    async def check(self) -> None:
        async with self._alone() as db:
            migrate.compare(await migrate.applied_on_postgres(db))
            if self._whole:
                await self._whole.refuse_holes(db)
            await postgres_feed.refuse_behind(db, self._to_see_all())
        self._fence = self._whole

    def _to_see_all(self) -> str:
        """What begins a transaction that acts for every tenant, also before the fence is known to be whole."""
        return f"BEGIN{self._to_write}; {self._whole.scope(EVERY)}" if self._whole else f"BEGIN{self._to_write}"

    @contextlib.asynccontextmanager
    async def _alone(self) -> AsyncIterator[Any]:
        """A connection that acts as who logged in; whatever Postgres says on it is said in our words."""
        try:
            async with self._connections.one() as db:
                await db.act(LEAVE)
                yield db
        except LOST as error:
            raise Unavailable("the connection to Postgres was lost") from error
        except asyncpg.InsufficientPrivilegeError as error:
            raise Unfenced(
                "who connects may not bring the schema and its row level security up to date; run `holdfast migrate` "
                "as the owner of the tables, who may create roles, see docs/operations.md"
            ) from error
        except asyncpg.PostgresError as error:
            raise translate(error) from error

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
                await self._connections.close()
        except TimeoutError:
            self._connections.terminate()


def translate(error: asyncpg.PostgresError) -> StoreError:
    """The store error for what Postgres said; its own text stays in the log's traceback."""
    if isinstance(error, FULL):
        return Full("the database's disk is full")
    if isinstance(error, asyncpg.LockNotAvailableError):
        return Locked("somebody else holds a lock for longer than a write waits")
    if isinstance(error, asyncpg.IntegrityConstraintViolationError):
        return Conflict("a constraint refused the rows")
    if (error.sqlstate or "").startswith(("53", "57", "58", "08", "25006", "25P03")):
        return Unavailable(f"Postgres: {error.sqlstate}")
    return StoreError(f"Postgres: {error.sqlstate}")


async def no_reset(_db: Any) -> None:
    """Nothing to undo: whoever takes the connection says first for whom it acts."""


async def connect(
    url: str,
    *,
    connections: int = 16,
    lanes: int = 2,
    pooler: str = "none",
    fence: Fence | None = None,
    clock: Callable[[], int] | None = None,
    lock_ms: int = LOCK_MS,
) -> PostgresBackend:
    """Open a pool. With `pooler="transaction"` nothing is kept per session: no prepared statements, no settings.

    With a `fence`, transactions act under its roles as soon as `migrate` has built it or `check` has found it whole.
    `clock` stands for the database's, in tests. A write waits `lock_ms` for each lock that another holds.
    """
    plain = pooler == "none"
    postgres_arrays.ask_for_concrete_types()
    try:
        pool = await asyncpg.create_pool(
            url, min_size=min(2, connections), max_size=connections, reset=no_reset, timeout=5,
            command_timeout=COMMAND_SECONDS,
            statement_cache_size=1024 if plain else 0, server_settings=SESSION if plain else {},
            max_inactive_connection_lifetime=0, connect=postgres_hosts.connect,
            connection_class=Connection, init=postgres_fit.stay if plain else None,
        )  # fmt: skip
        schema = await fit(pool)
        pooled = "" if plain else POOLED.format(schema)
        backend = PostgresBackend(url, pool, lanes, clock, fence, pooled, lock_ms)
        await backend.start()
    except (*LOST, asyncpg.PostgresError, ValueError) as error:
        raise Unavailable(postgres_fit.explained(error)) from (None if postgres_fit.malformed(error) else error)
    return backend


async def fit(pool: Any) -> str:
    """The store's schema, as SQL has it; the pool is gone where the database cannot be served."""
    try:
        async with pool.acquire() as db:
            return await postgres_fit.schema_of(db)
    except BaseException:
        pool.terminate()
        raise
