"""Migrations: forward only, numbered, one file for both engines, each in one transaction with its checksum.

The fits: on Postgres `TEXT` sorts by bytes (`COLLATE "C"`), as it does on SQLite; on SQLite `BIGINT` is `INTEGER`,
`BYTEA` is `BLOB` and tables are STRICT, so a column never changes a value's type. Lines between `-- @sqlite` or
`-- @postgres` and `-- @end` are for that engine alone.
"""

import contextlib
import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

import apsw
import asyncpg
import msgspec

from backends import postgres_locks
from backends.errors import SchemaMismatch, Unavailable

LEDGER = (
    "CREATE TABLE IF NOT EXISTS schema_migrations"
    " (number BIGINT PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at BIGINT NOT NULL)"
)
BLOCK = re.compile(r"^-- @(sqlite|postgres)\n(.*?)(?=^-- @)", re.M | re.S)
ADVISORY_LOCK = 7_406_712_001
MIGRATOR_MS = 60_000
"""How long one migrator waits for another."""
STRANGER = "{}; give Holdfast a schema or a database of its own, see docs/operations.md"


class Migration(msgspec.Struct, frozen=True):
    """One numbered file; the checksum is over its text."""

    number: int
    name: str
    text: str
    checksum: str

    def statements(self, engine: str) -> list[str]:
        """Its statements, fitted to `engine`."""
        text = BLOCK.sub(lambda found: found.group(2) if found.group(1) == engine else "", self.text)
        text = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--"))
        parts = [part.strip() for part in text.split(";")]
        return [fit(part, engine) for part in parts if part]


def fit(statement: str, engine: str) -> str:
    """One statement of a migration in the engine's own types."""
    if engine == "postgres":
        return re.sub(r"\bTEXT\b", 'TEXT COLLATE "C"', statement)
    statement = re.sub(r"\bBIGINT\b", "INTEGER", re.sub(r"\bBYTEA\b", "BLOB", statement))
    return statement + " STRICT" if statement.startswith("CREATE TABLE") else statement


@lru_cache(maxsize=1)
def known() -> list[Migration]:
    """Every migration this program was built with, in order."""
    found = []
    for source in sorted(files("migrations").iterdir(), key=lambda entry: entry.name):
        if source.name.endswith(".sql"):
            text = source.read_text()
            checksum = hashlib.sha256(text.encode()).hexdigest()
            found.append(Migration(int(source.name[:4]), source.name[:-4], text, checksum))
    return found


def pending(applied: Mapping[int, str]) -> list[Migration]:
    """What is still to apply; raises `SchemaMismatch` for a newer schema or an edited migration."""
    ours = {migration.number: migration for migration in known()}
    for number, checksum in applied.items():
        if number not in ours:
            raise SchemaMismatch(f"the store has migration {number}, newer than this program; run a newer holdfast")
        if ours[number].checksum != checksum:
            raise SchemaMismatch(f"migration {ours[number].name} was edited after it was applied; restore its text")
    return [migration for migration in known() if migration.number not in applied]


def compare(applied: Mapping[int, str]) -> None:
    """Raise `SchemaMismatch` unless everything is applied."""
    if missing := pending(applied):
        raise SchemaMismatch(f"the store lacks migration {missing[0].name}; run `holdfast migrate`")


def applied_on_sqlite(db: apsw.Connection) -> dict[int, str]:
    """Number → checksum of what a SQLite file has."""
    db.execute(fit(LEDGER, "sqlite"))
    found: Any = db.execute("SELECT number, checksum FROM schema_migrations").fetchall()
    return dict(found)


def on_sqlite(db: apsw.Connection, now: int) -> int:
    """Apply what is missing, all in one transaction."""
    try:
        db.execute("BEGIN IMMEDIATE")
    except apsw.BusyError:
        raise Unavailable("another program is writing to the file; have it finish and try again") from None
    todo = pending(applied_on_sqlite(db))
    for migration in todo:
        for statement in migration.statements("sqlite"):
            db.execute(statement)
        db.execute(
            "INSERT INTO schema_migrations VALUES (?, ?, ?, ?)",
            (migration.number, migration.name, migration.checksum, now),
        )
    db.execute("COMMIT")
    return len(todo)


async def applied_on_postgres(db: Any) -> dict[int, str]:
    """Number → checksum of what a Postgres database has; empty when nothing was ever applied."""
    if await db.fetchval("SELECT to_regclass('schema_migrations')") is None:
        return {}
    try:
        return {row[0]: row[1] for row in await db.fetch("SELECT number, checksum FROM schema_migrations")}
    except asyncpg.UndefinedColumnError:
        raise SchemaMismatch(STRANGER.format("the table schema_migrations is another program's")) from None


async def on_postgres(db: Any, *, sessions: bool = True) -> int:
    """Apply what is missing, each in its own transaction, under an advisory lock that admits one migrator.

    Without `sessions`, behind a pooler, each transaction takes the lock anew: the next may be in another session, and
    what is held by a session would never be given back.
    """
    todo = pending(await applied_on_postgres(db))
    if not todo:
        return 0
    if not sessions:
        return await _each(db, todo, "SELECT pg_advisory_xact_lock($1)")
    await _admitted(db)
    try:
        return await _each(db, pending(await applied_on_postgres(db)))
    finally:
        with contextlib.suppress(asyncpg.InterfaceError):  # the lock went with the connection
            await db.execute("SELECT pg_advisory_unlock($1)", ADVISORY_LOCK)


async def _admitted(db: Any) -> None:
    """Wait for another migrator to be done."""
    try:
        async with db.transaction():
            await db.execute(f"SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = {MIGRATOR_MS}")
            await db.execute("SELECT pg_advisory_lock($1)", ADVISORY_LOCK, timeout=postgres_locks.ENDLESS)
    except asyncpg.LockNotAvailableError:
        raise Unavailable("another process brings the schema up to date; wait for it to end and try again") from None


async def _each(db: Any, todo: Sequence[Migration], lock: str = "") -> int:
    """Apply those of `todo` that nobody has meanwhile applied; how many."""
    count = 0
    for migration in todo:

        async def apply(one: Migration = migration) -> bool:
            if lock:
                await db.execute(lock, ADVISORY_LOCK)
                if one not in pending(await applied_on_postgres(db)):
                    return False
            await _apply(db, one)
            return True

        count += await postgres_locks.changed(db, f"migration {migration.name}", apply)
    return count


async def _apply(db: Any, migration: Migration) -> None:
    """Carry out one migration and write it down."""
    await db.execute(LEDGER)
    try:
        for statement in migration.statements("postgres"):
            await db.execute(statement, timeout=postgres_locks.ENDLESS)
    except asyncpg.DuplicateTableError as error:
        raise SchemaMismatch(STRANGER.format(error.args[0])) from None
    await db.execute(
        "INSERT INTO schema_migrations VALUES ($1, $2, $3, (extract(epoch FROM now()) * 1000)::bigint)",
        migration.number,
        migration.name,
        migration.checksum,
    )
