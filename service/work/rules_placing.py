"""How work is enqueued and comes to the shelf from which it is claimed: pure decisions over the rows of a batch."""

from collections.abc import Iterable

import msgspec

from service.errors import StateError, invalid, not_found
from service.executions.model import ENDED, Execution
from service.kernel.events import append
from service.kernel.json import fingerprint
from service.kernel.limits import came_back, refuse_past, usage_keys, use
from service.kernel.principal import Principal, Standing
from service.kernel.raw import encoded, stored
from service.kernel.tables import Wanted
from service.kernel.view import View
from service.work.model import (
    BY_DEDUP,
    MAX_ATTEMPTS,
    OF_TASKS,
    Enqueue,
    Enqueued,
    EnqueueWork,
    PromoteDue,
    Shelf,
    Task,
    WorkItem,
    channel_of,
    shown_status,
)
from service.work.rules_queues import queue_of, refuse_queue

SHELF_MAX = 1_024  # it is part of an index's key, which Postgres bounds


def there_is(view: View, item: WorkItem) -> None:
    """Wake a claim that waits for such an item."""
    view.wake(channel_of(item))


def required_by(asked: Enqueue) -> str:
    """The required capabilities in order, as items and shelves have them."""
    return ",".join(sorted(set(asked.required_capabilities)))


def enqueue_keys(asked: Enqueue, who: Principal, standing: Standing) -> Iterable[Wanted]:
    """The shelf, an equal item by id or dedup key, the execution, what the limit counts."""
    tenant = who.tenant_id
    yield from usage_keys(tenant, standing, "ready_work_items")
    yield Shelf, (tenant, asked.queue, required_by(asked))
    if asked.id is not None:
        yield WorkItem, (tenant, asked.id)
    if asked.dedup_key is not None:
        yield BY_DEDUP, (tenant, asked.dedup_key)
    if isinstance(asked, EnqueueWork) and asked.execution_id is not None:
        yield Execution, (tenant, asked.execution_id)


def enqueue_work(view: View, command: EnqueueWork) -> Enqueued:
    """Enqueue one item, of an execution that has not ended or of none, on a queue that the token may use."""
    owner = command.execution_id
    execution = None if owner is None else view.get(Execution, view.tenant_id, owner)
    refuse_queue(view.who, queue_of(command, execution))
    if owner is not None and (execution is None or not execution.sequence):  # there is none, or it is being removed
        raise not_found("execution", owner)
    return enqueue(view, command, execution)


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
        raise invalid([("/execution_id", "an item that drives an execution names it")])
    if any(name.startswith(OF_TASKS) for name in asked.required_capabilities):
        said = f"what begins with {' or '.join(OF_TASKS)} is for tasks of workflows; give it another name"
        raise invalid([("/required_capabilities", said)])
    if len(required_by(asked)) > SHELF_MAX:
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
    """The item that stands for this one: the same id with the same contents, or an open one with the dedup key. Of one
    on a queue that the token may not use it is told nothing but that the id or the key is taken."""
    if asked.id is not None and (found := view.get(WorkItem, view.tenant_id, asked.id)) is not None:
        if found.digest not in digests_of(asked, execution):
            if not view.who.may_use(found.queue):
                raise StateError("work/conflict", f"The id {asked.id!r} is taken; choose another one.")
            raise StateError(
                "work/conflict",
                f"The work item {found.id!r} exists with other contents; choose another id, or send the same request.",
                current_status=shown_status(found.status),
            )
        return found
    if asked.dedup_key is not None:
        same = next(iter(view.group(WorkItem, BY_DEDUP, view.tenant_id, asked.dedup_key)), None)
        if same is not None and not view.who.may_use(same.queue):
            raise StateError("work/conflict", f"The dedup key {asked.dedup_key!r} is taken; choose another one.")
        return same
    return None


def digests_of(asked: Enqueue, execution: Execution | None) -> tuple[str, ...]:
    """What an enqueue with a chosen id said, so that the same one is recognised: all of it, or the part that items of
    earlier versions kept."""
    if asked.id is None:
        return ("",)
    owner = execution.id if execution else None
    what = fingerprint(owner, asked.queue, asked.node_id, asked.drives, bytes(asked.payload), required_by(asked))
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
        requires=required_by(asked),
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


def promote(view: View, _command: PromoteDue) -> int:
    """Move what has become due onto the ready shelves, so that claims find it by priority."""
    due = [item for item in view.pick(WorkItem) if item.status == "delayed" and item.ready_at <= view.now]
    for item in due:
        view.put(msgspec.structs.replace(item, status="ready"))
        there_is(view, item)
    return len(due)
