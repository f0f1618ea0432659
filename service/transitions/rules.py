"""How a transition is decided: its changes one after another over the same overlay."""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from service.errors import StateError, invalid
from service.executions import rules as executions
from service.executions.model import FACETS, OF_ITEM, Attributed, Execution, SetAttributes, State
from service.history.model import LATEST, OURS, TAIL, Snapshot
from service.history.rules import append_one, ours, snapshot
from service.kernel.command import Rule
from service.kernel.json import fingerprint
from service.kernel.limits import refuse_past
from service.kernel.principal import Principal, Standing
from service.kernel.raw import ABSENT, encoded, stored
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
from service.work import rules_leases as leases
from service.work import rules_placing as placing
from service.work import rules_queues as queues
from service.work import rules_settling as settling
from service.work.model import OPEN_ITEMS, TASKS, Settled, TasksWithdrawn, WorkError, WorkItem, queue_in

ALSO: dict[type, tuple[object, ...]] = {
    Replace: (State,),
    Merge: (State,),
    AppendTo: (State,),
    PatchAttributes: (Attributed, FACETS),
    CancelItems: (OPEN_ITEMS,),
    TakeSnapshot: (LATEST, TAIL, State),
}
"""What a change needs of the execution beyond its head, asked for by (tenant, execution)."""

LOOKS_MAX, REWRITTEN_MAX = 100_000, 16_777_216
"""Open items that the cancels of a transition may go through, and bytes of state and snapshots that its changes may
write anew, before the last of them: each goes through all of them."""

IDLE: dict[str, dict[str, object]] = {
    "completed": {"error": None, "retry": True},
    "failed": {"result": ABSENT},
    "released": {"result": ABSENT, "error": None, "retry": True},
}
"""What a settle has no use for, by its outcome, and what stands there when it is not said."""


class Target(msgspec.Struct):
    """What a transition changes: the execution, and the item (with its node) whose lease it is made under. `settled`
    says that a change has settled the item, `looks` and `rewritten` how much the changes have cost."""

    execution_id: str
    item_id: str | None
    epoch: int
    said: str
    node_id: str | None = None
    settled: bool = False
    looks: int = 0
    rewritten: int = 0


def keys(command: Transition, who: Principal, standing: Standing) -> Iterable[Wanted]:
    """The item, its execution, and what each change needs; under a lease alone some of it is only known later."""
    tenant = who.tenant_id
    if command.lease is not None:
        yield WorkItem, (tenant, command.lease.work_item_id)
    if command.lease is not None and not command.execution_id:
        yield OF_ITEM, (tenant, command.lease.work_item_id)
    if command.execution_id:
        yield Execution, (tenant, command.execution_id)
    for change in command.changes:
        if isinstance(change, EnqueueNext):
            yield from placing.enqueue_keys(change, who, standing)
        elif command.execution_id:
            for what in ALSO.get(type(change), ()):
                yield what, (tenant, command.execution_id)


def transition(view: View, command: Transition) -> Transitioned:
    """All changes or none. The same transition under the same lease, made again, answers as the first time."""
    if command.lease is None:
        target = unleased(view, command)
    else:
        item, said = leased(view, command.lease), fingerprint("transition", encoded(command.changes))
        if (before := told_before(item, command.lease, command.execution_id, said)) is not None:
            return before
        target = aim(item, command.lease, command.execution_id, said)
    execution = executions.need_open(view, target.execution_id, command.expected_sequence)
    made = []
    for index, change in enumerate(command.changes):
        begun = execution.sequence
        try:
            one = APPLY[type(change)](view, target, change)
        except StateError as refusal:
            raise refused_at(view, target, f"/changes/{index}", refusal) from None
        execution = executions.need(view, target.execution_id)
        made.append(one if execution.sequence == begun else numbered(one, begun, execution.sequence))
    reply = Transitioned(execution.id, execution.status, execution.sequence, made)
    remember(view, target, reply)
    return reply


def refused_at(view: View, target: Target, place: str, refusal: StateError) -> StateError:
    """The refusal of the change at `place`. The fence held before the first change: if it does not any more, a change
    before this one has settled the item, or ended it with the execution, and that is undone with all the others."""
    if refusal.code.startswith("lease/"):
        said = "a change before it settles the item already, or ends its execution; settle it once, before the end"
        return invalid([(place, said)])
    return executions.refused_at(view, target.execution_id, place, refusal)


def numbered(made: Made, before: int, last: int) -> Made:
    """What a change made, with the sequences of its events."""
    return msgspec.structs.replace(made, first_sequence=before + 1, last_sequence=last)


def unleased(view: View, command: Transition) -> Target:
    """What a transition without a lease changes."""
    if not view.who.may("execution.write"):
        raise StateError("auth/forbidden", "Without a lease a transition needs a role that may write executions.")
    if not command.execution_id:
        raise invalid([("/execution_id", "name the execution, or give a lease")])
    return Target(command.execution_id, None, 0, "")


def leased(view: View, lease: Lease) -> WorkItem:
    """The item that a transition is made under."""
    if not view.who.may("work.claim"):
        raise StateError("auth/forbidden", "A transition under a lease needs a role that may claim work.")
    return leases.need(view, lease.work_item_id)


def aim(item: WorkItem, lease: Lease, execution_id: str, said: str) -> Target:
    """What a transition under a lease changes: the fence is checked, and the execution is the item's."""
    item = leases.held(item, lease.epoch)
    if item.execution_id is None or execution_id not in ("", item.execution_id):
        raise elsewhere(item, execution_id)
    return Target(item.execution_id, item.id, item.epoch, said, leases.node_of(item))


def elsewhere(item: WorkItem, execution_id: str) -> StateError:
    """404 for an execution that the item is not of, whether or not there is one of that id."""
    if item.execution_id is None:
        said = "belongs to no execution; settle it with POST /v1/work-items/{id}/complete, fail or release."
    else:
        said = f"does not belong to the execution {execution_id!r}; name its own, or none in a batch."
    return StateError("not-found", f"The work item {item.id!r} {said}")


def told_before(item: WorkItem, lease: Lease, execution_id: str, said: str) -> Transitioned | None:
    """The first answer to a transition that settled its item, or ended it with the execution, and is repeated."""
    if item.status == "leased" or item.settle_digest != said:
        return None
    reply = msgspec.json.decode(item.settle_reply or b"", type=Transitioned)
    if item.epoch != lease.epoch + lost_fence(item, reply):
        return None
    if execution_id not in ("", item.execution_id):
        raise elsewhere(item, execution_id)
    return reply


def lost_fence(item: WorkItem, reply: Transitioned) -> bool:
    """Whether the transition took the fence away, by ending the item with the execution. What was asked to stop and is
    settled is cancelled as well, and keeps it."""
    return item.status == "cancelled" and all(made.outcome != "cancelled" for made in reply.changes)


def remember(view: View, target: Target, reply: Transitioned) -> None:
    """Keep the answer with the item, if the transition settled it or ended it with the execution."""
    if target.item_id is None:
        return
    item = view.get(WorkItem, view.tenant_id, target.item_id)
    if item is not None and (target.settled or item.status == "cancelled"):
        view.put(msgspec.structs.replace(item, settle_digest=target.said, settle_reply=encoded(reply)))


def current(view: View, target: Target) -> Execution:
    """The execution as the changes before have left it; refused once it has ended."""
    return executions.need_open(view, target.execution_id)


def _append(view: View, target: Target, change: Append) -> Made:
    """Append an event. Under a lease its node is the item's, whatever the caller would say."""
    if change.kind in OURS:
        raise invalid([("/kind", ours(change.kind))])
    if target.item_id is None:
        append_one(view, current(view, target), change, change.node_id)
        return Made("append")
    if change.node_id not in (None, target.node_id):
        said = f"under a lease the node is the item's, here {target.node_id or 'none'}; leave it out"
        raise invalid([("/node_id", said)])
    append_one(view, current(view, target), change, target.node_id, target.item_id)
    return Made("append")


def _set_status(view: View, target: Target, change: MoveStatus) -> Made:
    execution, result, error = current(view, target), stored(change.result), stored(change.error)
    executions.operate(view, execution, change.status)
    executions.move(view, execution, change.status, result, error)
    return Made("set_status")


def _replace(view: View, target: Target, change: Replace) -> Made:
    state = bytes(change.state)
    executions.write_state(view, current(view, target), "state.replaced", state, state)
    return Made("replace_state")


def _merge(view: View, target: Target, change: Merge) -> Made:
    refuse_dear(target)
    execution = executions.merged_state(view, current(view, target), bytes(change.patch))
    target.rewritten += executions.weight(executions.state_of(view, execution))
    return Made("merge_state")


def _append_to(view: View, target: Target, change: AppendTo) -> Made:
    refuse_dear(target)
    execution = executions.appended_state(view, current(view, target), change.path, change.value)
    target.rewritten += executions.weight(executions.state_of(view, execution))
    return Made("append_state")


def refuse_dear(target: Target) -> None:
    """422 for one more change that goes through what others have gone through often enough."""
    if target.rewritten > REWRITTEN_MAX:
        said = f"the changes before it write more than {REWRITTEN_MAX} bytes of state anew; say more in one change"
        raise invalid([("", said)])
    if target.looks > LOOKS_MAX:
        raise invalid([("", f"the changes before it go through {LOOKS_MAX} open items; cancel more in one change")])


def _enqueue(view: View, target: Target, change: EnqueueNext) -> Made:
    execution = current(view, target)
    queues.refuse_queue(view.who, queues.queue_of(change, execution))
    found = placing.enqueue(view, change, execution)
    return Made("enqueue", work_item_id=found.id, created=found.created, ready_at=found.ready_at)


def _settle(view: View, target: Target, change: Settle) -> Made:
    if target.item_id is None:
        raise invalid([("", "a settle needs a lease; give {work_item_id, epoch}")])
    current(view, target)
    item = leases.held(leases.need(view, target.item_id), target.epoch)
    refuse_idle(change)
    refuse_past(view, "payload_bytes", len(change.result))
    target.settled = True
    if change.outcome == "completed":  # the answer to keep is the transition's
        settling.end(view, item, "completed", result=stored(change.result))
        return Made("settle", work_item_id=item.id, outcome="completed")
    end = put_back(view, item, change, target.said)
    return Made("settle", work_item_id=item.id, outcome=end.outcome, ready_at=end.ready_at)


def put_back(view: View, item: WorkItem, change: Settle, said: str) -> Settled:
    """An attempt that did not complete the item: released or failed."""
    if change.outcome == "released":
        return settling.handed_back(view, item, 0, said)
    return settling.failed(view, item, change.error or WorkError("failed"), change.retry, said)


def refuse_idle(change: Settle) -> None:
    """422 for what a settle says beyond its outcome: nothing would come of it."""
    if wrong := [name for name, unsaid in IDLE[change.outcome].items() if getattr(change, name) != unsaid]:
        raise invalid([(f"/{name}", f"a settle as {change.outcome} has none; leave it out") for name in wrong])


def _cancel(view: View, target: Target, change: CancelItems) -> Made:
    refuse_dear(target)
    namespace = current(view, target).namespace
    queue = None if change.queue is None else queue_in(namespace, change.queue)
    ids = None if change.ids is None else frozenset(change.ids)
    found = view.group(WorkItem, OPEN_ITEMS, view.tenant_id, target.execution_id)
    target.looks += len(found)
    for item in (
        chosen := [item for item in found if cancellable(view, target, item) and matches(item, change, ids, queue)]
    ):
        settling.cancel_item(view, item)
    if tasks := [item for item in chosen if item.drives in TASKS]:
        view.tell(TasksWithdrawn(tasks))
    return Made("cancel_items")


def cancellable(view: View, target: Target, item: WorkItem) -> bool:
    """Whether a transition may cancel an item: not the one that it is made under, nor a workflow task, without which
    its run would never be woken again."""
    return item.id != target.item_id and item.drives != "decision" and view.who.may_use(item.queue)


def matches(item: WorkItem, change: CancelItems, ids: frozenset[str] | None, queue: str | None) -> bool:
    """Whether a cancel names this item, by one of its `ids`; `queue` is as work items know it."""
    named = ids is None or item.id in ids
    return named and queue in (None, item.queue) and change.node_id in (None, item.node_id)


def _snapshot(view: View, target: Target, _change: TakeSnapshot) -> Made:
    refuse_dear(target)
    execution = snapshot(view, current(view, target))
    kept = view.group(Snapshot, LATEST, execution.tenant_id, execution.id)
    target.rewritten += sum(executions.weight(one.body) for one in kept[-1:])
    return Made("snapshot")


def _attributes(view: View, target: Target, change: PatchAttributes) -> Made:
    command = SetAttributes(change.attributes, change.labels, None, target.execution_id)
    executions.set_attributes(view, command)
    return Made("set_attributes")


APPLY: dict[type, Callable[[View, Target, Any], Made]] = {
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
}
RULES = [Rule(Transition, transition, keys)]
