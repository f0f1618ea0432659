"""The seam: all that the service ever asks of a database.

A capability adds statements (`sql/*.sql`), never a method here.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


def topic_of(channel: str) -> str:
    """`work/acme/emails` → `work/acme`: the part of a channel that waiters line up under."""
    return "/".join(channel.split("/", 2)[:2])


Row = Sequence[Any]
"""A row as the statement selects it: TEXT is str, BIGINT int, BYTEA bytes, NULL None."""

Read = tuple[str, Sequence[Sequence[Any]]]
"""A set-based read and its rows."""

Write = tuple[str, Sequence[Sequence[Any]]]
"""A set-based write and its rows."""

Heard = Callable[[str, int], None]
"""Told of a channel that commits woke, and how many times."""

Where = tuple[str, Mapping[str, Any]]
"""A compiled list filter: a predicate over parameters, and their values."""

Tenants = Collection[str] | None
"""Whose rows a transaction may see and touch; None is `EVERY`. SQLite takes the statements' word for it."""

EVERY: Tenants = None
"""Of every tenant: for sweeps, for the system's administrator, and for finding out who asks."""


class Tx(Protocol):
    """One transaction. Statements are named in `sql/*.sql`; parameters are keywords."""

    now: int
    """Milliseconds since the epoch by the store's clock, read once for the transaction."""

    async def one(self, statement: str, /, **params: Any) -> Row | None:
        """The first row, or None."""

    async def all(
        self, statement: str, /, rows: Sequence[Sequence[Any]] | None = None, where: Where | None = None, **params: Any
    ) -> list[Row]:
        """Every row; `rows` fills a `WITH rows(…) AS (:rows)`, `where` the `{where}` of a list statement."""

    async def load(self, reads: Sequence[Read], /) -> list[list[Row]]:
        """Run set-based reads in their order, in one round trip where the store allows it; the rows of each. They may
        all be of one moment: none of them counts on a lock that another of them takes."""

    async def run(self, statement: str, /, **params: Any) -> int:
        """Run a write; the number of rows touched."""

    async def many(self, statement: str, rows: Sequence[Sequence[Any]], /) -> int:
        """Run a set-based write over `rows`; the number of rows touched."""

    async def save(self, writes: Sequence[Write], /) -> list[int]:
        """Run set-based writes in their order, in as few round trips as the store allows; the rows that each touched.
        None of them changes a row that another inserts."""

    def wake(self, channel: str) -> None:
        """Tell whoever waits on `channel`, in any process, once this transaction has committed."""


Work = Callable[[Tx], Awaitable[T]]


class StateBackend(Protocol):
    """A store. `write` is one transaction: all of it is durable when the call returns, or none of it happened."""

    name: str
    """`sqlite` or `postgres`."""
    lanes: int
    """How many `write`s are worth having in flight from one process."""
    serial: bool
    """Whether nobody else commits while a `write` runs: what it has read is true until it ends."""

    scan_seconds: float | None
    """How long one statement of a scan may take before it is `TooSlow`; None: as long as it likes."""
    scan_lanes: int
    """How many scans are worth having in flight from one process."""

    async def write(self, work: Work[T], *, tenants: Tenants = EVERY, lock_ms: int | None = None) -> T:
        """Run `work` in one transaction, commit, return its result. `work` may be run again after a lost race, so
        it awaits nothing but its `Tx` and has no effect outside it. Rows of others than `tenants` are not there for
        it. It waits for each lock no longer than `lock_ms`, where the store has locks of rows, or as long as any
        write does."""

    async def read(self, work: Work[T], *, tenants: Tenants = EVERY, scan: bool = False) -> T:
        """Run a reader. By default each statement sees the latest commit and must be bounded (a point or a page);
        `scan=True` gives one consistent snapshot, away from the event loop, for what may take long. Rows of others than
        `tenants` are not there for it."""

    def subscribe(self, heard: Heard) -> None:
        """Call `heard(channel, count)` on the event loop after each commit, here or elsewhere, that woke it."""

    def want(self, topics: frozenset[str]) -> None:
        """Say which topics (a channel up to its second `/`) are waited for here, so that others tell of no more."""

    def now(self) -> int:
        """Milliseconds since the epoch by the store's clock."""

    async def migrate(self) -> int:
        """Bring the schema up to date; the number of migrations applied."""

    async def check(self) -> None:
        """Raise `SchemaMismatch` unless the schema is exactly the one this program was built for, `Unfenced` if the
        database would not keep tenants apart by itself, where it can and nobody said that it need not."""

    async def ping(self) -> None:
        """Raise `Unavailable` unless the store answers."""

    async def close(self) -> None:
        """Finish what is in flight and let go of the store."""
