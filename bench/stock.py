"""What the cases use up, made through the batch endpoints of the running server: ready items, leases, executions."""

import itertools
import math
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
    target: Target, requests: list[bytes], expect: tuple[bytes, int] | None = None, *, keep: bool = False
) -> list[bytes]:
    """Send requests that must all succeed; their answers, if they are to be kept."""
    outcome = load.run(Job(target.port, requests, connections=4, seconds=600, expect=expect), keep=keep)
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
