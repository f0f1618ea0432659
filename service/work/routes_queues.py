"""Queues over HTTP: how they stand, and whether their items are handed out."""

import re
from typing import Any

import msgspec

from backends.protocol import Row, Tx
from service.errors import StateError, invalid
from service.http.endpoint import CURSOR, LIMIT, Call, Endpoint, Query, decode, fill
from service.http.lists import ALL, Page, listed
from service.kernel.ids import NAME_PATTERN, NAMES, Name
from service.work.model import BUCKET_MS, MAIN, RATES_MS, SETTLED_MS, PauseQueue, Queue, queue_in
from service.work.reach import reached

COUNTED_MAX, COUNTED_OF_A_PAGE = 5_000, 20_000
"""Items of a queue are counted up to so many, and those of a page of queues up to so many together, in equal shares."""
PAUSE = msgspec.json.Decoder(PauseQueue)


def pausing(paused: bool) -> Any:
    """A handler that pauses or resumes the queue of the path."""

    async def handle(call: Call) -> Queue:
        if re.fullmatch(NAME_PATTERN, call.path["name"]) is None:
            raise StateError("request/malformed", f"A queue's name is {NAMES}.")
        made = decode(PAUSE, call.body) if call.body else PauseQueue()
        fill(made, "name", call.path["name"])
        if made.paused not in (None, paused):
            raise invalid([("/paused", "the path says otherwise; leave it out of the body")])
        msgspec.structs.force_setattr(made, "paused", paused)
        msgspec.structs.force_setattr(made, "name", queue_in(call.query["namespace"], made.name))
        return await call.run(made)  # type: ignore[no-any-return]

    return handle


class ShownQueue(Queue, frozen=True):
    """A queue that was paused or resumed: since when, and why."""


class Rates(msgspec.Struct, frozen=True):
    """How many items a second, over the last six times ten seconds that ended at least five seconds ago: `enqueued`
    (dead letters that were requeued, too), `claimed`, `completed`, and `failed`: attempts that ended without success,
    with another to follow or not, by a lease that ran out, too. A server that is killed leaves its last seconds out."""

    enqueued: float
    claimed: float
    completed: float
    failed: float


class QueueStats(msgspec.Struct, frozen=True):
    """How a queue stands: what is ready, leased, put off and dead, how long the oldest ready item has waited, how many
    workers serve it that are heard of, and how fast it moves. Items are counted up to 5,000, or fewer where a page has
    many queues: `at_least` names the counts that there may be more of."""

    name: str
    ready: int
    leased: int
    delayed: int
    dead: int
    oldest_ready_ms: int | None
    paused_at: int | None
    note: str | None
    workers: int
    at_least: list[str]
    per_second: Rates


async def queues(call: Call) -> Page:
    """Every queue of the tenant that ever had an item, was paused, or is served."""
    now, tenant = call.services.backend.now(), call.who.tenant_id
    until = (now - SETTLED_MS) // BUCKET_MS * BUCKET_MS

    async def walked(tx: Tx) -> tuple[int, Row | None]:
        names = await tx.all("queue_names", tenant_id=tenant)
        return len(names), await tx.one("count_leased_and_dead", tenant_id=tenant, most=COUNTED_MAX + 1)

    names, both = await call.scan(walked)
    most = min(COUNTED_MAX, COUNTED_OF_A_PAGE // max(1, min(names, call.query["limit"])))
    over = [name for name, count in zip(("leased", "dead"), both or (0, 0), strict=True) if count > COUNTED_MAX]
    return await listed(
        call,
        "list_queues",
        ("",),
        ("after",),
        lambda row: queue_stats(row, now, most, over),
        lambda row: (row[0],),
        where=await reached(call.services.backend, call.who, ALL, "s.queue"),
        scan=True,
        tenant_id=tenant,
        most=most + 1,
        most_held=COUNTED_MAX + 1,
        now=now,
        since=until - RATES_MS,
        until=until,
    )


def queue_stats(row: Row, now: int, most: int, over: list[str]) -> QueueStats:
    """A stored row as it is answered; `over` are the counts that were cut for all queues."""
    name, told, leased, delayed, dead, *rest, enqueued, claimed, completed, failed = row
    ready, _, oldest = (told or "0/").partition("/")
    cut = [said for said, count in (("ready", int(ready)), ("delayed", delayed)) if count > most] + over
    waited = max(0, now - int(oldest)) if oldest else None
    counts = min(int(ready), most), min(leased, COUNTED_MAX), min(delayed, most), min(dead, COUNTED_MAX)
    rates = Rates(*(round(count * 1000 / RATES_MS, 3) for count in (enqueued, claimed, completed, failed)))
    return QueueStats(name, *counts, waited, *rest, cut, rates)  # type: ignore[call-arg]  # as selected


OF_NAMESPACE = Query("namespace", Name, MAIN, "The namespace that the queue is in.")

QUEUES = [
    Endpoint(
        "GET",
        "/v1/queues",
        "listQueues",
        "read",
        "How every queue stands",
        queues,
        reply=Page,
        item=QueueStats,
        query=(LIMIT, CURSOR),
        writes=False,
    ),
    Endpoint(
        "POST",
        "/v1/queues/{name}/pause",
        "pauseQueue",
        "work.operate",
        "Stop handing out a queue's items",
        pausing(True),
        reply=ShownQueue,
        body=PauseQueue,
        bare=True,
        query=(OF_NAMESPACE,),
        errors=("auth/queue", "namespace/unknown", "namespace/deleting"),
    ),
    Endpoint(
        "POST",
        "/v1/queues/{name}/resume",
        "resumeQueue",
        "work.operate",
        "Hand out a queue's items again",
        pausing(False),
        reply=ShownQueue,
        body=PauseQueue,
        bare=True,
        query=(OF_NAMESPACE,),
        errors=("auth/queue", "namespace/unknown", "namespace/deleting"),
    ),
]
