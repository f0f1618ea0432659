"""How work is claimed, how its lease is held and renewed: pure decisions over the rows of a batch."""

from collections.abc import Iterable
from itertools import accumulate

import msgspec

from service.errors import StateError, not_found
from service.kernel.limits import refuse_past, use
from service.kernel.principal import Principal, Standing
from service.kernel.raw import said, stored
from service.kernel.tables import Wanted
from service.kernel.view import View
from service.work.model import (
    LEASE_AT_MOST,
    OPEN,
    TASKS,
    Claimed,
    Claims,
    ClaimWork,
    Renewed,
    RenewLease,
    TasksLeased,
    WorkItem,
    channel_of,
    key_of,
    shown_status,
)

CLAIM_BYTES = 8_388_608
"""Bytes of payloads after which a claim hands out nothing more."""
LATE_MS = 60_000
"""How much later than it began a batch may come to a lease: it waits for locks, or its process was paused."""


def claim(view: View, command: ClaimWork) -> Claims:
    """Lease what the database chose: each delivery counts an attempt and raises the epoch by one."""
    ready = that_fit([item for item in view.pick(WorkItem) if item.status in ("ready", "delayed")])
    if tasks := [item for item in ready if item.drives in TASKS]:
        view.tell(TasksLeased(tasks))  # first: who listens may ask for more rows, and then all begins anew
    leave_to_the_next(view, ready)
    return Claims([lease(view, item, command) for item in ready])


def leave_to_the_next(view: View, items: list[WorkItem]) -> None:
    """Who takes what has just become due, of which no wake-up has told yet, may have been woken for another item: that
    is for the next in line."""
    for channel in dict.fromkeys(channel_of(item) for item in items if item.status == "delayed"):
        view.wake(channel)
        view.spare(channel)


def that_fit(items: list[WorkItem]) -> list[WorkItem]:
    """The first of the items, up to the one with which their payloads come to `CLAIM_BYTES`: the others stay ready."""
    sizes = accumulate((len(item.payload or b"") for item in items), initial=0)
    return [item for item, before in zip(items, sizes, strict=False) if before < CLAIM_BYTES]


def lease(view: View, item: WorkItem, command: ClaimWork) -> Claimed:
    """One item, handed to a worker."""
    use(view, "ready_work_items", -1)
    lease_ms = at_most(item, command.lease_ms)
    held = msgspec.structs.replace(
        item,
        status="leased",
        attempt=item.attempt + 1,
        epoch=item.epoch + 1,
        worker_id=command.worker_id,
        token_id=view.who.token_id,
        lease_ms=lease_ms,
        expires_at=view.now + lease_ms,
        settle_digest=None,
        settle_reply=None,
        payload=None,
    )
    view.put(held)
    if item.status == "ready":
        view.spare(channel_of(item), key_of(item))
    return Claimed(
        held.id,
        held.execution_id,
        node_of(held),
        held.queue,
        held.drives,
        said(item.payload),
        held.priority,
        held.attempt,
        held.max_attempts,
        held.epoch,
        held.expires_at or 0,
        said(held.progress),
    )


def node_of(item: WorkItem) -> str | None:
    """The node that an item is for. A workflow task is for none: there stands how long its lease may be."""
    return None if item.drives == "decision" else item.node_id


def at_most(item: WorkItem, lease_ms: int) -> int:
    """How long a lease is: as asked for, but of a workflow task no longer than its run lets it be held."""
    if item.drives != "decision" or item.node_id is None or not item.node_id.startswith(LEASE_AT_MOST):
        return lease_ms
    return min(lease_ms, int(item.node_id.removeprefix(LEASE_AT_MOST)))


def item_alone(command: RenewLease, who: Principal, _standing: Standing) -> Iterable[Wanted]:
    """The item; nothing of its execution is read or written."""
    yield WorkItem, (who.tenant_id, command.id)


def renew(view: View, command: RenewLease) -> Renewed:
    """Put off the end of a lease that is still held."""
    item = held(need(view, command.id), command.epoch)
    refuse_past(view, "payload_bytes", len(command.progress))
    lease_ms = at_most(item, command.lease_ms or item.lease_ms or 0)
    expires_at = counted_from(item, view.now) + lease_ms
    progress = stored(command.progress) or item.progress
    view.put(msgspec.structs.replace(item, lease_ms=lease_ms, expires_at=expires_at, progress=progress))
    return Renewed(item.id, item.epoch, expires_at, item.cancel_requested_at is not None)


def counted_from(item: WorkItem, now: int) -> int:
    """When a renewal begins. A batch that waited for a lock goes by the time at which it began, and takes nothing back
    of a renewal that came in between; what lies further ahead is not of our time: the clock was set back."""
    before = (item.expires_at or 0) - (item.lease_ms or 0)
    return before if now < before <= now + LATE_MS else now


def need(view: View, item_id: str) -> WorkItem:
    """The item, or 404; a worker's token sees the items of its own queues only."""
    item = view.get(WorkItem, view.tenant_id, item_id)
    if item is None or not view.who.may_use(item.queue):
        raise not_found("work item", item_id)
    return item


def held(item: WorkItem, epoch: int) -> WorkItem:
    """The item, if `epoch` still holds it: the fence. A lease that ran out but was not taken yet still holds."""
    if item.status == "leased" and item.epoch == epoch:
        return item
    facts = {"current_epoch": item.epoch, "current_status": shown_status(item.status), "attempt": item.attempt}
    if item.epoch != epoch:
        raise StateError(
            "lease/stale",
            f"The work item {item.id!r} is at epoch {item.epoch}; epoch {epoch} was offered. The lease was lost: stop "
            "this attempt and claim again.",
            **facts,
        )
    if item.status in OPEN:
        raise StateError(
            "lease/not-held",
            f"The work item {item.id!r} is not leased: this attempt was settled or taken back. Claim again.",
            **facts,
        )
    raise StateError(
        "lease/settled",
        f"The work item {item.id!r} is {item.status}, settled otherwise than this request says.",
        outcome=item.status,
        **facts,
    )
