"""This side: the server in a process of its own, asked over HTTP with token and tenant by the client of the bench."""

import msgspec

from bench import bodies, load, stock
from bench.cases import BATCH_CONNECTIONS, CLAIMED, MANY, MANY_CLAIMED, SETTLED, STARTED, completing
from bench.job import Follow, Job, Outcome
from bench.peers import work
from bench.server import Running, serving, settle

CREATED = (b'"created":true', 1)


def finishing(running: Running, queue: str) -> Follow:
    """After a start: claim an item, then settle it and end its execution in one transition."""
    claim = running.target.post(bodies.CLAIM, bodies.claim(queue))
    decoder = msgspec.json.Decoder(stock.Claims)

    def end(body: bytes) -> bytes | None:
        for lease in decoder.decode(body).items:
            return running.target.post(
                f"{bodies.EXECUTIONS}/{lease.execution_id}/transitions", bodies.end(lease.id, lease.epoch)
            )
        return None

    return Follow(lambda _: claim, CLAIMED, Follow(end, SETTLED))


def job(role: str, running: Running, count: int) -> tuple[Job, float]:
    """What is sent, and how many jobs a request is."""
    target, queue = running.target, stock.fresh_queue()
    if role == "enqueue":
        one = target.post(bodies.ITEMS, bodies.item(queue))
        return Job(running.port, [one] * count, work.CALLERS, 600, expect=CREATED), 1
    if role == "batch":
        many = target.post(f"{bodies.ITEMS}:batch", [bodies.item(queue)] * work.BATCH)
        requests = [many] * work.batches(count)
        return Job(running.port, requests, work.BATCH_CALLERS, 600, expect=(b'{"ok":', work.BATCH)), work.BATCH
    if role == "drain":
        stock.ready(target, count + work.BATCH, queue)  # some to spare, so that the last claims find fifty, too
        claims = [target.post(bodies.CLAIM, bodies.claim(queue, MANY))] * (count // MANY)
        then = completing(target)
        return Job(running.port, claims, BATCH_CONNECTIONS, 600, expect=MANY_CLAIMED, then=then), MANY / 2
    start = target.post(bodies.EXECUTIONS, bodies.start(queue))
    return Job(running.port, [start] * count, work.CALLERS, 600, expect=STARTED, then=finishing(running, queue)), 1 / 3


def rate(role: str, url: str, count: int) -> float:
    """Jobs a second, on the empty store at `url`; an answer that is wrong is an error."""
    with serving(url) as running:
        stock.send(running.target, [running.target.post(bodies.ITEMS, bodies.item("warm"))] * work.WARM)
        made, per = job(role, running, count)
        settle()
        outcome: Outcome = load.run(made)
    if outcome.errors:
        raise RuntimeError(f"{role}: {outcome.errors} of {outcome.requests} answers are wrong: {outcome.said}")
    return outcome.rate * per
