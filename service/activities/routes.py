"""Activities over HTTP."""

from typing import Annotated, Any

import msgspec

from backends.protocol import Row, Tx
from service.activities.model import (
    KIND,
    ClaimActivities,
    CompleteActivity,
    FailActivity,
    HeartbeatActivity,
    NewActivity,
    Scheduled,
    name_of,
)
from service.activities.rules import as_work, status_of, task_queue
from service.errors import not_found
from service.http.batch import Batch, batch, results
from service.http.endpoint import Call, Endpoint, command, decode
from service.kernel.raw import shown
from service.work.model import Claimed, Claims, Renewed, Settled, ShownErrors, ShownLease
from service.work.waiting import claimed, settlements

CLAIM = msgspec.json.Decoder(ClaimActivities)


class ClaimedActivity(msgspec.Struct, frozen=True):
    """An attempt at an activity as its worker sees it; `details` are the last ones of the attempts before."""

    id: str
    execution_id: str
    seq: int
    name: str
    task_queue: str
    input: msgspec.Raw | None
    attempt: int
    max_attempts: int
    epoch: int
    expires_at: int
    details: msgspec.Raw | None


class ClaimedActivities(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a claim of activities got, best first, empty when there is nothing; and what came of what it settled, in
    that order."""

    items: list[ClaimedActivity]
    settled: Annotated[list[Any], results(Settled)] = []


class ShownActivity(msgspec.Struct, frozen=True):
    """An activity with everything that is known of its attempts.

    `status` is `ready` (perhaps for later, see `ready_at`) or `leased` while it is open, then `completed`, `failed`,
    `timed_out`, `cancelled`, or `closed` when its run ended before it.
    """

    id: str
    execution_id: str
    seq: int
    name: str
    task_queue: str
    status: str
    ready_at: int
    attempt: int
    max_attempts: int
    lease: ShownLease | None
    details: msgspec.Raw | None
    errors: ShownErrors
    input: msgspec.Raw | None
    result: msgspec.Raw | None
    cancel_requested: bool
    created_at: int
    settled_at: int | None


async def claim(call: Call) -> Any:
    """Settle what was done, and claim activities of names that this worker can run."""
    made = decode(CLAIM, call.body)
    return await claimed(call, as_work(made), handed_out, settlements(made.settle))


async def handed_out(found: Claims, settled: list[Any]) -> ClaimedActivities:
    """What a claim got, as attempts at activities."""
    return ClaimedActivities([handed(item) for item in found.items if item.drives == KIND], settled)


def handed(item: Claimed) -> ClaimedActivity:
    """A claimed item as an attempt at an activity."""
    name, seq = name_of(item.node_id)
    return ClaimedActivity(
        item.id, item.execution_id or "", seq, name, task_queue(item.queue), item.payload, item.attempt,
        item.max_attempts, item.epoch, item.expires_at, item.progress,
    )  # fmt: skip


async def get(call: Call) -> ShownActivity:
    """One activity; a worker sees those of its queues."""
    tenant = call.who.tenant_id

    async def read(tx: Tx) -> tuple[Row | None, Row | None]:
        item = await tx.one("read_activity", tenant_id=tenant, id=call.path["id"])
        if item is None or item[4] != KIND:
            return None, None
        seq = name_of(item[2])[1]
        return item, await tx.one("read_activity_step", tenant_id=tenant, execution_id=item[1], seq=seq)

    item, step = await call.services.backend.read(read, tenants=call.who.reach)
    if item is None or step is None or not call.who.may_use(item[3]):
        raise not_found("activity", call.path["id"])
    return show(item, step[0])


def show(row: Row, status: str) -> ShownActivity:
    """A stored row as it is answered."""
    name, seq = name_of(row[2])
    lease = ShownLease(row[9], row[10], row[11]) if row[5] == "leased" else None
    return ShownActivity(
        id=row[0],
        execution_id=row[1],
        seq=seq,
        name=name,
        task_queue=task_queue(row[3]),
        status=status_of(status, row[5]),
        ready_at=row[6],
        attempt=row[7],
        max_attempts=row[8],
        lease=lease,
        details=shown(row[12]),
        errors=shown(row[13]) or msgspec.Raw(b"[]"),
        input=shown(row[14]),
        result=shown(row[15]),
        cancel_requested=row[16] is not None,
        created_at=row[17],
        settled_at=row[18],
    )


LEASE_ERRORS = ("not-found", "lease/stale", "lease/not-held", "lease/settled")
ENDPOINTS = [
    Endpoint(
        "POST",
        "/v1/executions/{id}/activities",
        "scheduleActivity",
        "execution.write",
        "Have an activity done for a run",
        command(NewActivity, execution_id="id"),
        reply=Scheduled,
        body=NewActivity,
        created=True,
        errors=(
            "not-found", "auth/queue", "execution/terminal", "workflow/nondeterminism", "limit/payload-bytes",
            "limit/events-per-execution",
        ),
    ),
    Endpoint(
        "POST",
        "/v1/activities:claim",
        "claimActivities",
        "work.claim",
        "Claim activities that this worker can run, having settled what was done",
        claim,
        reply=ClaimedActivities,
        body=ClaimActivities,
        errors=("auth/queue",),
    ),
    Endpoint(
        "GET",
        "/v1/activities/{id}",
        "getActivity",
        "work.read",
        "Read an activity and its attempts",
        get,
        reply=ShownActivity,
        writes=False,
        errors=("not-found",),
    ),
    Endpoint(
        "POST",
        "/v1/activities/{id}/complete",
        "completeActivity",
        "work.claim",
        "Settle an activity as done; its workflow is told",
        command(CompleteActivity, id="id"),
        reply=Settled,
        body=CompleteActivity,
        errors=(*LEASE_ERRORS, "limit/payload-bytes"),
    ),
    Endpoint(
        "POST",
        "/v1/activities:complete",
        "completeActivities",
        "work.claim",
        "Settle up to 1,000 activities as done; their workflows are told",
        batch(CompleteActivity, named="id"),
        reply=Batch,
        item=Settled,
        body=list[CompleteActivity],
    ),
    Endpoint(
        "POST",
        "/v1/activities/{id}/fail",
        "failActivity",
        "work.claim",
        "Settle an attempt as failed: tried again, or its workflow is told",
        command(FailActivity, id="id"),
        reply=Settled,
        body=FailActivity,
        errors=(*LEASE_ERRORS, "limit/payload-bytes"),
    ),
    Endpoint(
        "POST",
        "/v1/activities/{id}/heartbeat",
        "heartbeatActivity",
        "work.claim",
        "Give a sign of life, keep details, hear whether to stop",
        command(HeartbeatActivity, id="id"),
        reply=Renewed,
        body=HeartbeatActivity,
        errors=(*LEASE_ERRORS, "limit/payload-bytes"),
    ),
]  # fmt: skip
