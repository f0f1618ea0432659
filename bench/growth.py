"""Whether the server's memory grows with what it has done: its resident memory after each tenth of many operations.

Starts, claims and completes, most of them in batches of fifty, some one by one; the store grows, the process must not.
"""

from collections.abc import Sequence

import msgspec

from bench import bodies, load, machine, stock
from bench.cases import BATCH_CONNECTIONS, DONE, MANY, STARTED, completing
from bench.engine import Engine
from bench.job import Follow, Job, Target
from bench.server import Running, serving, settle
from bench.table import Table, verdict

OPERATIONS, FULL_OPERATIONS = 50_000, 1_000_000
TENTHS, SINGLE = 10, 0.1
GROWTH = 1.10


class Growth(msgspec.Struct):
    """Resident MiB after each tenth of so many operations."""

    engine: str
    operations: int
    mib: list[float]
    errors: int

    @property
    def ratio(self) -> float:
        """The end beside the second tenth, when everything has been used and remembered."""
        return self.mib[-1] / self.mib[1]


def cycle(target: Target, queue: str) -> Follow:
    """Claim what was just started, and complete it."""
    request = target.post(bodies.CLAIM, bodies.claim(queue, MANY))
    return Follow(lambda _: request, (b'"epoch":', MANY), completing(target))


def tenth(running: Running, queue: str, operations: int) -> int:
    """So many operations; the errors."""
    target, single = running.target, int(operations * SINGLE)
    batches = max(1, (operations - single) // (3 * MANY))
    request = target.post(f"{bodies.EXECUTIONS}:batch", [bodies.start(queue)] * MANY)
    whole = Job(running.port, [request] * batches, BATCH_CONNECTIONS, 600, expect=DONE, then=cycle(target, queue))
    alone = Job(running.port, [target.post(bodies.EXECUTIONS, bodies.start())] * single, 64, 600, expect=STARTED)
    return sum(load.run(job).errors for job in (whole, alone))


def measure(engine: Engine, operations: int = OPERATIONS) -> Growth:
    """On a store of its own, at default settings."""
    found = Growth(engine.name, operations, [], 0)
    with engine.store() as url, serving(url) as running:
        queue = stock.fresh_queue()
        for _ in range(TENTHS):
            found.errors += tenth(running, queue, operations // TENTHS)
            settle()
            found.mib.append(machine.resident_mib(running.pid))
    return found


def table(found: Sequence[Growth]) -> Table:
    """One row a run."""
    rows = [
        (
            f"{one.operations:,} operations",
            f"{one.mib[1]:.0f}",
            f"{one.mib[TENTHS // 2]:.0f}",
            f"{one.mib[-1]:.0f}",
            str(one.errors),
            verdict(f"≤ {GROWTH}", one.ratio <= GROWTH),
        )
        for one in found
    ]
    columns = ("resident MiB of the server", "after 2 tenths", "after 6", "at the end", "errors", "goal")
    return Table("Memory", columns, rows)
