"""How activities are asked for, tried, timed out and end: pure decisions over the rows of a batch."""

from collections.abc import Iterable

import msgspec

from service.activities.model import (
    KIND,
    Asked,
    CancelActivity,
    ClaimActivities,
    CompleteActivity,
    Deadlines,
    FailActivity,
    HeartbeatActivity,
    NewActivity,
    ScheduleActivity,
    Scheduled,
    alarm_key,
    alarm_of,
    name_of,
    required,
)
from service.alarms.model import OF_OWNER, Alarm, Rang
from service.alarms.rules import set_alarm
from service.errors import not_found
from service.executions.model import OF_ITEM, Execution
from service.kernel.command import Rule
from service.kernel.events import append
from service.kernel.json import fingerprint
from service.kernel.limits import refuse_past, use
from service.kernel.principal import Principal, Standing
from service.kernel.raw import encoded, shown
from service.kernel.tables import Wanted
from service.kernel.view import View
from service.runs.model import OF_TASK, CancelRequested, Ordered, Run, Step
from service.runs.rules import (
    add_step,
    arm,
    asked_of,
    end_step,
    head,
    open_step,
    open_steps,
    refuse_queue,
    rung,
    step_before,
    step_keys,
    task_shelf,
    unarm,
    wake,
)
from service.work import rules_leases as leases
from service.work import rules_placing as placing
from service.work import rules_settling as settling
from service.work.model import (
    OPEN_ITEMS,
    TASKS_ALONE,
    ClaimWork,
    LeasesExpired,
    Renewed,
    RenewLease,
    Settled,
    Shelf,
    Task,
    TaskPutBack,
    TasksLeased,
    TasksWithdrawn,
    WorkError,
    WorkItem,
    WorkSettled,
    queue_in,
    shown_status,
)

NEVER = 2**62
"""When an alarm rings whose activity has no deadline as it stands."""
TIMEOUTS = {
    "schedule_to_close_timeout": "its time was over, with all its attempts",
    "schedule_to_start_timeout": "no worker took it in time",
    "start_to_close_timeout": "the attempt took too long",
    "heartbeat_timeout": "its worker was not heard of in time",
}
"""The type of each timeout's error, and what happened."""
FINAL = frozenset({"schedule_to_close_timeout", "schedule_to_start_timeout"})
"""The timeouts after which another attempt would make no sense."""


class ActivityBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """Body of an activity's events."""

    seq: int
    name: str
    activity_id: str
    task_queue: str | None = None
    input: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    attempt: int | None = None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


# ── schedule ───────────────────────────────────────────────────────────────────────────────────────────────────────


def ordered(view: View, fact: Ordered) -> None:
    """A workflow has an activity done."""
    schedule(view, head(view, fact.tenant_id, fact.execution_id), fact.command)


def schedule(view: View, execution: Execution, command: ScheduleActivity) -> tuple[Step, bool]:
    """The activity's step, and whether it is new: its item is placed, its alarm set, its event appended."""
    before = step_before(view, execution, command)
    if before is not None:
        return before, False
    refuse_queue(view, execution.namespace, command.task_queue)
    refuse_past(view, "payload_bytes", len(command.input))
    asked = Task(
        queue=queue_in(execution.namespace, command.task_queue),
        node_id=f"{command.name}:{command.seq}",
        drives="activity",
        payload=command.input,
        max_attempts=command.max_attempts,
        retry=command.retry,
        required_capabilities=[required(command.name)],
    )
    item = placing.place(view, asked, execution)
    step = add_step(view, execution, command, command.name, ref=item.id)
    close_at = None if command.schedule_to_close_ms is None else view.now + command.schedule_to_close_ms
    limits = Deadlines(
        command.start_to_close_ms, command.schedule_to_start_ms, command.heartbeat_timeout_ms, close_at
    )  # fmt: skip
    due_at = deadline(limits, item)
    arm(view, execution.tenant_id, execution.id, alarm_of(command.seq), due_at, encoded(limits), new=True)
    body = ActivityBody(command.seq, command.name, item.id, command.task_queue, command.input or msgspec.UNSET)
    execution = head(view, execution.tenant_id, execution.id)
    append(view, execution, "activity.scheduled", encoded(body), work_item_id=item.id)
    return step, True


def add_activity(view: View, command: NewActivity) -> Scheduled:
    """An activity asked for from outside: the same as the workflow's command."""
    execution = asked_of(view, command.execution_id)
    asked = ScheduleActivity(**{name: getattr(command, name) for name in Asked.__struct_fields__})
    step, created = schedule(view, execution, asked)
    return Scheduled(step.ref or "", execution.id, step.seq, step.name, step.status, created)


def status_of(step: str, item: str) -> str:
    """How an activity is shown: while its step is open as its item, then as its step."""
    return shown_status(item) if step == "open" else step


def task_queue(queue: str) -> str:
    """A task queue without the namespace that its items have before it."""
    return queue.rpartition("|")[2]


# ── attempts ───────────────────────────────────────────────────────────────────────────────────────────────────────


def as_work(asked: ClaimActivities) -> ClaimWork:
    """A claim of activities as work knows it."""
    return ClaimWork(
        asked.worker_id,
        asked.queues,
        asked.max_items,
        asked.lease_ms,
        [TASKS_ALONE, *(required(name) for name in asked.activities)],
        asked.wait_ms,
        asked.namespace,
    )


def deadline(limits: Deadlines, item: WorkItem) -> int:
    """The earliest time at which an activity is overdue, as it stands."""
    times = [limits.close_at]
    if item.status == "leased":
        times += [limits.ends_at, limits.silent_at]
    elif limits.schedule_to_start_ms is not None:
        times.append(item.ready_at + limits.schedule_to_start_ms)
    return min((time for time in times if time is not None), default=NEVER)


def overdue(limits: Deadlines, item: WorkItem, now: int) -> str | None:
    """Which of an activity's deadlines has passed, by the type of its error."""
    if limits.close_at is not None and limits.close_at <= now:
        return "schedule_to_close_timeout"
    if deadline(limits, item) > now:
        return None
    if item.status != "leased":
        return "schedule_to_start_timeout"
    return "start_to_close_timeout" if (limits.ends_at or NEVER) <= now else "heartbeat_timeout"


def limits_of(alarm: Alarm) -> Deadlines:
    """What an activity's alarm keeps."""
    return msgspec.json.decode(alarm.detail or b"", type=Deadlines)


def beat(view: View, limits: Deadlines) -> Deadlines:
    """The deadlines after a sign of life."""
    silent_at = None if limits.heartbeat_ms is None else view.now + limits.heartbeat_ms
    return msgspec.structs.replace(limits, silent_at=silent_at)


def postpone(view: View, alarm: Alarm, limits: Deadlines, item: WorkItem) -> None:
    """Move an activity's alarm to the deadline that is next now."""
    set_alarm(view, alarm.tenant_id, alarm.owner_id, alarm.name, deadline(limits, item), encoded(limits))


def activities_of(items: list[WorkItem]) -> list[WorkItem]:
    """Those of the items that are activities."""
    return [item for item in items if item.drives == KIND]


def begun(view: View, fact: TasksLeased) -> None:
    """Workers have claimed activities: their attempts must end, and be heard of, in time."""
    items = activities_of(fact.items)
    view.expect(*((Alarm, alarm_key(item)) for item in items))
    for item in items:
        alarm = view.get(Alarm, *alarm_key(item))
        if alarm is not None:
            limits = beat(view, limits_of(alarm))
            limits = msgspec.structs.replace(limits, ends_at=view.now + limits.start_to_close_ms)
            postpone(view, alarm, limits, msgspec.structs.replace(item, status="leased"))


def put_back(view: View, fact: TaskPutBack) -> None:
    """An activity waits for another attempt."""
    for item in activities_of([fact.item]):
        alarm = view.get(Alarm, *alarm_key(item))
        if alarm is not None:
            limits = msgspec.structs.replace(limits_of(alarm), ends_at=None, silent_at=None)
            postpone(view, alarm, limits, item)


def expired(view: View, fact: LeasesExpired) -> None:
    """Activities whose workers may have died: what their next attempts or their ends need, for all of them at once."""
    items = activities_of(fact.items)
    shelves = [(Shelf, (item.tenant_id, *task_shelf(head(view, *owner(item))))) for item in items]
    view.expect(*shelves, *(wanted for item in items for wanted in rows_of(item)))


def owner(item: WorkItem) -> tuple[str, str]:
    """The key of the execution of an activity's item."""
    return item.tenant_id, item.execution_id or ""


def rows_of(item: WorkItem) -> Iterable[Wanted]:
    """The run, the step and the alarm of an activity's item."""
    yield Run, owner(item)
    yield Step, (*owner(item), KIND, name_of(item.node_id)[1])
    yield Alarm, alarm_key(item)


def need_activity(view: View, item_id: str) -> WorkItem:
    """The activity's item, or 404."""
    item = leases.need(view, item_id)
    if item.drives != KIND:
        raise not_found("activity", item_id)
    return item


def item_key(command: HeartbeatActivity, who: Principal, _standing: Standing) -> Iterable[Wanted]:
    """The item; its alarm is found by it."""
    yield WorkItem, (who.tenant_id, command.id)


def heartbeat(view: View, command: HeartbeatActivity) -> Renewed:
    """A sign of life: lease and deadline put off, details kept; whether the activity should stop."""
    item = need_activity(view, command.id)
    renewed = leases.renew(view, RenewLease(command.epoch, None, command.details, command.id))
    alarm = view.get(Alarm, *alarm_key(item))
    if alarm is not None and (limits := limits_of(alarm)).heartbeat_ms is not None:
        postpone(view, alarm, beat(view, limits), item)
    return renewed


# ── end ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def by_item(command: CompleteActivity | FailActivity, who: Principal, _standing: Standing) -> Iterable[Wanted]:
    """The item, its execution, its run."""
    for what in (WorkItem, OF_ITEM, OF_TASK):
        yield what, (who.tenant_id, command.id)


def complete(view: View, command: CompleteActivity) -> Settled:
    """Done, as an item is done; the same again answers the same."""
    view.expect(*rows_of(need_activity(view, command.id)))
    return settling.complete(view, command)


def fail(view: View, command: FailActivity) -> Settled:
    """Failed, as an attempt at an item fails."""
    view.expect(*rows_of(need_activity(view, command.id)))
    return settling.fail(view, command)


def settled(view: View, fact: WorkSettled) -> None:
    """An activity has ended: its workflow sees how."""
    item = fact.item
    if item.drives != KIND:
        return
    view.expect(*rows_of(item))
    step = open_step(view, *owner(item), KIND, name_of(item.node_id)[1])
    if step is None:
        return
    status = "timed_out" if fact.outcome == "failed" and item.error_type in TIMEOUTS else fact.outcome
    end(view, step, status, item.attempt, fact.result, fact.error)


def end(
    view: View, step: Step, status: str, attempt: int, result: bytes | None = None, error: bytes | None = None
) -> None:
    """The activity's step and alarm ended, the event that says how, a task for its workflow."""
    tenant, execution_id = step.tenant_id, step.execution_id
    end_step(view, step, status)
    unarm(view, tenant, execution_id, alarm_of(step.seq))
    body = ActivityBody(
        step.seq, step.name, step.ref or "", attempt=attempt,
        result=shown(result) or msgspec.UNSET, error=shown(error) or msgspec.UNSET,
    )  # fmt: skip
    execution = head(view, tenant, execution_id)
    append(view, execution, f"activity.{status}", encoded(body), work_item_id=step.ref, closing=True)
    wake(view, tenant, execution_id)


def timed_out(view: View, fact: Rang) -> None:
    """A deadline has passed, or is another one by now: the attempt has failed, or the activity has."""
    alarm = fact.alarm
    if alarm.kind != KIND or rung(view, alarm) is None:
        return
    step = open_step(view, alarm.tenant_id, alarm.owner_id, KIND, alarm.seq)
    if step is None:
        return
    item = view.get(WorkItem, step.tenant_id, step.ref)
    if item is None:
        return
    limits = limits_of(alarm)
    arm(view, alarm.tenant_id, alarm.owner_id, alarm.name, deadline(limits, item), alarm.detail)
    which = overdue(limits, item, view.now)
    if which is None:
        return
    if item.status != "leased":
        use(view, "ready_work_items", -1)
    said = fingerprint(which, item.epoch)
    settling.failed(view, item, WorkError(which, TIMEOUTS[which]), which not in FINAL, said)


# ── cancel ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def cancelled(view: View, fact: Ordered) -> None:
    """A workflow takes an activity back; one that has ended, or never was, is left alone."""
    command: CancelActivity = fact.command
    step = open_step(view, fact.tenant_id, fact.execution_id, KIND, command.seq)
    if step is not None:
        cancel(view, step)


def cancel(view: View, step: Step) -> None:
    """One that waits is withdrawn; one that is under way is asked to stop, and ends when its worker says so."""
    item = view.get(WorkItem, step.tenant_id, step.ref)
    if item is None:
        return
    if item.status == "leased":
        view.put(msgspec.structs.replace(item, cancel_requested_at=item.cancel_requested_at or view.now))
        return
    settling.cancel_item(view, item)
    end(view, step, "cancelled", item.attempt)


def withdrawn(view: View, fact: TasksWithdrawn) -> None:
    """Activities whose items somebody has cancelled: their workflow sees it."""
    items = activities_of(fact.items)
    view.expect(*(wanted for item in items for wanted in rows_of(item)))
    for item in items:
        step = open_step(view, *owner(item), KIND, name_of(item.node_id)[1])
        if step is not None:
            end(view, step, "cancelled", item.attempt)


def withdraw(view: View, fact: CancelRequested) -> None:
    """A run that was asked to stop waits for no activity."""
    tenant, id = fact.tenant_id, fact.execution_id
    steps = open_steps(view, tenant, id, KIND)
    if steps:
        view.expect((OPEN_ITEMS, (tenant, id)), (OF_OWNER, (tenant, id)))
    for step in steps:
        cancel(view, step)


RULES = [
    Rule(NewActivity, add_activity, step_keys),
    Rule(HeartbeatActivity, heartbeat, item_key),
    Rule(CompleteActivity, complete, by_item),
    Rule(FailActivity, fail, by_item),
]
LISTENERS = [
    (ScheduleActivity, ordered),
    (CancelActivity, cancelled),
    (TasksLeased, begun),
    (TasksWithdrawn, withdrawn),
    (TaskPutBack, put_back),
    (LeasesExpired, expired),
    (WorkSettled, settled),
    (Rang, timed_out),
    (CancelRequested, withdraw),
]
