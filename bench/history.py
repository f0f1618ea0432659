"""What an append costs as an execution's log grows: rounds of appends to logs of different lengths, in turn.

The first is a new execution each time, so its log is as short at the end of the run as it was at the beginning.
"""

import statistics
from collections.abc import Sequence

import msgspec

from bench import bodies, load, stock
from bench.engine import Engine
from bench.job import Job
from bench.server import Running, serving, settle
from bench.table import Table, verdict

ROUND, TURNS, CONNECTIONS, AT_ONCE = 500, 24, 16, 500
LENGTHS = (0, 1_000, 10_000)
FULL_LENGTHS = (*LENGTHS, 100_000)
RATIO = 0.9


class Appended(msgspec.Struct):
    """Appends to one execution with so many events; `ratio` is to the round of the new execution in the same turn."""

    engine: str
    events: int
    rate: float
    ratio: float
    p99: float
    errors: int


def appends(running: Running, execution: str, count: int, at_once: int = 1) -> list[bytes]:
    """Requests that append `count` events."""
    body = {"events": bodies.append()["events"] * at_once}
    return [running.target.post(f"{bodies.EXECUTIONS}/{execution}/events", body)] * (count // at_once)


def round_of(running: Running, execution: str) -> tuple[float, float, int]:
    """Appends one by one, all to the same log: rate, p99, errors."""
    requests = appends(running, execution, ROUND)
    outcome = load.run(Job(running.port, requests, CONNECTIONS, 120, expect=(b'"last_sequence":', 1)))
    return outcome.rate, outcome.p99, outcome.errors


def measure(engine: Engine, lengths: Sequence[int] = LENGTHS, turns: int = TURNS) -> list[Appended]:
    """Every length, the shortest first."""
    with engine.store() as url, serving(url) as running:
        long = stock.executions(running.target, len(lengths) - 1)
        fresh = iter(stock.executions(running.target, turns + 1))
        for execution, length in zip(long, lengths[1:], strict=False):
            stock.send(running.target, appends(running, execution, length, AT_ONCE))
        settle(2.0)
        rounds = []
        for _ in range(turns + 1):
            asked = [next(fresh), *long[: len(lengths) - 1]]
            rounds.append([round_of(running, execution) for execution in asked])
    del rounds[0]
    return [
        summary(engine.name, length, [one[0] for one in rounds], [one[at] for one in rounds])
        for at, length in enumerate(lengths)
    ]


def summary(
    engine: str, events: int, first: list[tuple[float, float, int]], mine: list[tuple[float, float, int]]
) -> Appended:
    """The medians of one length."""
    ratio = statistics.median(one[0] / other[0] for one, other in zip(mine, first, strict=True))
    rate, p99 = (statistics.median(one[at] for one in mine) for at in (0, 1))
    return Appended(engine, events, rate, ratio, p99, sum(one[2] for one in mine))


def table(found: Sequence[Appended]) -> Table:
    """One row a length."""
    rows = [
        (
            f"append, {one.events:,} events before",
            f"{one.ratio:.2f}",
            f"{one.rate:,.0f}",
            f"{one.p99:.1f}",
            str(one.errors),
            verdict(f"≥ {RATIO}", one.ratio >= RATIO),
        )
        for one in found
    ]
    columns = ("one execution", "of a new one", "per second", "p99 ms", "errors", "goal")
    return Table("A log as it grows", columns, rows)
