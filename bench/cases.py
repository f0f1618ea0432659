"""The cases: what is sent, what it uses up, and what is asked of the result."""

from collections.abc import Callable
from itertools import islice

import msgspec

from bench import bodies, stock
from bench.job import Target
from bench.server import ANSWERED, FLOOR

MANY = 50
BATCH_CONNECTIONS = 8
WARM = 4_000
Make = Callable[[Target, int], list[bytes]]


class Goal(msgspec.Struct, frozen=True):
    """What a case should reach: a share of the floor, requests per second, a p99 in milliseconds."""

    ratio: float | None = None
    rate: float | None = None
    p99: float | None = None


class Case(msgspec.Struct, frozen=True):
    """One kind of request. `make(target, n)` gives at least `n` requests, having stocked what they use up.

    `per` is the number of commands a request holds; `again` lets the requests be sent over and over; `expect` is what
    every answer must hold (that text, that many times), where the client looks into answers.
    """

    name: str
    make: Make
    goal: Goal = Goal()
    per: int = 1
    connections: int | None = None
    again: bool = False
    expect: tuple[bytes, int] | None = None


def floor(target: Target, _count: int) -> list[bytes]:
    """The body of a start, to the endpoint that runs no command."""
    return [target.post(FLOOR, bodies.start())]


def start(target: Target, _count: int) -> list[bytes]:
    """Starts, each with a first item."""
    return [target.post(bodies.EXECUTIONS, bodies.start())]


def claim(target: Target, count: int) -> list[bytes]:
    """Claims of one item of a queue that holds one for each."""
    queue = stock.ready(target, count)
    return [target.post(bodies.CLAIM, bodies.claim(queue))] * count


def complete(target: Target, count: int) -> list[bytes]:
    """Completes of items of executions that go on."""
    return [
        target.post(f"{bodies.ITEMS}/{lease.id}/complete", bodies.complete(lease.epoch))
        for lease in stock.leases(target, count)
    ]


def transition(target: Target, count: int, *, light: bool = False) -> list[bytes]:
    """Transitions under a lease, each of an execution of its own."""
    return [
        target.post(
            f"{bodies.EXECUTIONS}/{lease.execution_id}/transitions",
            bodies.transition(lease.id, lease.epoch, light=light),
        )
        for lease in stock.leases(target, count)
    ]


def light_transition(target: Target, count: int) -> list[bytes]:
    """Settle and append only."""
    return transition(target, count, light=True)


def append(target: Target, _count: int) -> list[bytes]:
    """Events for four thousand executions in turn."""
    found = stock.executions(target, 4_000)
    return [target.post(f"{bodies.EXECUTIONS}/{one}/events", bodies.append()) for one in found]


def start_many(target: Target, _count: int) -> list[bytes]:
    """Batches of starts."""
    return [target.post("/v1/executions:batch", [bodies.start()] * MANY)]


def claim_many(target: Target, count: int) -> list[bytes]:
    """Claims of fifty."""
    queue = stock.ready(target, count * MANY)
    return [target.post(bodies.CLAIM, bodies.claim(queue, MANY))] * count


def in_batches(target: Target, path: str, entries: list[dict[str, object]]) -> list[bytes]:
    """Batch requests of fifty entries each."""
    rest = iter(entries)
    return [target.post(path, chunk) for chunk in iter(lambda: list(islice(rest, MANY)), []) if len(chunk) == MANY]


def complete_many(target: Target, count: int) -> list[bytes]:
    """Batches of completes."""
    found = stock.leases(target, count * MANY)
    return in_batches(
        target, f"{bodies.ITEMS}:complete", [{"id": one.id, **bodies.complete(one.epoch)} for one in found]
    )


def transition_many(target: Target, count: int) -> list[bytes]:
    """Batches of transitions."""
    found = stock.leases(target, count * MANY)
    entries = [{"execution_id": one.execution_id, **bodies.transition(one.id, one.epoch)} for one in found]
    return in_batches(target, "/v1/transitions:batch", entries)


P99 = 25.0
DONE, SETTLED = (b'{"ok":', MANY), (b'"outcome":"completed"', 1)
FLOOR_CASE = Case("floor", floor, Goal(rate=15_000, p99=P99), again=True, expect=(ANSWERED.encode(), 2))
CASES = [
    FLOOR_CASE,
    Case("start", start, Goal(0.45, p99=P99), again=True, expect=(b'"created":true', 1)),
    Case("claim", claim, Goal(0.65, p99=P99), expect=(b'"epoch":', 1)),
    Case("complete", complete, Goal(0.50, p99=P99), expect=SETTLED),
    Case("transition", transition, Goal(0.50, p99=P99), expect=SETTLED),
    Case("transition-light", light_transition, Goal(0.50, p99=P99), expect=SETTLED),
    Case("append", append, Goal(p99=P99), again=True, expect=(b'"last_sequence":', 1)),
    Case("transition-alone", transition, connections=1, expect=SETTLED),
    Case("start-50", start_many, Goal(1.3), MANY, BATCH_CONNECTIONS, True, DONE),
    Case("claim-50", claim_many, Goal(1.3), MANY, BATCH_CONNECTIONS, expect=(b'"epoch":', MANY)),
    Case("complete-50", complete_many, Goal(1.3), MANY, BATCH_CONNECTIONS, expect=DONE),
    Case("transition-50", transition_many, Goal(1.3), MANY, BATCH_CONNECTIONS, expect=DONE),
]
"""`transition-alone` has one connection; batches have eight, which is 400 commands under way."""
