"""Work over HTTP."""

import re
from typing import Any, Literal

import msgspec

from backends.protocol import Row, Tx
from service.errors import StateError, not_found
from service.http.batch import Batch, batch
from service.http.endpoint import CURSOR, LIMIT, Call, Endpoint, Query, command, decode, fill
from service.http.lists import ALL, Page, listed, where
from service.kernel.ids import NAME_PATTERN, Name
from service.kernel.raw import shown
from service.work.model import (
    BUCKET_MS,
    MAIN,
    RATES_MS,
    SETTLED_MS,
    Claims,
    ClaimWork,
    CompleteWork,
    DeadLetterWork,
    DiscardDead,
    Enqueued,
    EnqueueWork,
    FailWork,
    PauseQueue,
    Queue,
    Reclaimed,
    ReclaimLeases,
    Redrive,
    RedriveDead,
    Redriving,
    ReleaseWork,
    Renewed,
    RenewLease,
    RequeueDead,
    Settled,
    StartRedrive,
    shelf,
)
from service.work.reach import reached
from service.work.redrive import count
from service.work.rules import not_yours, shown_status
from service.work.vocabulary import VOCABULARY
from service.work.waiting import claimed

COUNTED_MAX, COUNTED_OF_A_PAGE = 5_000, 20_000
"""Items of a queue are counted up to so many, and those of a page of queues up to so many together, in equal shares."""
CLAIM = msgspec.json.Decoder(ClaimWork)
PAUSE = msgspec.json.Decoder(PauseQueue)
REDRIVE = msgspec.json.Decoder(RedriveDead)


class ShownItem(msgspec.Struct, frozen=True):
    """A work item with everything that is known of it."""

    id: str
    execution_id: str | None
    node_id: str | None
    queue: str
    drives: str
    priority: int
    ready_at: int
    attempt: int
    max_attempts: int
    retry: msgspec.Raw | None
    required_capabilities: list[str]
    dedup_key: str | None
    concurrency_key: str | None
    status: str
    lease: dict[str, Any] | None
    progress: msgspec.Raw | None
    errors: msgspec.Raw
    payload: msgspec.Raw | None
    result: msgspec.Raw | None
    created_at: int
    settled_at: int | None


def show(row: Row) -> ShownItem:
    """A stored row as it is answered."""
    lease = None
    if row[13] == "leased":
        lease = {"worker_id": row[14], "epoch": row[15], "expires_at": row[16]}
    return ShownItem(  # type: ignore[call-arg]  # the length of a slice is not known
        *row[:9],
        shown(row[9]),
        [name for name in row[10].split(",") if name],
        row[11],
        row[12],
        shown_status(row[13]),
        lease,
        shown(row[17]),
        shown(row[18]) or msgspec.Raw(b"[]"),
        shown(row[19]),
        shown(row[20]),
        row[21],
        row[22],
    )


async def claim(call: Call) -> Claims:
    """Claim; with `wait_ms`, wait for something to claim."""
    return await claimed(call, decode(CLAIM, call.body))


async def get(call: Call) -> ShownItem:
    """One item; a worker sees those of its queues."""

    async def read(tx: Tx) -> Row | None:
        return await tx.one("read_work_item", tenant_id=call.who.tenant_id, id=call.path["id"])

    row = await call.services.backend.read(read, tenants=call.who.reach)
    if row is None or not call.who.may_use(row[3]):
        raise not_found("work item", call.path["id"])
    return show(row)


async def list_items(call: Call) -> Page:
    """Items by id, filtered."""
    query = call.query
    names = ("queue", "execution_id", "status")
    condition = where(query["filter"], VOCABULARY, **{name: query[name] for name in names})
    return await listed(
        call,
        "list_work_items",
        ("",),
        ("after",),
        show,
        lambda row: (row[0],),
        where=await reached(call.services.backend, call.who, condition),
        scan=True,
        tenant_id=call.who.tenant_id,
    )


async def list_dead(call: Call) -> Page:
    """Dead letters, the oldest first."""
    query = call.query
    names = ("queue", "execution_id", "error_type")
    condition = where(query["filter"], VOCABULARY, **{name: query[name] for name in names})
    return await listed(
        call,
        "list_dead_letters",
        (0, ""),
        ("at", "after"),
        show,
        lambda row: (row[22], row[0]),
        where=await reached(call.services.backend, call.who, condition),
        scan=True,
        tenant_id=call.who.tenant_id,
    )


async def get_dead(call: Call) -> ShownItem:
    """One dead letter."""
    item = await get(call)
    if item.status != "dead":
        raise not_found("dead letter", call.path["id"])
    return item


async def redrive(call: Call) -> Any:
    """Count the dead letters that match and, unless it is a dry run, begin to requeue them."""
    asked = decode(REDRIVE, call.body)
    if not call.who.may_grant([asked.queue or "*"]):  # a job has no token: the queue that it is for bounds it
        raise not_yours(call.who, asked.queue or "*")
    detail = Redrive(asked.filter, asked.queue, asked.error_type, asked.rate_per_second)
    if asked.dry_run:
        await call.services.tokens.stands(call.who)
    async with call.services.scans.of(call.who.tenant_id):
        total = await count(call.services.backend, call.who.tenant_id, detail)
    if asked.dry_run:
        return Redriving(total, None, False)
    return await call.run(StartRedrive(detail, total))


async def discard(call: Call) -> Settled:
    """Put a dead letter away."""
    return await call.run(DiscardDead(call.path["id"]))  # type: ignore[no-any-return]


def pausing(paused: bool) -> Any:
    """A handler that pauses or resumes the queue of the path."""

    async def handle(call: Call) -> Queue:
        if re.fullmatch(NAME_PATTERN, call.path["name"]) is None:
            raise StateError("request/malformed", "A queue's name is 1–128 of A–Z a–z 0–9 _ . : -.")
        made = decode(PAUSE, call.body) if call.body else PauseQueue()
        fill(made, "name", call.path["name"])
        msgspec.structs.force_setattr(made, "paused", paused)
        msgspec.structs.force_setattr(made, "name", shelf(call.query["namespace"], made.name))
        return await call.run(made)  # type: ignore[no-any-return]

    return handle


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


ENQUEUE_LIMITS = ("limit/ready-work-items", "limit/payload-bytes", "limit/events-per-execution")
SETTLE_ERRORS = ("not-found", "lease/stale", "lease/not-held", "lease/settled", "execution/terminal")
FILTER = Query("filter", str, None, "A filter: `queue = 'emails' AND attempt > 1`.")
OF_QUEUE = Query("queue", str, None, "Only this queue.")
OF_TYPE = Query("error_type", str, None, "Only those whose last error has this type.")
OF_EXECUTION = Query("execution_id", str, None, "Only items of this execution.")
OF_NAMESPACE = Query("namespace", Name, MAIN, "The namespace that the queue is in.")
Shelves = Literal["ready", "delayed", "leased", "completed", "dead", "cancelled", "discarded"]

ENDPOINTS = [
    Endpoint(
        "POST",
        "/v1/work-items",
        "enqueueWork",
        "work.enqueue",
        "Enqueue a work item",
        command(EnqueueWork),
        reply=Enqueued,
        body=EnqueueWork,
        created=True,
        errors=("not-found", "execution/terminal", "work/conflict", *ENQUEUE_LIMITS, "auth/queue"),
    ),
    Endpoint(
        "POST",
        "/v1/work-items:batch",
        "enqueueWorkItems",
        "work.enqueue",
        "Enqueue up to 1,000 work items",
        batch(EnqueueWork),
        reply=Batch,
        item=Enqueued,
        body=list[EnqueueWork],
    ),
    Endpoint(
        "POST",
        "/v1/work-items:claim",
        "claimWork",
        "work.claim",
        "Claim work under a lease",
        claim,
        reply=Claims,
        body=ClaimWork,
        errors=("auth/queue",),
    ),
    Endpoint(
        "POST",
        "/v1/work-items:complete",
        "completeWorkItems",
        "work.claim",
        "Complete up to 1,000 work items",
        batch(CompleteWork),
        reply=Batch,
        item=Settled,
        body=list[CompleteWork],
    ),
    Endpoint(
        "GET",
        "/v1/work-items",
        "listWorkItems",
        "read",
        "List work items",
        list_items,
        reply=Page,
        item=ShownItem,
        writes=False,
        query=(LIMIT, CURSOR, FILTER, OF_QUEUE, OF_EXECUTION, Query("status", Shelves, None, "Only this status.")),
        errors=("request/filter", "request/cursor"),
    ),
    Endpoint(
        "GET",
        "/v1/work-items/{id}",
        "getWorkItem",
        "work.read",
        "One work item",
        get,
        reply=ShownItem,
        writes=False,
        errors=("not-found",),
    ),
    Endpoint(
        "POST",
        "/v1/work-items/{id}/renew",
        "renewLease",
        "work.claim",
        "Keep a lease",
        command(RenewLease, id="id"),
        reply=Renewed,
        body=RenewLease,
        errors=("not-found", "lease/stale", "lease/not-held", "lease/settled"),
    ),
    Endpoint(
        "POST",
        "/v1/work-items/{id}/complete",
        "completeWork",
        "work.claim",
        "Settle an item as done",
        command(CompleteWork, id="id"),
        reply=Settled,
        body=CompleteWork,
        errors=SETTLE_ERRORS,
    ),
    Endpoint(
        "POST",
        "/v1/work-items/{id}/fail",
        "failWork",
        "work.claim",
        "Settle an attempt as failed",
        command(FailWork, id="id"),
        reply=Settled,
        body=FailWork,
        errors=SETTLE_ERRORS,
    ),
    Endpoint(
        "POST",
        "/v1/work-items/{id}/release",
        "releaseWork",
        "work.claim",
        "Hand an item back unworked",
        command(ReleaseWork, id="id"),
        reply=Settled,
        body=ReleaseWork,
        errors=SETTLE_ERRORS,
    ),
    Endpoint(
        "POST",
        "/v1/work-items/{id}/dead-letter",
        "deadLetterWork",
        "work.dead_letter",
        "Give an item up for good",
        command(DeadLetterWork, id="id"),
        reply=Settled,
        body=DeadLetterWork,
        errors=(*SETTLE_ERRORS, "work/terminal"),
    ),
    Endpoint(
        "POST",
        "/v1/leases:renew",
        "renewLeases",
        "work.claim",
        "Keep up to 1,000 leases",
        batch(RenewLease),
        reply=Batch,
        item=Renewed,
        body=list[RenewLease],
    ),
    Endpoint(
        "POST",
        "/v1/leases:reclaim",
        "reclaimLeases",
        "sweep",
        "Take back leases that ran out, of all tenants",
        command(ReclaimLeases),
        reply=Reclaimed,
        body=ReclaimLeases,
    ),
    Endpoint(
        "GET",
        "/v1/dead-letters",
        "listDeadLetters",
        "read",
        "List dead letters",
        list_dead,
        reply=Page,
        item=ShownItem,
        writes=False,
        query=(LIMIT, CURSOR, FILTER, OF_QUEUE, OF_EXECUTION, OF_TYPE),
        errors=("request/filter", "request/cursor"),
    ),
    Endpoint(
        "GET",
        "/v1/dead-letters/{id}",
        "getDeadLetter",
        "read",
        "One dead letter",
        get_dead,
        reply=ShownItem,
        writes=False,
        errors=("not-found",),
    ),
    Endpoint(
        "POST",
        "/v1/dead-letters/{id}/requeue",
        "requeueDeadLetter",
        "work.operate",
        "Give a dead letter another life",
        command(RequeueDead, id="id"),
        reply=Settled,
        body=RequeueDead,
        errors=("not-found", "dead-letter/settled", "execution/terminal", "work/conflict", "limit/ready-work-items"),
    ),
    Endpoint(
        "POST",
        "/v1/dead-letters:redrive",
        "redriveDeadLetters",
        "work.operate",
        "Requeue all dead letters that match",
        redrive,
        reply=Redriving,
        body=RedriveDead,
        created=True,
        errors=("request/filter", "request/too-slow"),
    ),
    Endpoint(
        "DELETE",
        "/v1/dead-letters/{id}",
        "discardDeadLetter",
        "work.operate",
        "Put a dead letter away",
        discard,
        reply=Settled,
        errors=("not-found", "dead-letter/settled"),
    ),
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
        reply=Queue,
        body=PauseQueue,
        query=(OF_NAMESPACE,),
    ),
    Endpoint(
        "POST",
        "/v1/queues/{name}/resume",
        "resumeQueue",
        "work.operate",
        "Hand out a queue's items again",
        pausing(False),
        reply=Queue,
        body=PauseQueue,
        query=(OF_NAMESPACE,),
    ),
]
