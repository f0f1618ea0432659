"""What the cases use up, made through the batch endpoints of the running server: ready items, leases, executions."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import msgspec

from bench import bodies, load
from bench.job import Job, Target

AT_ONCE = 1_000
names = itertools.count(1)


class Lease(msgspec.Struct, frozen=True):
    """A claimed item: what settles it."""

    id: str
    epoch: int
    execution_id: str | None = None


class Claims(msgspec.Struct):
    """The answer of a claim, as far as it matters here."""

    items: list[Lease]


class Started(msgspec.Struct):
    """One entry of the answer to a batch of starts."""

    execution_id: str


class Ok(msgspec.Struct):
    """A command of a batch that was done."""

    ok: Started


class Batch(msgspec.Struct):
    """The answer to a batch of starts."""

    results: list[Ok]


def fresh_queue() -> str:
    """A queue that nobody has used."""
    return f"bench-{next(names)}"


def send(
    target: Target,
    requests: list[bytes],
    expect: tuple[bytes, int] | None = None,
    *,
    keep: bool = False,
    connections: int = 4,
) -> list[bytes]:
    """Send requests that must all succeed; their answers, if they are to be kept."""
    outcome = load.run(Job(target.port, requests, connections, seconds=600, expect=expect), keep=keep)
    if outcome.errors:
        raise RuntimeError(f"the stock could not be made: {outcome.said}")
    return outcome.bodies


def batches(target: Target, path: str, body: dict[str, Any], count: int, *, keep: bool = False) -> list[bytes]:
    """Send `body` at least `count` times, a thousand in a request."""
    request = target.post(path, [body] * AT_ONCE)
    return send(target, [request] * math.ceil(count / AT_ONCE), (b'{"ok":', AT_ONCE), keep=keep)


def executions(target: Target, count: int, queue: str | None = None) -> list[str]:
    """Started executions, each with an item on `queue`."""
    answers = batches(target, "/v1/executions:batch", bodies.start(queue or fresh_queue()), count, keep=True)
    decoder = msgspec.json.Decoder(Batch)
    return [result.ok.execution_id for answer in answers for result in decoder.decode(answer).results]


def ready(target: Target, count: int, queue: str | None = None) -> str:
    """A queue with at least `count` ready items without executions."""
    queue = queue or fresh_queue()
    batches(target, "/v1/work-items:batch", bodies.item(queue), count)
    return queue


def leases(target: Target, count: int) -> list[Lease]:
    """Claimed items, each the first of an execution of its own."""
    queue = fresh_queue()
    made = len(executions(target, count, queue))
    request = target.post(bodies.CLAIM, bodies.claim(queue, AT_ONCE))
    answers = send(target, [request] * math.ceil(made / AT_ONCE), keep=True)
    decoder = msgspec.json.Decoder(Claims)
    found = [lease for answer in answers for lease in decoder.decode(answer).items]
    if len(found) < count:
        raise RuntimeError(f"{count} leases were wanted and {len(found)} claimed")
    return found


class Event(msgspec.Struct):
    """An event of a task's history, as far as it matters here."""

    sequence: int
    kind: str
    at: int
    body: msgspec.Raw = msgspec.Raw(b"null")


class TaskLease(msgspec.Struct):
    """A claimed workflow task: what settles it, and its history."""

    task_id: str
    epoch: int
    execution_id: str
    history_sequence: int
    history: list[Event]


class Tasks(msgspec.Struct):
    """The answer of a claim of workflow tasks."""

    items: list[TaskLease]


TASKS_AT_ONCE = 100
TASKS = msgspec.json.Decoder(Tasks)


def runs(target: Target, count: int, queue: str | None = None) -> str:
    """A queue on which so many runs wait for their first workflow task to be claimed."""
    queue = queue or fresh_queue()
    batches(target, "/v1/executions:batch", bodies.run(queue), count)
    return queue


def claimed(target: Target, count: int, queue: str) -> list[TaskLease]:
    """So many workflow tasks of a queue, claimed."""
    request = target.post(bodies.CLAIM_TASK, bodies.claim_task(queue, TASKS_AT_ONCE))
    answers = send(target, [request] * math.ceil(count / TASKS_AT_ONCE), keep=True)
    found = [task for answer in answers for task in TASKS.decode(answer).items]
    if len(found) < count:
        raise RuntimeError(f"{count} workflow tasks were wanted and {len(found)} claimed")
    return found


def tasks(target: Target, count: int) -> list[TaskLease]:
    """First workflow tasks of runs of their own, claimed."""
    return claimed(target, count, runs(target, count))


def waiting(target: Target, count: int, fire_at: Callable[[int], int]) -> str:
    """A queue of runs that each wait for a timer, the n-th until `fire_at(n)`."""
    queue = runs(target, count)
    taken = claimed(target, count, queue)
    made = [submission(target, task, bodies.timer(1, fire_at(at))) for at, task in enumerate(taken)]
    send(target, made, connections=64)
    return queue


def submission(target: Target, task: TaskLease, *made: dict[str, Any]) -> bytes:
    """The request that settles a task."""
    body = bodies.commands(task.epoch, task.history_sequence, *made)
    return target.post(f"{bodies.TASKS}/{task.task_id}/commands", body)
