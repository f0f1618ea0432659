"""How soon timers fire: when many are due at once, and when they become due one after another.

Each belongs to a run of its own that waits for it, so each firing ends a step, appends an event and makes a workflow
task. Those that are due at once were set while nothing swept; the clock starts when a server is there that does. Those
that become due later are late by the time between the one that was asked for and that of the event; meanwhile
`PENDING` others wait for a day that never comes here.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import asyncpg
import msgspec

from backends.sqlite_file import open_to_read
from bench import bodies, stock
from bench.engine import Engine
from bench.job import Target, percentile
from bench.server import serving
from bench.table import Table, verdict

DUE, FULL_DUE = 10_000, 100_000
PENDING, FULL_PENDING = 10_000, 100_000
IN_TURN, FULL_IN_TURN, PER_MS = 5_000, 20_000, 1
OF_A_RUN, NEVER = 1_000, 10**14
FIRED_SECONDS, LATE_MS, PATIENCE = 20.0, 1_000.0, 600.0
"""The goals: 100,000 due ones fired, as many seconds for as many timers; milliseconds late at a thousand a second."""
LEFT = f"SELECT 1 FROM alarms WHERE due_at < {NEVER} LIMIT 1"


class Fired(msgspec.Struct):
    """Timers: how many, and in how many seconds they had all fired; or how late they were, in milliseconds."""

    engine: str
    timers: int
    seconds: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    latest: float = 0.0
    errors: int = 0

    @property
    def rate(self) -> float:
        """Timers fired a second, where they were due at once."""
        return self.timers / self.seconds if self.seconds else 0.0


class Body(msgspec.Struct):
    """What `timer.fired` says."""

    fire_at: int


def now() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def none_left(url: str) -> Callable[[], bool]:
    """Looks whether an alarm is left that is not for ever, beside the server."""
    prefix = "sqlite:///"
    if url.startswith(prefix):
        path = Path(url.removeprefix(prefix))
        return lambda: rows_of(path) == []

    async def ask() -> bool:
        db = await asyncpg.connect(url)
        try:
            return await db.fetchval(LEFT) is None
        finally:
            await db.close()

    return lambda: asyncio.run(ask())


def rows_of(path: Path) -> list[object]:
    """What is left in a SQLite file."""
    db = open_to_read(path)
    try:
        return db.execute(LEFT).fetchall()
    finally:
        db.close()


def until(there: Callable[[], bool]) -> None:
    """Look ten times a second."""
    end = time.monotonic() + PATIENCE
    while not there():
        if time.monotonic() > end:
            raise RuntimeError("the timers did not all fire")
        time.sleep(0.1)


def at_once(engine: Engine, count: int) -> Fired:
    """Set so many while nothing sweeps, all of them overdue; then serve, and wait until none is left."""
    with engine.store() as url:
        with serving(url, sweep=False) as running:
            stock.waiting(running.target, count, lambda _: 1)
        with serving(url):
            began = time.perf_counter()
            until(none_left(url))
            return Fired(engine.name, count, time.perf_counter() - began)


def in_turn(engine: Engine, count: int, pending: int) -> Fired:
    """Set so many, a thousand for each second, and read from the logs when they fired."""
    with engine.store() as url, serving(url) as running:
        wait_for_ever(running.target, pending)
        first = now() + count * 3 + 5_000
        queue = stock.waiting(running.target, count, lambda at: first + at // PER_MS)
        if now() >= first:
            raise RuntimeError("the first timers were due before the last were set")
        until(none_left(url))
        late = [
            event.at - msgspec.json.decode(event.body, type=Body).fire_at
            for task in stock.claimed(running.target, count, queue)
            for event in task.history
            if event.kind == "timer.fired"
        ]
        figures = percentile(late, 0.5), percentile(late, 0.99), max(late, default=0)
        return Fired(engine.name, count, 0.0, *figures, errors=count - len(late))


def wait_for_ever(target: Target, count: int) -> None:
    """Timers that are never due, many of a run."""
    tasks = stock.tasks(target, count // OF_A_RUN)[: count // OF_A_RUN]
    many = [bodies.timer(seq, NEVER) for seq in range(OF_A_RUN)]
    stock.send(target, [stock.submission(target, task, *many) for task in tasks])


def measure(engine: Engine, due: int = DUE, turns: int = IN_TURN, pending: int = PENDING) -> list[Fired]:
    """Due at once, then one after another."""
    return [at_once(engine, due), in_turn(engine, turns, pending)]


COLUMNS = ("timers", "seconds", "per second", "p50 ms late", "p99", "latest", "errors", "goal")


def table(found: Sequence[Fired]) -> Table:
    """One row each."""
    return Table("Timers", COLUMNS, [row(one) for one in found])


def row(one: Fired) -> tuple[str, ...]:
    """A row; the goal of those that are due at once is a rate."""
    if one.seconds:
        goal = verdict(f"≤ {FIRED_SECONDS:g} s for {FULL_DUE:,}", one.rate >= FULL_DUE / FIRED_SECONDS)
        return (
            f"{one.timers:,} due at once",
            f"{one.seconds:.1f}",
            f"{one.rate:,.0f}",
            "",
            "",
            "",
            str(one.errors),
            goal,
        )
    late = f"{one.p50:.0f}", f"{one.p99:.0f}", f"{one.latest:.0f}"
    goal = verdict(f"latest ≤ {LATE_MS:,.0f} ms", one.latest <= LATE_MS)
    return f"{one.timers:,} due at 1,000 a second", "", "", *late, str(one.errors), goal
