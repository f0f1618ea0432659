"""The cases: what is sent, what it uses up, and what is asked of the result."""

import math
from collections import deque
from collections.abc import Callable
from itertools import islice

import msgspec

from bench import bodies, stock
from bench.job import Follow, Target
from bench.server import ANSWERED, FLOOR

MANY = 50
BATCH_CONNECTIONS = 32
WIDE_CONNECTIONS = 256
WARM = 4_000
Make = Callable[[Target, int], list[bytes]]


class Goal(msgspec.Struct, frozen=True):
    """What a case should reach: a share of the floor, commands per second, a p99 in milliseconds. `rate_on_postgres`
    stands for `rate` there, where each command waits for round trips."""

    ratio: float | None = None
    rate: float | None = None
    p99: float | None = None
    rate_on_postgres: float | None = None

    def on(self, engine: str) -> "Goal":
        """The goal on one engine."""
        rate = self.rate_on_postgres if engine == "postgres" and self.rate_on_postgres else self.rate
        return Goal(self.ratio, rate, self.p99)


class Case(msgspec.Struct, frozen=True):
    """One kind of request. `make(target, n)` gives at least `n` requests, having stocked what they use up.

    `per` is the number of commands a request holds, or the part of one that it is; `again` lets the requests be sent
    over and over; `expect` is what every answer must hold (that text, that many times), where the client looks into
    answers. `then(target)` is what follows each answer; it counts as a request, so `per` is then what the two hold on
    average.
    """

    name: str
    make: Make
    goal: Goal = Goal()
    per: float = 1
    connections: int | None = None
    again: bool = False
    expect: tuple[bytes, int] | None = None
    then: Callable[[Target], Follow] | None = None


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


def transition_many(target: Target, count: int, *, light: bool = False) -> list[bytes]:
    """Batches of transitions."""
    found = stock.leases(target, count * MANY)
    entries = [{"execution_id": one.execution_id, **bodies.transition(one.id, one.epoch, light=light)} for one in found]
    return in_batches(target, "/v1/transitions:batch", entries)


def light_transition_many(target: Target, count: int) -> list[bytes]:
    """Batches of those that settle and append only."""
    return transition_many(target, count, light=True)


def drain(target: Target, count: int) -> list[bytes]:
    """Claims of fifty; each is followed by the completion of what it got."""
    return claim_many(target, math.ceil(count / 2))


def completing(target: Target) -> Follow:
    """The completion of all that a claim got."""
    decoder = msgspec.json.Decoder(stock.Claims)

    def make(body: bytes) -> bytes | None:
        done = [{"id": one.id, **bodies.complete(one.epoch)} for one in decoder.decode(body).items]
        return target.post(f"{bodies.ITEMS}:complete", done) if done else None

    return Follow(make, DONE)


def completing_one(target: Target) -> Follow:
    """The completion of the item that a claim got."""
    decoder = msgspec.json.Decoder(stock.Claims)

    def make(body: bytes) -> bytes:
        (item,) = decoder.decode(body).items
        return target.post(f"{bodies.ITEMS}/{item.id}/complete", bodies.complete(item.epoch))

    return Follow(make, SETTLED)


def worker_loop(target: Target, count: int) -> list[bytes]:
    """Claims, each the first of a loop."""
    queue = stock.ready(target, count, bodies.QUEUE)
    return [target.post(bodies.CLAIM, bodies.claim(queue))] * math.ceil(count / ROUNDS)


def settling(target: Target) -> Follow:
    """After a claim so many more, each of which settles what the one before got."""
    decoder = msgspec.json.Decoder(stock.Claims)

    def make(body: bytes) -> bytes:
        done = [{"complete": {"id": one.id} | bodies.complete(one.epoch)} for one in decoder.decode(body).items]
        return target.post(bodies.CLAIM, bodies.claim() | {"settle": done})

    follow = Follow(make, CLAIMED)
    for _ in range(ROUNDS - 2):
        follow = Follow(make, CLAIMED, follow)
    return follow


def workflow_task(target: Target, count: int) -> list[bytes]:
    """In turn a claim of a workflow task, from a queue that holds one for each, and the commands of one that was
    claimed before: an activity."""
    half = math.ceil(count / 2)
    claim = target.post(bodies.CLAIM_TASK, bodies.claim_task(stock.runs(target, half)))
    made = [stock.submission(target, task, bodies.activity()) for task in stock.tasks(target, half)[:half]]
    return [request for submit in made for request in (claim, submit)]


SPARE, ROUNDS = 2_000, 50
STEPS, LOOPS, TEN = 7, 4, 10


def workflow_one(target: Target, _count: int) -> list[bytes]:
    """Starts of workflows of one activity; what follows a start is as much work as one workflow is. Some were started
    before, so that there is always something to claim."""
    stock.runs(target, SPARE, bodies.QUEUE)
    return [target.post(bodies.EXECUTIONS, bodies.run())]


def working(target: Target) -> Follow:
    """After a start: a task and its commands, an activity and its completion, a task and its commands. Whoever's they
    are: what a task asks for is told by its history."""
    claim = target.post(bodies.CLAIM_TASK, bodies.claim_task())
    claim_activity = target.post(bodies.CLAIM_ACTIVITY, bodies.claim_activity())
    activities = msgspec.json.Decoder(stock.Claims)

    def decide(body: bytes) -> bytes:
        (task,) = stock.TASKS.decode(body).items
        return stock.submission(target, task, next_of(task))

    def complete(body: bytes) -> bytes:
        (item,) = activities.decode(body).items
        return target.post(f"{bodies.ACTIVITIES}/{item.id}/complete", bodies.complete(item.epoch))

    def task(then: Follow | None) -> Follow:
        return Follow(lambda _: claim, CLAIMED, Follow(decide, SUBMITTED, then))

    done = Follow(lambda _: claim_activity, CLAIMED, Follow(complete, SETTLED, task(None)))
    return task(done)


def workflows(target: Target, _count: int) -> list[bytes]:
    """The same, ten in a request: starts of ten workflows, with some that were started before."""
    stock.runs(target, SPARE, bodies.QUEUE)
    return [target.post(f"{bodies.EXECUTIONS}:batch", [bodies.run()] * TEN)]


def working_on_many(target: Target) -> Follow:
    """After ten starts: ten tasks and their commands, ten activities and their completions, ten tasks and their
    commands. Whoever's they are."""
    claim = target.post(bodies.CLAIM_TASK, bodies.claim_task(most=TEN))
    claim_activities = target.post(bodies.CLAIM_ACTIVITY, bodies.claim_activity(most=TEN))
    activities = msgspec.json.Decoder(stock.Claims)

    def decide(body: bytes) -> bytes:
        said = [
            {"id": one.task_id} | bodies.commands(one.epoch, one.history_sequence, next_of(one))
            for one in stock.TASKS.decode(body).items
        ]
        return target.post(f"{bodies.TASKS}:submit", said)

    def complete(body: bytes) -> bytes:
        done = [{"id": one.id} | bodies.complete(one.epoch) for one in activities.decode(body).items]
        return target.post(f"{bodies.ACTIVITIES}:complete", done)

    def task(then: Follow | None) -> Follow:
        return Follow(lambda _: claim, TEN_CLAIMED, Follow(decide, TEN_DONE, then))

    done = Follow(lambda _: claim_activities, TEN_CLAIMED, Follow(complete, TEN_DONE, task(None)))
    return task(done)


class Hands:
    """What the workers of a workflow hold: every claim hands in what an earlier one brought."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._tasks: deque[stock.TaskLease] = deque()
        self._activities: deque[stock.Lease] = deque()
        self._decoder = msgspec.json.Decoder(stock.Claims)

    def claim_task(self, _body: bytes) -> bytes:
        """A claim of a task, with what the workflow of another asks for."""
        held = [self._tasks.popleft()] if self._tasks else []
        settle = [{"id": one.task_id} | bodies.commands(one.epoch, one.history_sequence, next_of(one)) for one in held]
        return self._target.post(bodies.CLAIM_TASK, bodies.claim_task(settle=settle))

    def claim_activity(self, body: bytes) -> bytes:
        """Having been given a task: a claim of an activity, with the completion of another."""
        self._tasks += stock.TASKS.decode(body).items
        held = [self._activities.popleft()] if self._activities else []
        settle = [{"complete": {"id": one.id} | bodies.complete(one.epoch)} for one in held]
        return self._target.post(bodies.CLAIM_ACTIVITY, bodies.claim_activity() | {"settle": settle})

    def claim_next_task(self, body: bytes) -> bytes:
        """Having been given an activity: a claim of a task."""
        self._activities += self._decoder.decode(body).items
        return self.claim_task(body)

    def keep(self, body: bytes) -> None:
        """Having been given a task: nothing more."""
        self._tasks += stock.TASKS.decode(body).items


def workflow_loop(target: Target, count: int) -> list[bytes]:
    """Starts of workflows of one activity, for workers whose loop is one request. Some activities wait already."""
    requests = workflow_one(target, count)
    ahead = stock.claimed(target, SPARE // 10, bodies.QUEUE)
    stock.send(target, [stock.submission(target, task, bodies.activity()) for task in ahead])
    return requests


def looping(target: Target) -> Follow:
    """After a start: claims of a task, an activity, a task, each with what an earlier one of its kind brought."""
    hands = Hands(target)
    task = Follow(hands.claim_next_task, CLAIMED, Follow(hands.keep))
    return Follow(hands.claim_task, CLAIMED, Follow(hands.claim_activity, CLAIMED, task))


def next_of(task: stock.TaskLease) -> dict[str, object]:
    """What the workflow asks for: its activity, or to end."""
    done = any(event.kind == "activity.completed" for event in task.history)
    return bodies.DONE if done else bodies.activity()


P99, WIDE_P99 = 18.0, 60.0
TEN_CLAIMED, TEN_DONE = (b'"epoch":', TEN), (b'{"ok":', TEN)
DONE, SETTLED = (b'{"ok":', MANY), (b'"outcome":"completed"', 1)
FLOOR_CASE = Case("floor", floor, Goal(rate=15_000, p99=P99), again=True, expect=(ANSWERED.encode(), 2))
SUBMITTED, OF_RUN = (b'"task_id":', 1), (b'"execution_id":', 1)
STARTED, CLAIMED, MANY_CLAIMED = (b'"created":true', 1), (b'"epoch":', 1), (b'"epoch":', MANY)
CASES = [
    FLOOR_CASE,
    Case("start", start, Goal(0.50, p99=P99), again=True, expect=STARTED),
    Case("claim", claim, Goal(0.70, p99=P99), expect=CLAIMED),
    Case("complete", complete, Goal(0.55, p99=P99), expect=SETTLED),
    Case("transition", transition, Goal(0.55, p99=P99), expect=SETTLED),
    Case("transition-light", light_transition, Goal(0.55, p99=P99), expect=SETTLED),
    Case("append", append, Goal(0.60, p99=P99), again=True, expect=(b'"last_sequence":', 1)),
    Case("transition-alone", transition, Goal(rate=2_000, rate_on_postgres=1_200), connections=1, expect=SETTLED),
    Case("worker-alone", claim, per=1 / 2, connections=1, expect=CLAIMED, then=completing_one),
    Case("worker-alone-loop", worker_loop, connections=1, expect=CLAIMED, then=settling),
    Case("start-50", start_many, Goal(1.6), MANY, BATCH_CONNECTIONS, True, DONE),
    Case("claim-50", claim_many, Goal(1.6), MANY, BATCH_CONNECTIONS, expect=MANY_CLAIMED),
    Case("complete-50", complete_many, Goal(1.6), MANY, BATCH_CONNECTIONS, expect=DONE),
    Case("transition-50", transition_many, Goal(1.6), MANY, BATCH_CONNECTIONS, expect=DONE),
    Case("transition-light-50", light_transition_many, Goal(1.6), MANY, BATCH_CONNECTIONS, expect=DONE),
    Case("drain", drain, Goal(1.4, 40_000), MANY // 2, BATCH_CONNECTIONS, expect=MANY_CLAIMED, then=completing),
    Case("workflow-task", workflow_task, Goal(0.45, p99=P99), expect=OF_RUN),
    Case("workflow-one", workflow_one, Goal(rate=1_000), 1 / STEPS, 32, True, STARTED, working),
    Case("workflow-one-loop", workflow_loop, Goal(rate=1_000), 1 / LOOPS, 32, True, STARTED, looping),
    Case("workflow-one-10", workflows, Goal(rate=1_000), TEN / STEPS, 32, True, TEN_DONE, working_on_many),
    Case("start-wide", start, Goal(p99=WIDE_P99), connections=WIDE_CONNECTIONS, again=True, expect=STARTED),
    Case("claim-wide", claim, Goal(p99=WIDE_P99), connections=WIDE_CONNECTIONS, expect=CLAIMED),
    Case("complete-wide", complete, Goal(p99=WIDE_P99), connections=WIDE_CONNECTIONS, expect=SETTLED),
    Case("transition-wide", transition, Goal(p99=WIDE_P99), connections=WIDE_CONNECTIONS, expect=SETTLED),
]
"""`-alone` has one connection, `-wide` 256; batches and the drain have 32, which is 1,600 commands under way; a
workflow is counted once for its seven requests."""
