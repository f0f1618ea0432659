"""How a transition is decided: its changes one after another over the same overlay."""

from collections.abc import Callable, Iterable

import msgspec

from service.errors import StateError, invalid, not_found
from service.executions import rules as executions
from service.executions.model import OF_ITEM, Execution, SetAttributes, State
from service.history.rules import append_one, due_snapshot, snapshot
from service.kernel.command import Rule
from service.kernel.json import fingerprint, merge_patch
from service.kernel.principal import Principal, Standing
from service.kernel.raw import encoded, stored
from service.kernel.tables import Wanted
from service.kernel.view import View
from service.transitions.model import (
    Append,
    AppendTo,
    CancelItems,
    EnqueueNext,
    Lease,
    Made,
    Merge,
    MoveStatus,
    PatchAttributes,
    Replace,
    Settle,
    TakeSnapshot,
    Transition,
    Transitioned,
)
from service.work import rules as work
from service.work.model import OPEN_ITEMS, WorkError, WorkItem

STATEFUL = (Replace, Merge, AppendTo)


class Target(msgspec.Struct):
    """What a transition changes: the execution, and the item whose lease it is made under."""

    execution_id: str
    item_id: str | None
    epoch: int
    said: str


def keys(command: Transition, who: Principal, standing: Standing) -> Iterable[Wanted]:
    """The item, its execution, the state if it is written, and what each enqueue needs."""
    tenant = who.tenant_id
    if command.lease is not None:
        yield WorkItem, (tenant, command.lease.work_item_id)
        yield OF_ITEM, (tenant, command.lease.work_item_id)
    if command.execution_id:
        yield Execution, (tenant, command.execution_id)
    for change in command.changes:
        if isinstance(change, EnqueueNext):
            yield from work.enqueue_keys(change, who, standing)
        elif isinstance(change, STATEFUL) and command.execution_id:
            yield State, (tenant, command.execution_id)


def transition(view: View, command: Transition) -> Transitioned:
    """All changes or none. The same transition under the same lease, made again, answers as the first time."""
    said = fingerprint("transition", encoded(command.changes)) if command.lease else ""
    if (before := told_before(view, command.lease, said)) is not None:
        return before
    target = aim(view, command, said)
    executions.need_open(view, target.execution_id, command.expected_sequence)
    made = [APPLY[type(change)](view, target, change) for change in command.changes]
    execution = executions.need(view, target.execution_id)
    if execution.completed_at is None:
        execution = due_snapshot(view, execution)
    reply = Transitioned(execution.id, execution.status, execution.sequence, made)
    remember(view, target, reply)
    return reply


def aim(view: View, command: Transition, said: str) -> Target:
    """What the transition changes. With a lease the fence is checked and the execution is the item's."""
    if command.lease is None:
        if not view.who.may("execution.write"):
            raise StateError("auth/forbidden", "Without a lease a transition needs a role that may write executions.")
        if not command.execution_id:
            raise invalid([("/execution_id", "name the execution, or give a lease")])
        return Target(command.execution_id, None, 0, said)
    if not view.who.may("work.claim"):
        raise StateError("auth/forbidden", "A transition under a lease needs a role that may claim work.")
    item = work.held(work.need(view, command.lease.work_item_id), command.lease.epoch)
    if item.execution_id is None or command.execution_id not in ("", item.execution_id):
        raise not_found("execution", command.execution_id or item.id)
    return Target(item.execution_id, item.id, item.epoch, said)


def told_before(view: View, lease: Lease | None, said: str) -> Transitioned | None:
    """The first answer to a transition that settled its item and is repeated."""
    if lease is None:
        return None
    item = view.get(WorkItem, view.tenant_id, lease.work_item_id)
    if item is None or item.epoch != lease.epoch or item.status == "leased" or item.settle_digest != said:
        return None
    return msgspec.json.decode(item.settle_reply or b"", type=Transitioned)


def remember(view: View, target: Target, reply: Transitioned) -> None:
    """Keep the answer with the item, if the transition settled it."""
    if target.item_id is None:
        return
    item = view.get(WorkItem, view.tenant_id, target.item_id)
    if item is not None and item.settle_digest == target.said:
        view.put(msgspec.structs.replace(item, settle_reply=encoded(reply)))


def current(view: View, target: Target) -> Execution:
    """The execution as the changes before have left it; refused once it has ended."""
    return executions.need_open(view, target.execution_id)


def _append(view: View, target: Target, change: Append) -> Made:
    execution = append_one(view, current(view, target), change)
    return Made("append", execution.sequence, execution.sequence)


def _set_status(view: View, target: Target, change: MoveStatus) -> Made:
    execution, result, error = current(view, target), stored(change.result), stored(change.error)
    executions.refuse_operating(view, execution, change.status)
    execution = executions.move(view, execution, change.status, result, error)
    return Made("set_status", execution.sequence, execution.sequence)


def _replace(view: View, target: Target, change: Replace) -> Made:
    state = bytes(change.state)
    execution = executions.write_state(view, current(view, target), "state.replaced", state, state)
    return Made("replace_state", execution.sequence, execution.sequence)


def _merge(view: View, target: Target, change: Merge) -> Made:
    execution = current(view, target)
    merged = merge_patch(msgspec.json.decode(executions.state_of(view, execution)), msgspec.json.decode(change.patch))
    execution = executions.write_state(view, execution, "state.merged", bytes(change.patch), encoded(merged))
    return Made("merge_state", execution.sequence, execution.sequence)


def _append_to(view: View, target: Target, change: AppendTo) -> Made:
    execution = executions.appended_state(view, current(view, target), change.path, change.value)
    return Made("append_state", execution.sequence, execution.sequence)


def _enqueue(view: View, target: Target, change: EnqueueNext) -> Made:
    found = work.enqueue(view, change, current(view, target))
    return Made("enqueue", found.sequence, found.sequence, found.id, found.created, ready_at=found.ready_at)


def _settle(view: View, target: Target, change: Settle) -> Made:
    if target.item_id is None:
        raise invalid([("/changes", "a settle needs a lease; give {work_item_id, epoch}")])
    item = work.held(work.need(view, target.item_id), target.epoch)
    end = settled(view, item, change, target.said)
    return Made("settle", end.sequence, end.sequence, item.id, None, end.outcome, end.ready_at)


def settled(view: View, item: WorkItem, change: Settle, said: str) -> "work.Settled":
    """The one rule of settling, reached from a transition."""
    if change.outcome == "completed":
        return work.finish(view, item, "completed", said, result=stored(change.result))
    if change.outcome == "released":
        item = msgspec.structs.replace(item, attempt=item.attempt - 1)
        return work.again(view, item, view.now, "released", "work.released", said, None)
    error = change.error or WorkError("failed")
    return work.failed(view, item, error, change.retry, said)


def _cancel(view: View, target: Target, change: CancelItems) -> Made:
    current(view, target)
    for item in view.group(WorkItem, OPEN_ITEMS, view.tenant_id, target.execution_id):
        if item.id != target.item_id and matches(item, change):
            work.cancel_item(view, item)
    return Made("cancel_items")


def matches(item: WorkItem, change: CancelItems) -> bool:
    """Whether a cancel names this item."""
    named = change.ids is None or item.id in change.ids
    return named and change.queue in (None, item.queue) and change.node_id in (None, item.node_id)


def _snapshot(view: View, target: Target, _change: TakeSnapshot) -> Made:
    execution = snapshot(view, current(view, target))
    return Made("snapshot", execution.sequence, execution.sequence)


def _attributes(view: View, target: Target, change: PatchAttributes) -> Made:
    command = SetAttributes(change.attributes, change.labels, None, target.execution_id)
    end = executions.set_attributes(view, command)
    return Made("set_attributes", end.sequence, end.sequence)


APPLY: dict[type, Callable[[View, Target, "object"], Made]] = {
    Append: _append,
    MoveStatus: _set_status,
    Replace: _replace,
    Merge: _merge,
    AppendTo: _append_to,
    EnqueueNext: _enqueue,
    Settle: _settle,
    CancelItems: _cancel,
    TakeSnapshot: _snapshot,
    PatchAttributes: _attributes,
}  # type: ignore[dict-item]
RULES = [Rule(Transition, transition, keys)]
