"""How work is enqueued, held, settled, retried and given up: pure decisions over the rows of a batch."""

from collections.abc import Iterable
from itertools import accumulate

import msgspec

from service.errors import StateError, invalid, not_found
from service.executions.model import ENDED, OF_ITEM, Entered, Execution, ExecutionEnding
from service.kernel.audit import audit, audit_keys
from service.kernel.command import Rule
from service.kernel.events import append
from service.kernel.jobs import Job
from service.kernel.json import fingerprint
from service.kernel.limits import came_back, refuse_past, usage_keys, use
from service.kernel.principal import Principal, Standing
from service.kernel.raw import encoded, shown, stored
from service.kernel.tables import Wanted
from service.kernel.view import View
from service.work.claims import DUE, EXPIRED, READY
from service.work.model import (
    BY_DEDUP,
    ERRORS_BYTES,
    ERRORS_KEPT,
    LEASE_AT_MOST,
    MAIN,
    OF_TASKS,
    OPEN,
    OPEN_ITEMS,
    REDRIVE_JOB,
    TASKS,
    Claimed,
    Claims,
    ClaimWork,
    CompleteWork,
    DeadLetterWork,
    DiscardDead,
    Enqueue,
    Enqueued,
    EnqueueWork,
    FailWork,
    LeasesExpired,
    PauseQueue,
    PromoteDue,
    Queue,
    Reclaimed,
    ReclaimedItem,
    ReclaimLeases,
    Redrive,
    RedrivePage,
    Redriving,
    ReleaseWork,
    Renewed,
    RenewLease,
    RequeueDead,
    Retry,
    Settled,
    Shelf,
    StartRedrive,
    Task,
    TaskPutBack,
    TasksLeased,
    WorkError,
    WorkItem,
    WorkSettled,
    apart,
    shelf,
)

DEFAULT_RETRY = Retry()
MAX_ATTEMPTS = 3
SHELF_MAX = 1_024  # it is part of an index's key, which Postgres bounds
FULL_WAIT_MS = 5_000
CLAIM_BYTES = 8_388_608
"""Bytes of payloads after which a claim hands out nothing more."""
ENDS = {
    "completed": ("work.completed", "completed", "completed"),
    "dead": ("work.dead_lettered", "failed", "dead_lettered"),
    "cancelled": ("work.cancelled", "cancelled", "cancelled"),
}
"""How an item ends: the event, the outcome as the fact tells it, the outcome as the caller is told."""


def there_is(view: View, item: WorkItem) -> None:
    """Wake a claim that waits for such an item: of its queue, with the capabilities that it requires."""
    view.wake(f"work/{item.tenant_id}/{item.queue}/{item.requires}")


def execution_of(view: View, item: WorkItem) -> Execution | None:
    """The execution of an item, as the batch has it."""
    if item.execution_id is None:
        return None
    return view.get(Execution, item.tenant_id, item.execution_id)


# ── enqueue ────────────────────────────────────────────────────────────────────────────────────────────────────────


def shelf_of(asked: Enqueue) -> str:
    """The shelf's name: the required capabilities in order."""
    return ",".join(sorted(set(asked.required_capabilities)))


def enqueue_keys(asked: Enqueue, who: Principal, standing: Standing) -> Iterable[Wanted]:
    """The shelf, an equal item by id or dedup key, the execution, what the limit counts."""
    tenant = who.tenant_id
    yield from usage_keys(tenant, standing, "ready_work_items")
    yield Shelf, (tenant, asked.queue, shelf_of(asked))
    if asked.id is not None:
        yield WorkItem, (tenant, asked.id)
    if asked.dedup_key is not None:
        yield BY_DEDUP, (tenant, asked.dedup_key)
    if isinstance(asked, EnqueueWork) and asked.execution_id is not None:
        yield Execution, (tenant, asked.execution_id)


def not_yours(who: Principal, queue: str) -> StateError:
    """403 for a queue outside the token's globs."""
    said = f"The token may not use the queue {queue!r}; it may use {', '.join(who.queues)}."
    return StateError("auth/queue", said, queue=queue, queues=list(who.queues))


def refuse_queue(who: Principal, queue: str) -> None:
    """403 unless the caller may use the queue. Whoever asks for work is held to it; what follows from a fact is not."""
    if not who.may_use(queue):
        raise not_yours(who, queue)


def enqueue_work(view: View, command: EnqueueWork) -> Enqueued:
    """Enqueue one item, of an execution that has not ended or of none, on a queue that the token may use."""
    owner = command.execution_id
    execution = None if owner is None else view.get(Execution, view.tenant_id, owner)
    refuse_queue(view.who, queue_of(command, execution))
    if owner is not None and (execution is None or not execution.sequence):  # there is none, or it is being removed
        raise not_found("execution", owner)
    return enqueue(view, command, execution)


def queue_of(asked: Enqueue, execution: Execution | None) -> str:
    """The queue of an item as work items know it: its name in the namespace of the execution."""
    return asked.queue if execution is None else shelf(execution.namespace, asked.queue)


def enqueue(view: View, asked: Enqueue, execution: Execution | None, first_id: str | None = None) -> Enqueued:
    """The item, its shelf, the event, and a wake-up for a waiting claim. With `first_id` the item is an execution's
    first: that is its id, and `execution.started` tells of it."""
    if (queue := queue_of(asked, execution)) != asked.queue:
        asked = msgspec.structs.replace(asked, queue=queue)
    if (same := equal_item(view, asked, execution)) is not None:
        return Enqueued(same.id, shown_status(same.status), same.ready_at, False)
    if execution is not None and execution.status in ENDED:
        raise StateError(
            "execution/terminal",
            f"The execution is {execution.status}; no work can be enqueued for it.",
            current_status=execution.status,
            outcome=execution.status,
            current_sequence=execution.sequence,
        )
    if asked.drives == "execution" and execution is None:
        raise StateError("request/malformed", "An item that drives an execution must name one; give execution_id.")
    if any(name.startswith(OF_TASKS) for name in asked.required_capabilities):
        said = f"what begins with {' or '.join(OF_TASKS)} is for tasks of workflows; give it another name"
        raise invalid([("/required_capabilities", said)])
    if len(shelf_of(asked)) > SHELF_MAX:
        raise invalid([("/required_capabilities", f"their names may have {SHELF_MAX} characters together")])
    refuse_past(view, "payload_bytes", len(asked.payload))
    use(view, "ready_work_items")
    item = new_item(view, asked, execution, asked.id or first_id or view.new_id())
    view.add(item)
    ensure_shelf(view, item)
    sequence = None
    if execution is not None:
        execution = msgspec.structs.replace(execution, open_items=execution.open_items + 1)
        if first_id is not None:
            view.put(execution)
        else:
            body = encoded({"queue": item.queue, "ready_at": item.ready_at, "drives": item.drives})
            execution = append(view, execution, "work.enqueued", body, node_id=item.node_id, work_item_id=item.id)
        sequence = execution.sequence
    if item.status == "ready":
        there_is(view, item)
    return Enqueued(item.id, shown_status(item.status), item.ready_at, True, sequence)


def place(view: View, asked: Task, execution: Execution) -> WorkItem:
    """A task of an execution, made by whoever makes tasks: no event, and no limit refuses what must go on."""
    came_back(view, "ready_work_items")
    item = new_item(view, asked, execution, asked.id or view.new_id())
    view.add(item)
    ensure_shelf(view, item)
    view.put(msgspec.structs.replace(execution, open_items=execution.open_items + 1))
    if item.status == "ready":
        there_is(view, item)
    return item


def equal_item(view: View, asked: Enqueue, execution: Execution | None) -> WorkItem | None:
    """The item that stands for this one: the same id with the same contents, or an open one with the dedup key."""
    if asked.id is not None and (found := view.get(WorkItem, view.tenant_id, asked.id)) is not None:
        if found.digest not in digests_of(asked, execution):
            raise StateError(
                "work/conflict",
                f"The work item {found.id!r} exists with other contents; choose another id, or send the same request.",
                current_status=shown_status(found.status),
            )
        return found
    if asked.dedup_key is not None:
        return next(iter(view.group(WorkItem, BY_DEDUP, view.tenant_id, asked.dedup_key)), None)
    return None


def digests_of(asked: Enqueue, execution: Execution | None) -> tuple[str, ...]:
    """What an enqueue with a chosen id said, so that the same one is recognised: all of it, or the part that items of
    earlier versions kept."""
    if asked.id is None:
        return ("",)
    owner = execution.id if execution else None
    what = fingerprint(owner, asked.queue, asked.node_id, asked.drives, bytes(asked.payload), shelf_of(asked))
    how = fingerprint(
        asked.priority, asked.ready_at, asked.delay_ms, asked.max_attempts, encoded(asked.retry), asked.dedup_key,
        asked.concurrency_key,
    )  # fmt: skip
    return what + how, what


def new_item(view: View, asked: Enqueue, execution: Execution | None, item_id: str) -> WorkItem:
    """The row of a new item."""
    ready_at = max(view.now, asked.ready_at or 0) + asked.delay_ms
    return WorkItem(
        tenant_id=execution.tenant_id if execution else view.tenant_id,
        id=item_id,
        execution_id=execution.id if execution else None,
        node_id=asked.node_id,
        queue=asked.queue,
        requires=shelf_of(asked),
        drives=asked.drives,
        priority=asked.priority,
        ready_at=ready_at,
        attempt=0,
        max_attempts=asked.max_attempts or MAX_ATTEMPTS,
        retry=encoded(asked.retry) if asked.retry else None,
        dedup_key=asked.dedup_key,
        concurrency_key=asked.concurrency_key,
        status="ready" if ready_at <= view.now else "delayed",
        worker_id=None,
        token_id=None,
        epoch=0,
        lease_ms=None,
        expires_at=None,
        progress=None,
        errors=None,
        error_type=None,
        digest=digests_of(asked, execution)[0],
        settle_digest=None,
        settle_reply=None,
        cancel_requested_at=None,
        created_at=view.now,
        settled_at=None,
        payload=stored(asked.payload),
    )


def ensure_shelf(view: View, item: WorkItem) -> None:
    """The shelf exists once its first item does."""
    if view.get(Shelf, item.tenant_id, item.queue, item.requires) is None:
        view.add(Shelf(item.tenant_id, item.queue, item.requires))


def shown_status(status: str) -> str:
    """`delayed` is ours: to the caller an item is ready, at `ready_at`."""
    return "ready" if status == "delayed" else status


# ── claim and renew ────────────────────────────────────────────────────────────────────────────────────────────────


def claim(view: View, command: ClaimWork) -> Claims:
    """Lease what the database chose: each delivery counts an attempt and raises the epoch by one."""
    ready = that_fit([item for item in view.pick(WorkItem) if item.status in ("ready", "delayed")])
    if tasks := [item for item in ready if item.drives in TASKS]:
        view.tell(TasksLeased(tasks))  # first: who listens may ask for more rows, and then all begins anew
    return Claims([lease(view, item, command) for item in ready])


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
    return Claimed(
        held.id,
        held.execution_id,
        node_of(held),
        held.queue,
        held.drives,
        shown(item.payload),
        held.priority,
        held.attempt,
        held.max_attempts,
        held.epoch,
        held.expires_at or 0,
        shown(held.progress),
    )


def node_of(item: WorkItem) -> str | None:
    """The node that an item is for. A workflow task is for none: there stands how long its lease may be."""
    return None if item.drives == "decision" else item.node_id


def at_most(item: WorkItem, lease_ms: int) -> int:
    """How long a lease is: as asked for, but of a workflow task no longer than its run lets it be held."""
    if item.drives != "decision" or item.node_id is None or not item.node_id.startswith(LEASE_AT_MOST):
        return lease_ms
    return min(lease_ms, int(item.node_id.removeprefix(LEASE_AT_MOST)))


def by_item(command: RenewLease | CompleteWork, who: Principal, _standing: Standing) -> Iterable[Wanted]:
    """The item and its execution."""
    yield WorkItem, (who.tenant_id, command.id)
    yield OF_ITEM, (who.tenant_id, command.id)


def item_alone(command: RenewLease, who: Principal, _standing: Standing) -> Iterable[Wanted]:
    """The item; nothing of its execution is read or written."""
    yield WorkItem, (who.tenant_id, command.id)


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


def renew(view: View, command: RenewLease) -> Renewed:
    """Put off the end of a lease that is still held."""
    item = held(need(view, command.id), command.epoch)
    refuse_past(view, "payload_bytes", len(command.progress))
    lease_ms = at_most(item, command.lease_ms or item.lease_ms or 0)
    item = msgspec.structs.replace(
        item,
        lease_ms=lease_ms,
        expires_at=view.now + lease_ms,
        progress=stored(command.progress) or item.progress,
    )
    view.put(item)
    return Renewed(item.id, item.epoch, view.now + lease_ms, item.cancel_requested_at is not None)


# ── settle ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def complete(view: View, command: CompleteWork) -> Settled:
    """Done: the item, the event, and what the item drives, in one commit. The same call again answers the same."""
    item, said = need(view, command.id), fingerprint("complete", bytes(command.result))
    if (before := told_before(item, command.epoch, said)) is not None:
        return before
    refuse_past(view, "payload_bytes", len(command.result))
    return finish(view, held(item, command.epoch), "completed", said, result=stored(command.result))


def fail(view: View, command: FailWork) -> Settled:
    """Failed: another attempt later, or a dead letter now."""
    item, said = need(view, command.id), fingerprint("fail", encoded(command.error), int(command.retryable))
    if (before := told_before(item, command.epoch, said)) is not None:
        return before
    item = held(item, command.epoch)
    refuse_past(view, "payload_bytes", len(command.error.details))
    return failed(view, item, command.error, command.retryable, said)


def release(view: View, command: ReleaseWork) -> Settled:
    """Handed back: ready again, the attempt not counted."""
    item, said = need(view, command.id), fingerprint("release", command.delay_ms)
    if (before := told_before(item, command.epoch, said)) is not None:
        return before
    item = held(item, command.epoch)
    item = msgspec.structs.replace(item, attempt=item.attempt - 1)
    return again(view, item, view.now + command.delay_ms, "released", "work.released", said, None)


def dead_letter_keys(command: DeadLetterWork, who: Principal, standing: Standing) -> Iterable[Wanted]:
    """The item and its execution; what an operator does is audited."""
    yield WorkItem, (who.tenant_id, command.id)
    yield OF_ITEM, (who.tenant_id, command.id)
    if command.epoch is None:
        yield from audit_keys(who.tenant_id)


def dead_letter(view: View, command: DeadLetterWork) -> Settled:
    """Given up for good, by its holder or by an operator."""
    if not view.who.may("work.operate" if command.epoch is None else "work.claim"):
        raise StateError(
            "auth/forbidden", "A holder dead-letters with its epoch; without one an operator's role is needed."
        )
    item, said = need(view, command.id), fingerprint("dead", encoded(command.error))
    mine = command.epoch in (None, item.epoch)
    if mine and item.status == "dead" and item.settle_digest == said and item.settle_reply:
        return told(item)
    if command.epoch is not None:
        item = held(item, command.epoch)
    elif item.status not in OPEN:
        raise StateError(
            "work/terminal", f"The work item {item.id!r} is {item.status}.", current_status=shown_status(item.status)
        )
    refuse_past(view, "payload_bytes", len(command.error.details))
    if item.status != "leased":
        use(view, "ready_work_items", -1)
    if command.epoch is None:
        audit(view, "work.dead_lettered", item.id, {"queue": item.queue, "error_type": command.error.type})
    return failed(view, item, command.error, False, said)


def told_before(item: WorkItem, epoch: int, said: str) -> Settled | None:
    """The first answer to a settle that is repeated: the same epoch saying the same."""
    if item.epoch == epoch and item.status != "leased" and item.settle_digest == said and item.settle_reply:
        return told(item)
    return None


def told(item: WorkItem) -> Settled:
    """The stored answer."""
    return msgspec.json.decode(item.settle_reply or b"", type=Settled)


class SettledBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """Body of the events that settle an item or an attempt."""

    attempt: int
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    ready_at: int | None = None


def note(view: View, item: WorkItem, kind: str, body: SettledBody, open_items: int = 0) -> Execution | None:
    """Append an event of the item to its execution, if it has one that goes on. No limit of events refuses it: what was
    enqueued may also be settled."""
    execution = execution_of(view, item)
    if execution is None or execution.status in ENDED:
        return execution
    if open_items:
        execution = msgspec.structs.replace(execution, open_items=execution.open_items + open_items)
    if item.drives in TASKS:
        view.put(execution)
        return execution
    return append(view, execution, kind, encoded(body), node_id=item.node_id, work_item_id=item.id, closing=True)


def answer(view: View, item: WorkItem, outcome: str, said: str, ready_at: int | None = None) -> Settled:
    """The answer to a settle, kept with the item for whoever repeats it."""
    execution = execution_of(view, item)
    reply = Settled(
        item.id,
        outcome,
        shown_status(item.status),
        item.attempt,
        ready_at,
        item.execution_id,
        execution.status if execution else None,
        execution.sequence if execution else None,
    )
    view.put(msgspec.structs.replace(item, settle_digest=said, settle_reply=encoded(reply)))
    return reply


def finish(
    view: View, item: WorkItem, status: str, said: str, *, result: bytes | None = None, error: bytes | None = None
) -> Settled:
    """End an item, and answer whoever settles it."""
    return answer(view, end(view, item, status, result=result, error=error), ENDS[status][2], said)


def end(
    view: View, item: WorkItem, status: str, *, result: bytes | None = None, error: bytes | None = None
) -> WorkItem:
    """End an item: `completed`, `dead` or `cancelled`; then whatever it drives is settled with it. The item as it is,
    without an answer: that is for the caller to keep."""
    item = msgspec.structs.replace(
        item, status=status, result=result, expires_at=None, settled_at=view.now, cancel_requested_at=None
    )
    view.put(item)
    kind, outcome, _ = ENDS[status]
    body = SettledBody(item.attempt, shown(result) or msgspec.UNSET, shown(error) or msgspec.UNSET)
    note(view, item, kind, body, -1)
    if item.concurrency_key is not None:
        there_is(view, item)
    view.tell(WorkSettled(item, outcome, result, error))
    return item


def failed(
    view: View, item: WorkItem, error: WorkError, retryable: bool, said: str, kind: str = "work.failed"
) -> Settled:
    """One failed attempt: its error kept, then a retry with backoff or the end. The one rule for fail and reclaim. What
    was asked to stop is not tried again: it has stopped."""
    retry = msgspec.json.decode(item.retry, type=Retry) if item.retry else DEFAULT_RETRY
    raw = encoded(shown_error(error))
    item = msgspec.structs.replace(item, errors=with_error(view, item, error), error_type=error.type)
    retryable = retryable and error.type not in retry.non_retryable and item.cancel_requested_at is None
    if retryable and item.attempt < item.max_attempts:
        ready_at = view.now + backoff(retry, item.attempt, view.chance)
        if kind != "work.failed":
            note(view, item, kind, SettledBody(item.attempt))
        return again(view, item, ready_at, "retry_scheduled", "work.retry_scheduled", said, raw)
    note(view, item, kind, SettledBody(item.attempt, error=msgspec.Raw(raw)))
    return finish(view, item, "dead" if item.cancel_requested_at is None else "cancelled", said, error=raw)


def again(
    view: View, item: WorkItem, ready_at: int, outcome: str, kind: str, said: str, error: bytes | None
) -> Settled:
    """Put an item back on its shelf, now or for later."""
    if item.status == "leased":
        came_back(view, "ready_work_items")
    item = msgspec.structs.replace(
        item,
        status="ready" if ready_at <= view.now else "delayed",
        ready_at=ready_at,
        expires_at=None,
        worker_id=None,
        token_id=None,
    )
    view.put(item)
    note(view, item, kind, SettledBody(item.attempt, error=shown(error) or msgspec.UNSET, ready_at=ready_at))
    if item.status == "ready" or item.concurrency_key is not None:
        there_is(view, item)
    if item.drives in TASKS:
        view.tell(TaskPutBack(item))
    return answer(view, item, outcome, said, ready_at)


def backoff(retry: Retry, attempt: int, chance: float) -> int:
    """Milliseconds before the attempt after `attempt` (1 for the first); `chance` in [0, 1) is the jitter."""
    if retry.backoff == "fixed":
        delay = float(retry.initial_delay_ms)
    elif retry.backoff == "linear":
        delay = float(retry.initial_delay_ms * attempt)
    else:
        delay = retry.initial_delay_ms * retry.coefficient ** min(attempt - 1, 64)
    delay = min(float(retry.max_delay_ms), delay)
    return int(delay * chance) if retry.jitter else int(delay)


class KeptError(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error as it is kept and shown."""

    type: str
    message: str = ""
    details: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    attempt: int | None = None
    at: int | None = None
    worker_id: str | None = None


def shown_error(error: WorkError) -> KeptError:
    """The error as an event tells it."""
    return KeptError(error.type, error.message, error.details if error.details else msgspec.UNSET)


def with_error(view: View, item: WorkItem, error: WorkError) -> bytes:
    """The item's errors with one more."""
    before = msgspec.json.decode(item.errors, type=list[msgspec.Raw]) if item.errors else []
    last = msgspec.structs.replace(shown_error(error), attempt=item.attempt, at=view.now, worker_id=item.worker_id)
    return encoded(latest([*before, msgspec.Raw(encoded(last))]))


def latest(errors: list[msgspec.Raw]) -> list[msgspec.Raw]:
    """The latest errors, as many as are kept: a hundred, and 256 KiB, but always the last one."""
    kept, size = len(errors) - 1, len(errors[-1])
    while kept and len(errors) - kept < ERRORS_KEPT and size + len(errors[kept - 1]) <= ERRORS_BYTES:
        kept -= 1
        size += len(errors[kept])
    return errors[kept:]


# ── cancel ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def cancel_item(view: View, item: WorkItem) -> None:
    """Revoke an item: a ready one is withdrawn, a leased one loses its fence at once."""
    if item.status != "leased":
        use(view, "ready_work_items", -1)
    elif item.concurrency_key is not None:
        there_is(view, item)
    view.put(
        msgspec.structs.replace(
            item, status="cancelled", epoch=item.epoch + 1, expires_at=None, settled_at=view.now, settle_digest=None
        )
    )
    note(view, item, "work.cancelled", SettledBody(item.attempt), -1)


def close_items(view: View, fact: ExecutionEnding) -> None:
    """When an execution ends, nothing of it stays open."""
    for item in view.group(WorkItem, OPEN_ITEMS, fact.tenant_id, fact.execution_id):
        cancel_item(view, item)


# ── time ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def reclaim(view: View, _command: ReclaimLeases) -> Reclaimed:
    """Take back every chosen lease that has still run out: an attempt that failed with `lease_expired`."""
    retryable: list[ReclaimedItem] = []
    exhausted: list[ReclaimedItem] = []
    view.tell(LeasesExpired(view.pick(WorkItem)))
    for chosen in view.pick(WorkItem):
        item = view.get(WorkItem, chosen.tenant_id, chosen.id) or chosen  # one before it may have ended its execution
        if item.status != "leased" or (item.expires_at or 0) > view.now:
            continue  # renewed, settled, cancelled or taken back since it was chosen
        message = f"worker {item.worker_id!r} did not renew its lease"
        said = fingerprint("expired", item.epoch)
        end = failed(view, item, WorkError("lease_expired", message), True, said, "work.lease_expired")
        taken = ReclaimedItem(item.tenant_id, item.id, item.epoch, item.attempt)
        (retryable if end.outcome == "retry_scheduled" else exhausted).append(taken)
    return Reclaimed(retryable, exhausted)


def promote(view: View, _command: PromoteDue) -> int:
    """Move what has become due onto the ready shelves, so that claims find it by priority."""
    due = [item for item in view.pick(WorkItem) if item.status == "delayed" and item.ready_at <= view.now]
    for item in due:
        view.put(msgspec.structs.replace(item, status="ready"))
        there_is(view, item)
    return len(due)


# ── dead letters and queues ────────────────────────────────────────────────────────────────────────────────────────


def need_dead(view: View, item_id: str) -> WorkItem:
    """The dead letter, or 404; 409 when the item has failed but is no dead letter now."""
    item = need(view, item_id)
    if item.status == "discarded" or (item.status != "dead" and item.errors):
        raise StateError(
            "dead-letter/settled",
            f"There is no dead letter {item_id!r} any more, or not yet: the item is {shown_status(item.status)}.",
            current_status=shown_status(item.status),
        )
    if item.status != "dead":
        raise not_found("dead letter", item_id)
    return item


def requeue_keys(command: RequeueDead, who: Principal, standing: Standing) -> Iterable[Wanted]:
    """The item, its execution, what the limit counts, the audit log."""
    yield from usage_keys(who.tenant_id, standing, "ready_work_items")
    yield WorkItem, (who.tenant_id, command.id)
    yield OF_ITEM, (who.tenant_id, command.id)
    yield from audit_keys(who.tenant_id)


def requeue(view: View, command: RequeueDead) -> Settled:
    """Another life: attempts from zero, the errors kept, the payload perhaps mended."""
    item = need_dead(view, command.id)
    refuse_reviving(view, item)
    refuse_past(view, "payload_bytes", len(command.payload))
    use(view, "ready_work_items")
    audit(view, "work.requeued", item.id, {"queue": item.queue, "edited": bool(command.payload)})
    return revived(view, item, command.delay_ms, stored(command.payload))


def refuse_reviving(view: View, item: WorkItem) -> None:
    """409 for a dead letter that nothing can come of: its execution has ended, its workflow has seen it fail, or an
    open item has its dedup key."""
    execution = execution_of(view, item)
    if execution is not None and execution.status in ENDED:
        raise StateError(
            "execution/terminal",
            f"The item belongs to an execution that is {execution.status}; start a new execution instead.",
            current_status=execution.status,
            outcome=execution.status,
        )
    if item.drives in TASKS:
        raise StateError(
            "work/conflict",
            f"The item is a task of a workflow, which was told that it failed; it must be asked for again by the "
            f"workflow of the execution {item.execution_id!r}.",
            current_status=item.status,
        )
    if item.dedup_key is not None and (open_items := view.group(WorkItem, BY_DEDUP, item.tenant_id, item.dedup_key)):
        raise StateError(
            "work/conflict",
            f"The open work item {open_items[0].id!r} has the same dedup key; requeue this one when it has ended.",
            current_status=shown_status(open_items[0].status),
        )


def revived(view: View, item: WorkItem, delay_ms: int, payload: bytes | None) -> Settled:
    """The dead letter back on its shelf, and its execution with one more open item."""
    item = msgspec.structs.replace(item, attempt=0, settled_at=None, payload=payload)
    execution = execution_of(view, item)
    if execution is not None:
        view.put(msgspec.structs.replace(execution, open_items=execution.open_items + 1))
    return again(view, item, view.now + delay_ms, "requeued", "work.requeued", "", None)


def discard(view: View, command: DiscardDead) -> Settled:
    """Put a dead letter away."""
    item = need_dead(view, command.id)
    view.put(msgspec.structs.replace(item, status="discarded"))
    audit(view, "work.discarded", item.id, {"queue": item.queue})
    return Settled(item.id, "discarded", "discarded", item.attempt, execution_id=item.execution_id)


def redrive_keys(command: StartRedrive | RedrivePage, who: Principal, standing: Standing) -> Iterable[Wanted]:
    """The job, the page's items with their executions and dedup keys, what the limit counts; a start is audited."""
    tenant = who.tenant_id
    if isinstance(command, StartRedrive):
        yield from audit_keys(tenant)
        return
    yield from usage_keys(tenant, standing, "ready_work_items")
    yield Job, (tenant, command.job_id)
    for letter in command.letters:
        yield WorkItem, (tenant, letter.id)
        yield OF_ITEM, (tenant, letter.id)
        if letter.dedup_key is not None:
            yield BY_DEDUP, (tenant, letter.dedup_key)


def start_redrive(view: View, command: StartRedrive) -> Redriving:
    """The job; a sweep works it page by page. It takes what is dead now, so that an item that dies again stays dead."""
    detail = msgspec.structs.replace(command.detail, until=view.now)
    job = Job(view.tenant_id, view.new_id(), REDRIVE_JOB, "running", encoded(detail), command.total, 0, *[view.now] * 3)
    view.add(job)
    audit(view, "work.redriven", job.id, detail)
    return Redriving(command.total, job.id, True)


def redrive_page(view: View, command: RedrivePage) -> None:
    """Requeue a page of dead letters and move the job to its end, in one commit. What nothing can come of is skipped
    and counted; at a limit, or in a tenant that is not active, the job waits where it is."""
    job = view.get(Job, view.tenant_id, command.job_id)
    if job is None or job.status != "running":
        return
    detail = msgspec.json.decode(job.detail, type=Redrive)
    if (detail.at, detail.after) != command.position:
        return  # another process has done this page
    full = view.standing.status != "active"
    for letter in () if full else command.letters:
        item = view.get(WorkItem, view.tenant_id, letter.id)
        if item is None or item.status != "dead" or hopeless(view, item):
            detail = msgspec.structs.replace(detail, at=letter.settled_at, after=letter.id, skipped=detail.skipped + 1)
            continue
        if full := no_room(view):
            break
        revived(view, item, 0, None)
        detail = msgspec.structs.replace(detail, at=letter.settled_at, after=letter.id, requeued=detail.requeued + 1)
    if not full:
        detail = msgspec.structs.replace(detail, at=command.end[0], after=command.end[1])
    view.put(moved_on(view, job, detail, full, command.last))


def hopeless(view: View, item: WorkItem) -> bool:
    """Whether nothing can come of a dead letter."""
    try:
        refuse_reviving(view, item)
    except StateError:
        return True
    return False


def no_room(view: View) -> bool:
    """Whether the tenant has all the ready items that it may have; if not, one more is counted."""
    try:
        use(view, "ready_work_items")
    except StateError:
        return True
    return False


def moved_on(view: View, job: Job, detail: Redrive, full: bool, last: bool) -> Job:
    """The job after a page: when its next one is due, or that it is done."""
    done = detail.requeued + detail.skipped
    wait = FULL_WAIT_MS if full else (done - job.done) * 1000 // detail.rate_per_second if detail.rate_per_second else 0
    return msgspec.structs.replace(
        job,
        status="completed" if last and not full else "running",
        detail=encoded(detail),
        total=max(job.total, done),
        done=done,
        due_at=view.now + wait,
        updated_at=view.now,
    )


def discard_keys(command: DiscardDead, who: Principal, _standing: Standing) -> Iterable[Wanted]:
    """The item and the audit log."""
    yield WorkItem, (who.tenant_id, command.id)
    yield from audit_keys(who.tenant_id)


def queue_key(command: PauseQueue, who: Principal, _standing: Standing) -> Iterable[Wanted]:
    """The queue and the audit log."""
    yield Queue, (who.tenant_id, command.name)
    yield from audit_keys(who.tenant_id)


def pause(view: View, command: PauseQueue) -> Queue:
    """Pause or resume a queue."""
    refuse_queue(view.who, command.name)
    before = view.get(Queue, view.tenant_id, command.name)
    paused_at = view.now if command.paused else None
    if before is None:
        namespace, _ = apart(command.name)
        if namespace != MAIN:
            view.tell(Entered(view.tenant_id, namespace, False))
        new = Queue(view.tenant_id, command.name, paused_at, command.note, view.now)
        view.add(new)
    else:
        new = msgspec.structs.replace(before, paused_at=paused_at, note=command.note)
        view.put(new)
    audit(view, "queue.paused" if command.paused else "queue.resumed", command.name, {"note": command.note})
    if not command.paused:
        view.wake(f"work/{view.tenant_id}/*")
    return new


RULES = [
    Rule(EnqueueWork, enqueue_work, enqueue_keys),
    Rule(ClaimWork, claim, chooser=READY),
    Rule(RenewLease, renew, item_alone),
    Rule(CompleteWork, complete, by_item),
    Rule(FailWork, fail, by_item),
    Rule(ReleaseWork, release, by_item),
    Rule(DeadLetterWork, dead_letter, dead_letter_keys),
    Rule(RequeueDead, requeue, requeue_keys),
    Rule(DiscardDead, discard, discard_keys),
    Rule(StartRedrive, start_redrive, redrive_keys),
    Rule(RedrivePage, redrive_page, redrive_keys, while_suspended=True),
    Rule(PauseQueue, pause, queue_key),
    Rule(ReclaimLeases, reclaim, chooser=EXPIRED, while_suspended=True),
    Rule(PromoteDue, promote, chooser=DUE, while_suspended=True),
]
LISTENERS = [(ExecutionEnding, close_items)]
