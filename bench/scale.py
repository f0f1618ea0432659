"""Several server processes on one store, and what everybody wants at once: one queue, one execution.

Connections are dealt out over the processes. On a machine with few cores the processes, the database and the client
share them, so this shows whether processes get in each other's way, not how far they would scale.
"""

import contextlib
import statistics
from collections.abc import Callable, Sequence

import msgspec

from bench import bodies, cases, load, machine, stock
from bench.engine import Engine
from bench.job import Job, Target
from bench.server import Running, serving, settle
from bench.table import Table

PROCESSES = {"sqlite": (1,), "postgres": (1, 2, 4)}
CONNECTIONS, REQUESTS, PASSES = 64, 4_000, 3


class Scaled(msgspec.Struct):
    """A case with so many processes: commands a second, milliseconds a request, CPU µs a command, all servers
    together."""

    engine: str
    name: str
    processes: int
    rate: float
    p50: float
    p99: float
    server_us: float
    database_us: float | None
    errors: int


def hot_execution(target: Target, count: int) -> list[bytes]:
    """Appends, all to one execution."""
    [execution, *_] = stock.executions(target, 1)
    return [target.post(f"{bodies.EXECUTIONS}/{execution}/events", bodies.append())] * count


def starts(target: Target, count: int) -> list[bytes]:
    """Starts."""
    return cases.start(target, count) * count


def appends(target: Target, count: int) -> list[bytes]:
    """Appends to as many executions."""
    return cases.append(target, count)[:count]


class Kind(msgspec.Struct, frozen=True):
    """A case: what is sent, what each answer holds, how many commands a request is."""

    make: Callable[[Target, int], list[bytes]]
    expect: tuple[bytes, int]
    per: int = 1
    share: float = 1.0
    drains: bool = False


APPENDED = (b'"last_sequence":', 1)
KINDS = {
    "start": Kind(starts, cases.STARTED),
    "transition": Kind(cases.transition, cases.SETTLED),
    "append": Kind(appends, APPENDED),
    "append, one execution": Kind(hot_execution, APPENDED),
    "claim, one queue": Kind(cases.claim, cases.CLAIMED),
    "drain, one queue": Kind(cases.drain, cases.MANY_CLAIMED, cases.MANY // 2, 0.05, drains=True),
}


def one_pass(kind: Kind, engine: Engine, servers: Sequence[Running], requests: int) -> tuple[float, ...]:
    """Rate, p50, p99, CPU of servers and database, errors."""
    first = servers[0]
    made = kind.make(first.target, max(int(requests * kind.share), 100))
    then = cases.completing(first.target) if kind.drains else None
    connections = cases.BATCH_CONNECTIONS * len(servers) if kind.drains else CONNECTIONS
    beside = [one.port for one in servers[1:]]
    settle()

    def clocks() -> tuple[float, float]:
        database = machine.family_seconds(engine.postmaster) if engine.postmaster else 0.0
        return sum(machine.cpu_seconds(one.pid) for one in servers), database

    before = clocks()
    outcome = load.run(Job(first.port, made, connections, 120, expect=kind.expect, then=then, beside=beside))
    each = 1e6 / max(outcome.requests * kind.per, 1)
    server, database = (now - then_ for now, then_ in zip(clocks(), before, strict=True))
    return outcome.rate * kind.per, outcome.p50, outcome.p99, server * each, database * each, outcome.errors


def measure(engine: Engine, requests: int = REQUESTS, passes: int = PASSES) -> list[Scaled]:
    """Every case with every number of processes."""
    found = []
    for processes in PROCESSES[engine.name]:
        with contextlib.ExitStack() as stack:
            url = stack.enter_context(engine.store())
            servers = [stack.enter_context(serving(url)) for _ in range(processes)]
            for name, kind in KINDS.items():
                done = [one_pass(kind, engine, servers, requests) for _ in range(passes + 1)][1:]
                rate, p50, p99, server, database = (statistics.median(one[at] for one in done) for at in range(5))
                told = database if engine.postmaster else None
                errors = int(sum(one[5] for one in done))
                found.append(Scaled(engine.name, name, processes, rate, p50, p99, server, told, errors))
    return found


def table(found: Sequence[Scaled]) -> Table:
    """One row a case and number of processes, beside one process."""
    alone = {one.name: one.rate for one in found if one.processes == 1}
    rows = [
        (
            one.name,
            str(one.processes),
            f"{one.rate / alone[one.name]:.2f}",
            f"{one.rate:,.0f}",
            f"{one.p50:.2f}",
            f"{one.p99:.2f}",
            f"{one.server_us:.0f}",
            "" if one.database_us is None else f"{one.database_us:.0f}",
            str(one.errors),
        )
        for one in sorted(found, key=lambda one: list(KINDS).index(one.name))
    ]
    columns = ("case", "processes", "of one", "per second", "p50 ms", "p99 ms", "server µs", "database µs", "errors")
    return Table("Several processes on one store, and hot spots", columns, rows, ())
