"""How an attempt ends, and an item with it: settled, tried again, given up, cancelled, taken back. Pure decisions."""

from collections.abc import Iterable

import msgspec

from service.errors import StateError
from service.executions.model import ENDED, OF_ITEM, Execution, ExecutionEnding
from service.kernel.audit import audit, audit_keys
from service.kernel.events import append
from service.kernel.json import fingerprint
from service.kernel.limits import came_back, refuse_past, use
from service.kernel.principal import Principal, Standing
from service.kernel.raw import encoded, shown, stored
from service.kernel.tables import Wanted
from service.kernel.view import View
from service.work.model import (
    DEFAULT_RETRY,
    ERRORS_BYTES,
    ERRORS_KEPT,
    OPEN,
    OPEN_ITEMS,
    TASKS,
    CompleteWork,
    DeadLetterWork,
    FailWork,
    LeasesExpired,
    Reclaimed,
    ReclaimedItem,
    ReclaimLeases,
    ReleaseWork,
    Retry,
    Settled,
    ShownError,
    TaskPutBack,
    WorkError,
    WorkItem,
    WorkSettled,
    channel_of,
    key_of,
    shown_status,
)
from service.work.rules_leases import held, need
from service.work.rules_placing import there_is

ENDS = {
    "completed": ("work.completed", "completed", "completed"),
    "dead": ("work.dead_lettered", "failed", "dead_lettered"),
    "cancelled": ("work.cancelled", "cancelled", "cancelled"),
}
"""How an item ends: the event, the outcome as the fact tells it, the outcome as the caller is told."""


def by_item(command: CompleteWork | FailWork | ReleaseWork, who: Principal, _standing: Standing) -> Iterable[Wanted]:
    """The item and its execution."""
    yield WorkItem, (who.tenant_id, command.id)
    yield OF_ITEM, (who.tenant_id, command.id)


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
    return handed_back(view, held(item, command.epoch), command.delay_ms, said)


def handed_back(view: View, item: WorkItem, delay_ms: int, said: str) -> Settled:
    """An item that its holder gives back. What was asked to stop is handed to nobody else: it has stopped."""
    if item.cancel_requested_at is not None:
        return finish(view, item, "cancelled", said)
    item = msgspec.structs.replace(item, attempt=item.attempt - 1)
    return again(view, item, view.now + delay_ms, "released", "work.released", said, None)


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


def execution_of(view: View, item: WorkItem) -> Execution | None:
    """The execution of an item, as the batch has it."""
    if item.execution_id is None:
        return None
    return view.get(Execution, item.tenant_id, item.execution_id)


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
    give_up_key(view, item)
    item = msgspec.structs.replace(
        item, status=status, result=result, expires_at=None, settled_at=view.now, cancel_requested_at=None
    )
    view.put(item)
    kind, outcome, _ = ENDS[status]
    body = SettledBody(item.attempt, shown(result) or msgspec.UNSET, shown(error) or msgspec.UNSET)
    note(view, item, kind, body, -1)
    view.tell(WorkSettled(item, outcome, result, error))
    return item


def give_up_key(view: View, item: WorkItem) -> bool:
    """Wake whoever waits for the concurrency key that an item holds, wherever that is; whether it held one."""
    key = key_of(item) if item.status == "leased" else None
    if key is not None:
        view.free(item, key, channel_of(item))
    return key is not None


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
    gave_up = give_up_key(view, item)
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
    if item.status == "ready" and not gave_up:
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


def shown_error(error: WorkError) -> ShownError:
    """The error as an event tells it."""
    return ShownError(error.type, error.message, error.details if error.details else msgspec.UNSET)


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


def cancel_item(view: View, item: WorkItem) -> None:
    """Revoke an item: a ready one is withdrawn, a leased one loses its fence at once."""
    if item.status != "leased":
        use(view, "ready_work_items", -1)
    give_up_key(view, item)
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
