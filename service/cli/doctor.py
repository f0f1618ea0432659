"""`holdfast doctor`: what is right and wrong with a store, one line each, with the store in hand."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Literal, NamedTuple

from service.cli.options import StoreFlags, settings
from service.cli.refused import Refused
from service.cli.store import missing
from service.settings import Settings

if TYPE_CHECKING:
    from backends.protocol import Row, StateBackend, Tx

DAY_MS = 86_400_000
SOON_DAYS = 30
PAGE = 1_000
MENDED = ((3, 44, 6), (3, 50, 7), (3, 51, 3))
"""The SQLite releases that mended the WAL-reset bug, the last for all that follow, the others each for its line."""


class Finding(NamedTuple):
    """One line: how bad, what was looked at, what is and what to do."""

    mark: Literal["ok", "warn", "FAIL"]
    what: str
    said: str


def doctor(*, flags: StoreFlags = None) -> None:
    """Examine the store: schema, engine, audit log, tokens. Exit code 1 if anything fails.

    A SQLite file is examined while no server runs on it.
    """
    findings = asyncio.run(examined(settings(flags).settings))
    for mark, what, said in findings:
        print(f"{mark:<5} {what}: {said}")
    if any(finding.mark == "FAIL" for finding in findings):
        raise Refused("the store is not well; see the lines that begin with FAIL")


async def examined(found: Settings) -> list[Finding]:
    """All findings; one alone when the store cannot be opened."""
    from backends.errors import StoreError
    from service.main import open_store

    if (nothing := missing(found)) is not None:
        return [Finding("FAIL", "store", nothing)]
    try:
        backend = await open_store(found)
    except StoreError as error:
        what, _, todo = str(error).partition("; ")
        if what.startswith("another process"):
            todo = "examine a copy that `holdfast backup` makes, or stop it and ask again"
        return [
            Finding("FAIL", "store", f"{what}; {todo or 'check that database_url names a store, and that it is up'}")
        ]
    try:
        schema = await schema_of(backend)
        examinations = ENGINES[backend.name] + (ROWS + SWEEPS[backend.name] if schema.mark == "ok" else ())
        return [schema, *[finding for examine in examinations for finding in await tried(examine, backend)]]
    finally:
        await backend.close()


async def tried(examine: "Examine", backend: "StateBackend") -> list[Finding]:
    """What an examination finds, be it that the store cannot answer."""
    from backends.errors import StoreError

    try:
        return await examine(backend)
    except StoreError as error:
        said = f"the store could not be read ({error}); restore it from a backup if this stays so"
        return [Finding("FAIL", examine.__name__.removesuffix("_of"), said)]


async def schema_of(backend: "StateBackend") -> Finding:
    """Whether every migration is applied, and none that this program does not know."""
    from backends.errors import StoreError

    try:
        await backend.check()
    except StoreError as error:
        return Finding("FAIL", "schema", str(error))
    return Finding("ok", "schema", "fits this program")


async def asked(backend: "StateBackend", statement: str) -> "list[Row]":
    """The rows of a statement without parameters."""

    async def read(tx: "Tx") -> "list[Row]":
        return await tx.all(statement)

    return await backend.read(read, tenants=None, scan=True)


# ── the engines ────────────────────────────────────────────────────────────────────────────────────────────────────


async def sqlite_of(backend: "StateBackend") -> list[Finding]:
    """The version, judged by the WAL-reset bug."""
    [[version]] = await asked(backend, "engine_version")
    return [sqlite_version(version)]


def sqlite_version(version: str) -> Finding:
    """What is to be said of a version of SQLite."""
    parts = tuple(map(int, version.split(".")[:3]))
    if parts >= MENDED[-1] or any(parts[:2] == one[:2] and parts >= one for one in MENDED):
        return Finding("ok", "SQLite", version)
    return Finding(
        "warn",
        "SQLite",
        f"{version} has the WAL-reset bug, by which two processes that write one file can corrupt it; a single writing "
        "process, which sqlite_path_lock sees to, keeps clear of it. Use 3.51.3 or newer (or 3.50.7, 3.44.6)",
    )


async def file_of(backend: "StateBackend") -> list[Finding]:
    """SQLite's own check of the file."""
    faults = [str(row[0]) for row in await asked(backend, "engine_faults")]
    if faults == ["ok"]:
        return [Finding("ok", "file", "integrity_check finds nothing")]
    said = f"integrity_check finds {len(faults)} fault(s), the first: {faults[0]}; restore the file from a backup"
    return [Finding("FAIL", "file", " ".join(said.split()))]


async def postgres_of(backend: "StateBackend") -> list[Finding]:
    """The version, and the settings on which promises rest."""
    [[number]] = await asked(backend, "engine_version")
    [[isolation, synchronous, superuser]] = await asked(backend, "engine_settings")
    return [postgres_version(int(number)), isolated(isolation), synchronised(synchronous), role(superuser == "on")]


def postgres_version(number: int) -> Finding:
    """14 to 18 are what is tested."""
    major, minor = divmod(number, 10_000)
    if major < 14:
        return Finding("FAIL", "Postgres", f"{major}.{minor} is too old; move to 14 or newer")
    if major > 18:
        return Finding("warn", "Postgres", f"{major}.{minor} is newer than what this program was made for, 14 to 18")
    return Finding("ok", "Postgres", f"{major}.{minor}")


def isolated(level: str) -> Finding:
    """Limits are counted after a lock, by a statement that must see what was just committed."""
    if level == "read committed":
        return Finding("ok", "isolation", level)
    said = f"is {level!r} by default; set default_transaction_isolation to 'read committed' for this role"
    return Finding("FAIL", "isolation", said)


def synchronised(value: str) -> Finding:
    """Whether an acknowledged commit is on disk."""
    if value == "off":
        return Finding("FAIL", "synchronous_commit", "is off: a crash loses acknowledged changes; set it to on")
    if value == "local":
        said = "is local: a failover loses acknowledged changes; set it to on if there is a synchronous standby"
        return Finding("warn", "synchronous_commit", said)
    return Finding("ok", "synchronous_commit", value)


def role(superuser: bool) -> Finding:
    """The service needs no more than its own tables."""
    if superuser:
        return Finding("warn", "role", "is a superuser; give the service a role of its own that owns its tables alone")
    return Finding("ok", "role", "is no superuser")


# ── the rows ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def audit_of(backend: "StateBackend") -> list[Finding]:
    """Every chain, the system's too, from the beginning of its kept part to its head, in one snapshot."""
    from service.kernel.chain import all_followed, named

    chains = await backend.read(all_followed, tenants=None, scan=True)
    broken = [f"the chain {named(name)} {chain.fault}" for name, chain in chains if chain.fault is not None]
    if not broken:
        return [Finding("ok", "audit log", f"{len(chains)} chain(s) verify")]
    todo = "compare with a backup, and find out who could write to the store"
    return [Finding("FAIL", "audit log", f"{said}; {todo}") for said in broken]


async def logs_of(backend: "StateBackend") -> list[Finding]:
    """Executions, their logs and their items, held against each other in one snapshot."""

    async def read(tx: "Tx") -> "list[tuple[str, list[Row]]]":
        return [(what, await tx.all(name, limit=PAGE)) for name, what in LOGS.items()]

    found = [(what, rows) for what, rows in await backend.read(read, tenants=None, scan=True) if rows]
    if not found:
        return [Finding("ok", "logs", "executions, logs and items agree")]
    todo = "the store mixes two moments, or was changed by hand; restore a backup"
    return [Finding("FAIL", "logs", f"{many(rows)} {what}, the first {rows[0][1]!r}{whose(rows[0])}; {todo}")
            for what, rows in found]  # fmt: skip


def many(rows: "list[Row]") -> str:
    """How many rows a page holds; a full one may not be all."""
    return f"{len(rows)} or more" if len(rows) == PAGE else str(len(rows))


def whose(row: "Row") -> str:
    """Of which tenant a row is."""
    return f" of the tenant {row[0]!r}"


async def tokens_of(backend: "StateBackend") -> list[Finding]:
    """How many tokens work without an end, end soon, or are administrators'."""

    async def read(tx: "Tx") -> "Row | None":
        return await tx.one("count_tokens", now=backend.now(), before=backend.now() + SOON_DAYS * DAY_MS)

    never, soon, admins = await backend.read(read, tenants=None, scan=True) or (0, 0, 0)
    return [
        counted(never, "tokens without an end", "rotate them to tokens that expire"),
        counted(soon, f"tokens that end within {SOON_DAYS} days", "rotate those that are still needed"),
        Finding("ok", "admin tokens", str(admins))
        if admins
        else Finding("warn", "admin tokens", "0 work; `holdfast token bootstrap` mints one"),
    ]


async def sweeps_of(backend: "StateBackend") -> list[Finding]:
    """Whether somebody takes back leases and rings timers. A SQLite file is asked while nobody serves it."""
    from service.kernel.lease import read

    found, now = await read(backend), backend.now()
    if found is not None and (found.expires_at or 0) > now:
        return [Finding("ok", "sweeps", f"{found.holder} sweeps, epoch {found.epoch}")]
    said = "nobody sweeps: leases are not taken back and timers do not ring; start `holdfast scheduler`, or "
    return [Finding("warn", "sweeps", said + "`holdfast serve` with sweep = true")]


def counted(count: int, what: str, todo: str) -> Finding:
    """A number that is best 0."""
    return Finding("warn", what, f"{count}; {todo}") if count else Finding("ok", what, "0")


Examine = Callable[["StateBackend"], Awaitable[list[Finding]]]
ENGINES: dict[str, tuple[Examine, ...]] = {"sqlite": (sqlite_of, file_of), "postgres": (postgres_of,)}
ROWS: tuple[Examine, ...] = (audit_of, logs_of, tokens_of)
SWEEPS: dict[str, tuple[Examine, ...]] = {"sqlite": (), "postgres": (sweeps_of,)}
LOGS = {
    "list_broken_logs": "execution(s) whose log has a gap or ends elsewhere",
    "list_lost_logs": "execution(s) that are gone while their log is there",
    "list_broken_counts": "execution(s) that count other open items than there are",
    "list_unsettled": "item(s) that are open though their log says they ended",
}
"""Statement → what its rows are: (tenant, execution or item)."""
