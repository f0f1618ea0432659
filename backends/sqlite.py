"""SQLite: one writer, readers beside it, in one process.

Promises: `write` returns after the commit is on disk (`synchronous=FULL`); writers never overlap; readers never block.

The odd thing: statements run on the event loop's thread, only COMMIT (the sync to disk, the checkpoint) goes to a
thread of its own. A batch is a few set-based statements, so the loop is held for a millisecond or two, and the
interpreter lock is not fought over between two busy threads; measured, this is a fifth faster than a writer thread.
`Tx` methods are `async` but never suspend, so a handler is driven to its end with one `send(None)`.
"""

import asyncio
import contextlib
import fcntl
import math
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import apsw

from backends import damage, migrate
from backends.errors import Conflict, Corrupt, Full, OutcomeUnknown, StoreError, TooSlow, Unavailable
from backends.protocol import EVERY, Heard, Read, Row, Tenants, Tx, Where, Work, Write
from backends.sqlite_commit import Committer
from backends.sqlite_file import code_of, lacks_room, open_to_read, open_to_write, refuse_other
from backends.statements import Statement, chunks, load

T = TypeVar("T")
AWAY = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY")
READ_ONLY = "the store's file, or one beside it, is read-only; let this user write them"
SAID = (apsw.Error, UnicodeDecodeError)
"""What SQLite raises; the second where damaged bytes have come into the very text of an error."""
DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
LOOK_EVERY = 10_000
"""Steps of SQLite's machine, a fraction of a millisecond, after which a scan looks at the time."""
PRAGMAS = ("journal_mode=WAL", "foreign_keys=ON", "wal_autocheckpoint=1000", "cache_size=-65536",
           "cell_size_check=ON", "temp_store=MEMORY")  # fmt: skip


class SqliteTx:
    """A transaction on a connection of this thread; nothing in it ever suspends."""

    def __init__(self, db: apsw.Connection, statements: dict[str, Statement], now: int) -> None:
        self._db, self._statements, self.now = db, statements, now
        self.channels: dict[str, int] = {}

    async def one(self, statement: str, /, **params: Any) -> Row | None:
        found = self._statements[statement]
        return self._db.execute(found.sql, found.values(params)).fetchone()

    async def all(
        self, statement: str, /, rows: Sequence[Sequence[Any]] | None = None, where: Where | None = None, **params: Any
    ) -> list[Row]:
        found = self._statements[statement]
        if where is not None:
            found, params = found.filtered(where[0]), params | dict(where[1])
        if rows is None:
            return cast("list[Row]", self._db.execute(found.sql, found.values(params)).fetchall())
        out: list[Row] = []
        for chunk, values in found.parts(rows, params):
            out += self._db.execute(found.for_rows(len(chunk)), [*chain.from_iterable(chunk), *values]).fetchall()
        return out

    async def load(self, reads: Sequence[Read], /) -> list[list[Row]]:
        return [await self.all(statement, rows=rows) for statement, rows in reads]

    async def run(self, statement: str, /, **params: Any) -> int:
        found, before = self._statements[statement], self._db.total_changes()
        self._db.execute(found.sql, found.values(params))
        return self._db.total_changes() - before

    async def many(self, statement: str, rows: Sequence[Sequence[Any]], /) -> int:
        found, before = self._statements[statement], self._db.total_changes()
        for chunk in chunks(rows):
            self._db.execute(found.for_rows(len(chunk)), list(chain.from_iterable(chunk)))
        return self._db.total_changes() - before

    async def save(self, writes: Sequence[Write], /) -> list[int]:
        return [await self.many(statement, rows) for statement, rows in writes]

    def wake(self, channel: str) -> None:
        self.channels[channel] = self.channels.get(channel, 0) + 1


class Scanner:
    """A connection in a thread of its own that gives a statement up at `ends` (monotonic seconds). Its first statement
    begins a transaction, `end` ends it."""

    def __init__(self, path: Path) -> None:
        self.ends = math.inf
        self._thread = ThreadPoolExecutor(1, "holdfast-scan")
        self._db = open_to_read(path)
        self._db.set_progress_handler(self._late, LOOK_EVERY)
        self._busy: asyncio.Future[list[Row]] | None = None

    def _late(self) -> bool:
        """Whether to give up; SQLite asks every `LOOK_EVERY` steps."""
        return time.monotonic() > self.ends

    async def rows(self, sql: str, values: Sequence[Any]) -> list[Row]:
        """The rows of a statement. It runs also if its caller no longer waits."""
        loop = asyncio.get_running_loop()
        self._busy = loop.run_in_executor(self._thread, self._rows, sql, values)
        return await asyncio.shield(self._busy)

    def _rows(self, sql: str, values: Sequence[Any]) -> list[Row]:
        if not self._db.in_transaction:
            self._db.execute("BEGIN")
        return cast("list[Row]", self._db.execute(sql, values).fetchall())

    async def end(self) -> None:
        """End the transaction, once the statement under way is done; nobody waits for the end itself."""
        try:
            if self._busy is not None and not self._busy.done():  # its caller went away
                await asyncio.wait([self._busy])
        finally:
            self._thread.submit(self._end)

    def _end(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    async def close(self) -> None:
        """Wait for the statement under way, and close."""
        await asyncio.to_thread(self._thread.shutdown)
        self._db.close()


class ScanTx(SqliteTx):
    """A reader in a thread of its own: for scans, exports and filters that may take long, but no statement longer than
    `seconds`."""

    def __init__(self, scanner: Scanner, statements: dict[str, Statement], now: int, seconds: float | None) -> None:
        super().__init__(cast("apsw.Connection", None), statements, now)
        self._scanner, self._seconds = scanner, math.inf if seconds is None else seconds

    async def one(self, statement: str, /, **params: Any) -> Row | None:
        rows = await self.all(statement, **params)
        return rows[0] if rows else None

    async def all(
        self, statement: str, /, rows: Sequence[Sequence[Any]] | None = None, where: Where | None = None, **params: Any
    ) -> list[Row]:
        found = self._statements[statement]
        if where is not None:
            found, params = found.filtered(where[0]), params | dict(where[1])
        if rows is not None:
            raise TypeError("a scan takes parameters, not rows")
        scanner = self._scanner
        scanner.ends = time.monotonic() + self._seconds
        try:
            return await scanner.rows(found.sql, found.values(params))
        finally:
            scanner.ends = math.inf


class SqliteBackend:
    """One file, one writing connection that also does every checkpoint, read-only readers."""

    name = "sqlite"
    lanes, serial = 1, True
    scan_lanes = 4
    scan_seconds: float | None = None

    def __init__(self, path: Path, synchronous: str, clock: Callable[[], int], lock: IO[str] | None) -> None:
        self.path, self._clock, self._lock = path, clock, lock
        self._statements = load("sqlite")
        self._db = open_to_write(path)
        refuse_other(path, self._db, empty=True)
        for pragma in (*PRAGMAS, f"synchronous={synchronous}"):
            self._db.execute(f"PRAGMA {pragma}")
        self._reader: apsw.Connection | None = None
        self._scanners: list[Scanner] = []
        self._idle: list[Scanner] = []
        self._turn, self._scan_turn = asyncio.Lock(), asyncio.Semaphore(self.scan_lanes)
        self._committer = Committer()
        self._heard: list[Heard] = []
        self._damage: StoreError | None = None

    def now(self) -> int:
        return self._clock()

    async def write(self, work: Work[T], *, tenants: Tenants = EVERY, lock_ms: int | None = None) -> T:
        self._refuse_if_damaged()
        await self._turn.acquire()
        tx, done = SqliteTx(self._db, self._statements, self._clock()), asyncio.get_running_loop().create_future()
        try:
            with self._translated(self._db):
                self._db.execute("BEGIN IMMEDIATE")
                result = drive(cast("Coroutine[Any, Any, T]", work(cast("Tx", tx))))
        except BaseException:
            self._turn.release()
            raise
        self._committer.do(self._commit, partial(self._committed, tx, done))
        await done
        return result

    def _commit(self) -> None:
        self._db.execute("COMMIT")

    def _committed(self, tx: SqliteTx, done: asyncio.Future[None], error: BaseException | None) -> None:
        """The turn ends with the commit, not with the caller, who may have gone away."""
        try:
            if error is not None:
                with self._translated(self._db):
                    raise error
            for channel, count in tx.channels.items():
                for heard in self._heard:
                    heard(channel, count)
        except BaseException as failure:
            if not done.cancelled():
                done.set_exception(failure)
        else:
            if not done.cancelled():
                done.set_result(None)
        finally:
            self._turn.release()

    async def read(self, work: Work[T], *, tenants: Tenants = EVERY, scan: bool = False) -> T:
        if scan:
            async with self._scan_turn:
                return await self._snapshot(work)
        if self._reader is None:
            self._reader = open_to_read(self.path)
        with self._translated(self._reader):
            tx = SqliteTx(self._reader, self._statements, self._clock())
            return drive(cast("Coroutine[Any, Any, T]", work(cast("Tx", tx))))

    async def _snapshot(self, work: Work[T]) -> T:
        try:
            scanner = self._idle.pop() if self._idle else self._new_scanner()
            try:
                tx = ScanTx(scanner, self._statements, self._clock(), self.scan_seconds)
                return await work(cast("Tx", tx))
            finally:
                try:
                    await scanner.end()
                finally:
                    self._idle.append(scanner)
        except SAID as error:
            raise self._store_error(error) from error

    def _new_scanner(self) -> Scanner:
        self._scanners.append(Scanner(self.path))
        return self._scanners[-1]

    def subscribe(self, heard: Heard) -> None:
        self._heard.append(heard)

    def want(self, topics: frozenset[str]) -> None:
        """Nobody else writes: there is nobody to tell."""

    async def migrate(self) -> int:
        async with self._turn:
            return self._migrate()

    def _migrate(self) -> int:
        if self._db.readonly("main"):
            raise Unavailable(READ_ONLY)
        with self._translated(self._db):
            return migrate.on_sqlite(self._db, self._clock())

    async def check(self) -> None:
        with self._translated(self._db):
            migrate.compare(migrate.applied_on_sqlite(self._db))

    async def ping(self) -> None:
        self._refuse_if_damaged()
        await self.read(self._touch)

    @staticmethod
    async def _touch(tx: Tx) -> None:
        await tx.one("ping")

    @contextlib.contextmanager
    def _translated(self, db: apsw.Connection) -> Iterator[None]:
        """Roll back whatever is open when anything goes wrong, and say what SQLite said in our words."""
        try:
            yield
        except BaseException as error:
            if db.in_transaction:  # SQLITE_FULL and SQLITE_IOERR have already rolled back
                db.execute("ROLLBACK")
            if isinstance(error, SAID):
                raise self._store_error(error) from error
            raise

    def _store_error(self, error: Exception) -> StoreError:
        """The store error for what SQLite raised; damage is kept in mind."""
        found = translate(error)
        if isinstance(found, Unavailable) and lacks_room(error, self.path):
            return Full("the system gives the file no more room")
        if isinstance(found, Corrupt):
            self._damage = found
        return found

    def _refuse_if_damaged(self) -> None:
        """Once a page was seen to be damaged, nothing is written any more: it could make it worse."""
        if self._damage is not None:
            raise Corrupt("the file was seen to be damaged") from self._damage

    async def close(self) -> None:
        async with self._turn:
            for scanner in self._scanners:
                await scanner.close()
            if self._reader is not None:
                self._reader.close()
            self._committer.close()
            self._db.close()
            if self._lock is not None:
                self._lock.close()


def drive(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that must not suspend; one that does has awaited something other than its `Tx`."""
    try:
        work.send(None)
    except StopIteration as end:
        return cast("T", end.value)
    work.close()
    raise RuntimeError("a handler awaited something other than its transaction")


def translate(error: Exception) -> StoreError:
    """The store error for what SQLite raised; its own text stays in the log's traceback."""
    if isinstance(error, apsw.ConstraintError):
        return Conflict("a constraint refused the rows")
    name = code_of(error)
    if name == "SQLITE_FULL":
        return Full("the disk is full")
    if name == "SQLITE_INTERRUPT":
        return TooSlow("the scan was cut off")
    if name.startswith(DAMAGED) or isinstance(error, UnicodeDecodeError):
        return Corrupt(f"SQLite: {name}")
    if name == "SQLITE_IOERR_FSYNC":  # the commit stands in the log, and may or may not have reached the disk
        return OutcomeUnknown(f"SQLite: {name}")
    if name == "SQLITE_READONLY":
        return Unavailable(READ_ONLY)
    if name.startswith(AWAY):
        return Unavailable(f"SQLite: {name}")
    return StoreError(f"SQLite: {name}")


def process_clock() -> int:
    """Milliseconds since the epoch, UTC."""
    return time.time_ns() // 1_000_000


def take_lock(path: Path) -> IO[str]:
    """Hold `<file>.lock` for this process: SQLite before 3.51.3 can corrupt a WAL that two processes write."""
    beside = path.with_name(path.name + ".lock")
    try:
        lock = beside.open("w")
    except OSError as error:
        raise Unavailable(
            f"{beside}, which says that {path.name} is served, cannot be opened: {error.strerror}"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise Unavailable(f"another process serves {path}; stop it, or give this one a file of its own") from None
    return lock


def refuse_unfit(path: Path) -> None:
    """Raise `Unavailable` for what cannot be the path of a file. SQLite takes it as UTF-8, to the first NUL."""
    if path.is_dir():
        raise Unavailable(f"{path} is a folder; name a file in it")
    if not path.parent.is_dir():
        raise Unavailable(f"the folder {path.parent} does not exist")
    if str(path).encode(errors="ignore").decode().partition("\0")[0] != str(path):
        raise Unavailable(f"{str(path)!r} cannot be the name of a file; give another one")


async def connect(
    path: Path, *, synchronous: str = "FULL", lock: bool = True, clock: Callable[[], int] = process_clock
) -> SqliteBackend:
    """Open (and create) the file. A second process on it, and another program's file, are refused with `Unavailable`,
    damage with `Corrupt`."""
    refuse_unfit(path)
    held = take_lock(path) if lock else None
    try:
        if held is not None:
            damage.refuse(path, every_commit_synced=synchronous == "FULL")
        return SqliteBackend(path, synchronous, clock, held)
    except (*SAID, StoreError) as error:
        if held is not None:
            held.close()
        if isinstance(error, StoreError):
            raise
        if isinstance(error, UnicodeDecodeError) or code_of(error).startswith("SQLITE_CORRUPT"):
            raise Corrupt(f"{path} is damaged ({error}); restore it from a backup") from error
        raise Unavailable(f"{path} cannot be opened: {error}") from error
