"""What it costs to hand out a workflow task of a run with a long log: to a worker that has the log, and to one that has
nothing of it. One connection, one run: signalled, claimed, submitted, over and over.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from bench import bodies, load, stock
from bench.engine import Engine
from bench.history import appends
from bench.job import Job, percentile
from bench.server import Running, serving, settle
from bench.table import Table, verdict

EVENTS, TURNS, WHOLE = 10_000, 200, 10
AT_ONCE = 500
P50 = 5.0
"""The goal, in milliseconds, for a worker that has the log."""
HISTORY_MAX = 10_000
"""How much of a log the service puts into one task."""


class Handed(msgspec.Struct):
    """Claims of one run with so many events, in milliseconds; `since` is whether the worker had the log."""

    engine: str
    events: int
    since: bool
    p50: float
    p99: float
    errors: int


class Known(NamedTuple):
    """How far a worker has a log, and when the last event of that was written."""

    sequence: int
    at: int


NOTHING = Known(0, 0)


def turn(running: Running, execution: str, queue: str, known: Known) -> tuple[float, int, Known]:
    """Signal it, claim its task with the log after what is known, submit nothing: milliseconds that the claim took, how
    many events it brought, and what is known then."""
    target = running.target
    stock.send(target, [target.post(f"{bodies.EXECUTIONS}/{execution}/signals/go", {})], connections=1)
    since = {"since": {execution: known.sequence}, "since_at": {execution: known.at}}
    claim = target.post(bodies.CLAIM_TASK, bodies.claim_task(queue, **since))
    outcome = load.run(Job(running.port, [claim], 1, 60, expect=(b'"task_id":', 1)), keep=True)
    (task,) = stock.TASKS.decode(outcome.bodies[0]).items
    if task.execution_id != execution:
        raise RuntimeError("the task of another run was claimed")
    stock.send(target, [stock.submission(target, task)], connections=1)
    return outcome.p50, len(task.history), Known(task.history_sequence, task.history[-1].at)


def turns(
    running: Running, execution: str, queue: str, count: int, last: Known, whole: int, keep: bool
) -> tuple[list[float], int]:
    """So many turns with a worker that has the log, or with one that has nothing of it; how many brought more, or less,
    than the signal, or than a `whole` answer."""
    taken, wrong = [], 0
    for _ in range(count):
        took, brought, last = turn(running, execution, queue, last if keep else NOTHING)
        taken.append(took)
        wrong += brought != 1 if keep else brought < whole
    return taken, wrong


def measure(engine: Engine, events: int = EVENTS, count: int = TURNS) -> list[Handed]:
    """With the log, then without."""
    with engine.store() as url, serving(url) as running:
        queue = stock.fresh_queue()
        stock.send(running.target, [running.target.post(bodies.EXECUTIONS, bodies.run(queue))])
        task = stock.claimed(running.target, 1, queue)[0]
        stock.send(running.target, [stock.submission(running.target, task)])
        stock.send(running.target, appends(running, task.execution_id, events, AT_ONCE), connections=1)
        settle(1.0)
        found = []
        for keep, times in ((True, count), (False, WHOLE)):
            last = turn(running, task.execution_id, queue, NOTHING)[2]
            last = turn(running, task.execution_id, queue, last)[2]  # of what the first had no room for
            taken, wrong = turns(running, task.execution_id, queue, times, last, min(events, HISTORY_MAX), keep)
            found.append(Handed(engine.name, events, keep, percentile(taken, 0.5), percentile(taken, 0.99), wrong))
        return found


def table(found: Sequence[Handed]) -> Table:
    """One row each."""
    rows = [
        (
            f"{one.events:,} events, " + ("all but the last known" if one.since else "none known"),
            f"{one.p50:.1f}",
            f"{one.p99:.1f}",
            str(one.errors),
            verdict(f"p50 ≤ {P50:g} ms", one.p50 <= P50) if one.since else "",
        )
        for one in found
    ]
    return Table("Claims of a workflow task with a long log", ("log", "p50 ms", "p99 ms", "errors", "goal"), rows)
