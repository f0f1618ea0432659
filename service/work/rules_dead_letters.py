"""What becomes of dead letters: requeued, one or many, or discarded. Pure decisions over the rows of a batch."""

from collections.abc import Iterable

import msgspec

from service.errors import StateError, not_found
from service.executions.model import ENDED, OF_ITEM
from service.kernel.audit import audit, audit_keys
from service.kernel.jobs import Job
from service.kernel.limits import refuse_past, usage_keys, use
from service.kernel.principal import Principal, Standing
from service.kernel.raw import encoded, stored
from service.kernel.tables import Wanted
from service.kernel.view import View
from service.work.model import (
    BY_DEDUP,
    REDRIVE_JOB,
    TASKS,
    DiscardDead,
    Redrive,
    RedrivePage,
    Redriving,
    RequeueDead,
    Settled,
    StartRedrive,
    WorkItem,
    shown_status,
)
from service.work.rules_leases import need
from service.work.rules_settling import again, execution_of

FULL_WAIT_MS = 5_000


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
        if not view.who.may_use(open_items[0].queue):
            raise StateError(
                "work/conflict", f"The dedup key {item.dedup_key!r} is taken; requeue this one when it is free."
            )
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


def discard_keys(command: DiscardDead, who: Principal, _standing: Standing) -> Iterable[Wanted]:
    """The item and the audit log."""
    yield WorkItem, (who.tenant_id, command.id)
    yield from audit_keys(who.tenant_id)


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
