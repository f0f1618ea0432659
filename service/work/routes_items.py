"""Work items and their leases over HTTP."""

from typing import Annotated, Any, Literal

import msgspec

from backends.protocol import Row, Tx
from service.errors import not_found
from service.http.batch import BATCH_MAX, Batch, batch, results
from service.http.endpoint import CURSOR, LIMIT, Call, Endpoint, Query, command, decode
from service.http.lists import Page, listed, where
from service.kernel.raw import shown
from service.transitions.model import Transition, Transitioned
from service.work.model import (
    Claimed,
    Claims,
    ClaimWork,
    CompleteWork,
    DeadLetterWork,
    Enqueued,
    EnqueueWork,
    FailWork,
    Reclaimed,
    ReclaimLeases,
    ReleaseWork,
    Renewed,
    RenewLease,
    Retry,
    Settled,
    ShownErrors,
    ShownLease,
    shown_status,
)
from service.work.reach import reached
from service.work.vocabulary import VOCABULARY
from service.work.waiting import claimed, settlements


class Settlement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What became of an item: one of `complete`, `fail`, `release`, or a `transition` under its lease."""

    complete: CompleteWork | None = None
    fail: FailWork | None = None
    release: ReleaseWork | None = None
    transition: Transition | None = None


class ClaimAndSettle(ClaimWork, frozen=True, forbid_unknown_fields=True):
    """Ask for items of some queues, up to 16 of them globs. With `wait_ms` the answer waits for work that long.

    What `settle` says is done first, each for itself, and in the same commit where there is room; if any of it is
    refused, the answer does not wait.
    """

    settle: Annotated[list[Settlement], msgspec.Meta(max_length=BATCH_MAX)] = msgspec.field(default_factory=list)


class ClaimedAndSettled(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a claim got, best first, and what came of what it settled, in that order."""

    items: list[Claimed]
    settled: Annotated[list[Any], results(Settled, Transitioned)] = []


CLAIM = msgspec.json.Decoder(ClaimAndSettle)


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
    retry: Annotated[msgspec.Raw, msgspec.Meta(extra={"shape": Retry})] | None
    required_capabilities: list[str]
    dedup_key: str | None
    concurrency_key: str | None
    status: str
    lease: ShownLease | None
    progress: msgspec.Raw | None
    errors: ShownErrors
    payload: msgspec.Raw | None
    result: msgspec.Raw | None
    created_at: int
    settled_at: int | None


def show(row: Row) -> ShownItem:
    """A stored row as it is answered."""
    lease = None
    if row[13] == "leased":
        lease = ShownLease(row[14], row[15], row[16])
    return ShownItem(  # type: ignore[call-arg]  # the length of a slice is not known
        *row[:2],
        None if row[4] == "decision" else row[2],
        *row[3:9],
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


async def claim(call: Call) -> Any:
    """Settle what was done, and claim; with `wait_ms`, wait for something to claim."""
    made = decode(CLAIM, call.body)
    asked = ClaimWork(
        made.worker_id, made.queues, made.max_items, made.lease_ms, made.capabilities, made.wait_ms, made.namespace
    )
    return await claimed(call, asked, show_claims, settlements(made.settle))


async def show_claims(found: Claims, settled: list[Any]) -> Claims | ClaimedAndSettled:
    """What a claim got; and, if it settled anything, what came of that."""
    return ClaimedAndSettled(found.items, settled) if settled else found


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
        bulky=True,
        tenant_id=call.who.tenant_id,
    )


ENQUEUE_LIMITS = ("limit/ready-work-items", "limit/payload-bytes", "limit/events-per-execution")
SETTLE_ERRORS = ("not-found", "lease/stale", "lease/not-held", "lease/settled", "execution/terminal")
FILTER = Query("filter", str, None, "A filter: `queue = 'emails' AND attempt > 1`.")
OF_QUEUE = Query("queue", str, None, "Only this queue.")
OF_EXECUTION = Query("execution_id", str, None, "Only items of this execution.")
ItemStatus = Literal["ready", "delayed", "leased", "completed", "dead", "cancelled", "discarded"]
OF_STATUS = Query(
    "status", ItemStatus, None, "Only this status; `delayed` is what is put off, shown as `ready` with its `ready_at`."
)

ITEMS = [
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
        "Claim work under a lease, having settled what was done",
        claim,
        reply=ClaimedAndSettled,
        body=ClaimAndSettle,
        errors=("auth/queue",),
    ),
    Endpoint(
        "POST",
        "/v1/work-items:complete",
        "completeWorkItems",
        "work.claim",
        "Complete up to 1,000 work items",
        batch(CompleteWork, named="id"),
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
        query=(LIMIT, CURSOR, FILTER, OF_QUEUE, OF_EXECUTION, OF_STATUS),
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
        errors=("not-found", "lease/stale", "lease/not-held", "lease/settled", "limit/payload-bytes"),
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
        errors=(*SETTLE_ERRORS, "work/conflict", "limit/payload-bytes"),
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
        errors=(*SETTLE_ERRORS, "limit/payload-bytes"),
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
        errors=(*SETTLE_ERRORS, "work/terminal", "limit/payload-bytes"),
    ),
    Endpoint(
        "POST",
        "/v1/leases:renew",
        "renewLeases",
        "work.claim",
        "Keep up to 1,000 leases",
        batch(RenewLease, named="id"),
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
        bare=True,
    ),
]
