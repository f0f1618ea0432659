"""Databases: `connect(url)` gives a `StateBackend`; nothing here knows of workflows.

The differences page: everything in which the two engines differ, and where.

* Writers. SQLite has one, in this process (`sqlite.py`, a lock file keeps a second process out); Postgres has many,
  rows are locked in a fixed order by the caller and lost races are retried (`postgres.py`), as is, once, a write whose
  connection is lost before COMMIT; connections stay at hand (`postgres_connections.py`).
* Hosts. A Postgres URL may name several (`one:5432,two:5432`); the one that takes writes is found, after a failover too
  (`postgres_hosts.py`).
* Locks. `FOR UPDATE [SKIP LOCKED]` is dropped on SQLite (`statements.py`). A write waits for what strangers hold: on
  Postgres `lock_ms` for each lock, while others go on; on SQLite five seconds for the whole file, and the server with
  it.
* Batches. `WITH rows(…) AS (:rows)` is a VALUES list or an `unnest` (`statements.py`). What is wanted of each row (the
  head of each shelf, `sql/work.sql`; executions by their ids, `sql/facets.sql`) is a LATERAL on Postgres, and on
  SQLite, which knows no LATERAL, a correlated IN or a cross join.
* Time. SQLite takes the process's clock, Postgres the database's.
* Wake-ups. In the process on SQLite, LISTEN/NOTIFY between processes on Postgres (`postgres_listen.py`).
* Types. SQLite tables are STRICT with INTEGER, TEXT, BLOB; Postgres has BIGINT, TEXT sorted by bytes, BYTEA
  (`migrate.py`).
* Tenants. Postgres keeps them apart by itself, under roles that see no others (`postgres_fence.py`); SQLite has no such
  thing, and there the statements alone do. Row level security lets no sub-query bound the walk of an index: what is
  read after a snapshot has a text of its own there (`events_since_snapshots`).
* Surroundings. A Postgres may be shared and set up for others: its schema is looked up once, what a role or a database
  has set otherwise does not reach a session, and what cannot be served is refused (`postgres_fit.py`, `postgres.py`). A
  migration there waits a moment at a time for those who use a table (`postgres_locks.py`).
* Damage and copies. A SQLite file is looked at before it is served (`damage.py`) and copied by `holdfast backup`
  (`backup.py`); Postgres has checksums and pg_dump of its own.
* What `holdfast doctor` asks of an engine: its version, its faults, its settings (`sql/engine.sql`).
* The event feed's position. SQLite's one writer commits in order, so the row id is the position; on Postgres the
  position is (transaction, row) and readers stay below the oldest running transaction (`0001_core.sql`). The
  statements that know have a text of their own on Postgres: `insert_events`, `feed_horizon`, `read_feed`,
  `list_executions_updated`, `list_executions_updated_among`, and the export of events (`portable.py`). A store that
  is restored into another cluster has its feed go on behind what it has (`postgres_feed.py`).
"""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

from backends import postgres, sqlite
from backends.postgres_fence import Fence
from backends.protocol import StateBackend


def sqlite_path(url: str) -> Path:
    """The file that `sqlite:///relative.db` or `sqlite:////absolute.db` names. Raises ValueError for another store."""
    if scheme_of(url) != "sqlite":
        raise ValueError("not a SQLite store")
    return Path(unquote(url.removeprefix("sqlite:///")))


def scheme_of(url: str) -> str:
    """What stands before the first colon, however odd the rest is: the engine says what is wrong with that."""
    return url.partition(":")[0]


async def connect(
    url: str,
    *,
    synchronous: str = "FULL",
    lock: bool = True,
    clock: Callable[[], int] | None = None,
    connections: int = 16,
    lanes: int = 2,
    pooler: str = "none",
    roles: tuple[str, str] | None = ("holdfast_app", "holdfast_sweep"),
    lock_ms: int = postgres.LOCK_MS,
) -> StateBackend:
    """Open the store that `url` names: `sqlite:///relative.db`, `sqlite:////absolute.db` or `postgresql://…`.

    Raises `backends.errors.Unavailable` when it cannot be reached, ValueError for another scheme. `clock`
    (milliseconds) stands for the store's own, in tests. `roles` are the app role and the sweep role that Postgres keeps
    tenants apart by; None leaves that to the statements. A write on Postgres waits `lock_ms` for a lock.
    """
    scheme = scheme_of(url)
    if scheme == "sqlite":
        path = sqlite_path(url)
        return await sqlite.connect(path, synchronous=synchronous, lock=lock, clock=clock or sqlite.process_clock)
    if scheme in ("postgresql", "postgres"):
        fence = None if roles is None else Fence(*roles)
        return await postgres.connect(
            url, connections=connections, lanes=lanes, pooler=pooler, fence=fence, clock=clock, lock_ms=lock_ms
        )
    raise ValueError(f"{scheme!r} is not a store; use sqlite:///file.db or postgresql://user@host/database")
