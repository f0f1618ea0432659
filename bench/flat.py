"""What the hot requests cost as a store grows: the same short rounds against stores of different sizes, in turn.

Every size has a store and a server of its own. A turn claims, completes and starts as many, so the queue is as deep
afterwards as before; then it lists, and checks tokens. The sizes take turns, so that a machine that changes its speed
changes it for all of them. A store of a thousand tenants is asked by one of them, and by all.
"""

import contextlib
import statistics
from collections.abc import Iterator, Sequence

import msgspec

from bench import bodies, load, machine, stock
from bench.engine import Engine
from bench.job import Job, Outcome, Target
from bench.server import Running, serving, settle
from bench.table import Table, verdict
from bench.tenants import tenants

ROUND, LISTS, TURNS = 500, 100, 24
SIZES = (1_000, 100_000)
FULL_SIZES = (*SIZES, 1_000_000)
TENANTS, OF_TENANTS = 1_000, 100_000
RATIO = 0.9
LIST, CHECK = f"{bodies.EXECUTIONS}?limit=20", "/v1/tokens/self"
CHEAP = {"argon2_memory_kib": 8, "argon2_time": 1}  # a token is proven once; what is measured comes after


class Place(msgspec.Struct):
    """A store of some size and who asks it; the tenant of `targets[n]` has the queue `q<n>`."""

    name: str
    running: Running
    targets: list[Target]

    def target(self, at: int) -> Target:
        """Whose turn it is."""
        return self.targets[at % len(self.targets)]

    def queue(self, at: int) -> str:
        """That one's queue."""
        return f"q{at % len(self.targets)}"


class Held(msgspec.Struct):
    """A claimed item, with the queue that tells whose it is."""

    id: str
    epoch: int
    queue: str


class Claims(msgspec.Struct):
    """The answer of a claim."""

    items: list[Held]


class Round(msgspec.Struct):
    """One round: requests a second, p99, server CPU µs a request, errors."""

    rate: float
    p99: float
    server_us: float
    errors: int


class Flat(msgspec.Struct):
    """An operation at one size, over all turns; `ratio` is the rate beside the first size's round of the same turn."""

    engine: str
    place: str
    operation: str
    rate: float
    ratio: float
    p99: float
    server_us: float
    errors: int


def round_of(place: Place, requests: list[bytes], connections: int, holds: bytes) -> tuple[Round, Outcome]:
    """Send them all; each answer must hold that text once."""
    before = machine.cpu_seconds(place.running.pid)
    job = Job(place.running.port, requests, connections, 120, expect=(holds, 1))
    outcome = load.run(job, keep=True)
    spent = machine.cpu_seconds(place.running.pid) - before
    return Round(outcome.rate, outcome.p99, spent * 1e6 / max(outcome.requests, 1), outcome.errors), outcome


def turn(place: Place, connections: int, at: int) -> dict[str, Round]:
    """Every operation once; `at` says with which tenant to begin."""

    def send(requests: list[bytes], holds: bytes) -> tuple[Round, Outcome]:
        return round_of(place, requests, connections, holds)

    ones = range(at, at + ROUND)
    claimed, outcome = send(
        [place.target(one).post(bodies.CLAIM, bodies.claim(place.queue(one))) for one in ones], b'"epoch":'
    )
    held = [one for body in outcome.bodies for one in msgspec.json.decode(body, type=Claims).items]
    completed, _ = send([complete(place, one) for one in held], b'"outcome":"completed"')
    started, _ = send(
        [place.target(one).post(bodies.EXECUTIONS, bodies.start(place.queue(one))) for one in ones], b'"created":true'
    )
    listed, _ = send([place.target(one).get(LIST) for one in range(at, at + LISTS)], b'"next_cursor":')
    checked, _ = send([place.target(one).get(CHECK) for one in ones], b'"role":')
    return {"claim": claimed, "complete": completed, "start": started, "list": listed, "token check": checked}


def in_turn(found: Sequence[Place], connections: int, at: int) -> list[dict[str, Round]]:
    """Every place once; each turn another one begins, so that what comes first is nobody's burden."""
    first = at % len(found)
    done = {place.name: turn(place, connections, ROUND * at) for place in (*found[first:], *found[:first])}
    return [done[place.name] for place in found]


def complete(place: Place, held: Held) -> bytes:
    """Settle it, as the tenant whose it is."""
    target = place.target(int(held.queue.removeprefix("q")))
    return target.post(f"{bodies.ITEMS}/{held.id}/complete", bodies.complete(held.epoch))


@contextlib.contextmanager
def places(engine: Engine, sizes: Sequence[int], spread: int) -> Iterator[list[Place]]:
    """The stores, filled: one tenant's at each size, then `spread` tenants', asked by the first and by all."""
    with contextlib.ExitStack() as stack:
        found = []
        for size in sizes:
            running = stack.enter_context(serving(stack.enter_context(engine.store()), **CHEAP))
            stock.executions(running.target, size, "q0")
            found.append(Place(f"{size:,}", running, [running.target]))
        running = stack.enter_context(serving(stack.enter_context(engine.store()), **CHEAP))
        targets = tenants(running, spread)
        each = OF_TENANTS // TENANTS
        path = f"{bodies.EXECUTIONS}:batch"
        fill = [target.post(path, [bodies.start(f"q{at}")] * each) for at, target in enumerate(targets)]
        stock.send(running.target, fill, (b'{"ok":', each))
        stock.executions(targets[0], ROUND + each, "q0")
        found.append(Place(f"{spread:,} tenants, one asks", running, targets[:1]))
        found.append(Place(f"{spread:,} tenants, all ask", running, targets))
        settle(2.0)
        yield found


def measure(
    engine: Engine, connections: int, sizes: Sequence[int] = SIZES, spread: int = TENANTS, turns: int = TURNS
) -> list[Flat]:
    """Every operation at every size, the smallest first."""
    with places(engine, sizes, spread) as found:
        for place in found:
            turn(place, connections, 0)
        rounds = [in_turn(found, connections, at) for at in range(1, turns + 1)]
    return [
        summary(engine.name, place.name, name, [one[0][name] for one in rounds], [one[at][name] for one in rounds])
        for name in rounds[0][0]
        for at, place in enumerate(found)
    ]


def summary(engine: str, place: str, operation: str, first: list[Round], mine: list[Round]) -> Flat:
    """The rounds of one size, each beside the first size's of the same turn."""
    ratio = statistics.median(one.rate / other.rate for one, other in zip(mine, first, strict=True) if other.rate)
    rate, p99 = statistics.median(one.rate for one in mine), statistics.median(one.p99 for one in mine)
    # CPU time is counted in ticks of 10 ms, longer than a fifth of a round: only the mean is worth anything.
    server_us = statistics.fmean(one.server_us for one in mine)
    return Flat(engine, place, operation, rate, ratio, p99, server_us, sum(one.errors for one in mine))


def table(found: Sequence[Flat]) -> Table:
    """One row an operation and size."""
    columns = ("operation", "executions", "of the first", "per second", "p99 ms", "server µs", "errors", "goal")
    rows = [
        (
            one.operation,
            one.place,
            f"{one.ratio:.2f}",
            f"{one.rate:,.0f}",
            f"{one.p99:.1f}",
            f"{one.server_us:.0f}",
            str(one.errors),
            verdict(f"≥ {RATIO}", one.ratio >= RATIO),
        )
        for one in found
    ]
    return Table("Flat cost: the same requests as the store grows", columns, rows, ("executions", "goal"))
