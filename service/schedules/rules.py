"""How schedules are kept, and how their occurrences start, wait and end: pure decisions over the rows of a batch."""

from collections.abc import Iterable
from typing import Any

import msgspec

from service.alarms.model import Rang
from service.alarms.rules import disarm, disarm_all, set_alarm
from service.errors import StateError, invalid, not_found
from service.executions import rules as executions
from service.executions.model import ENDED, Execution, ExecutionFinished
from service.kernel.audit import audit, audit_keys
from service.kernel.command import Rule
from service.kernel.json import fingerprint
from service.kernel.limits import refuse_past, usage_keys
from service.kernel.principal import Principal, Standing
from service.kernel.raw import ABSENT, encoded, shown, stored
from service.kernel.tables import Wanted
from service.kernel.view import View
from service.runs import rules as runs
from service.runs.model import CancelRun, Continued, Run, StartLinked, TerminateRun
from service.schedules.model import (
    ALARM_LATE_MS,
    ALL_RUNS,
    BACKFILL,
    FOLLOW,
    KIND,
    OPEN_RUNS,
    PAGE,
    RUNS_PAGE,
    Action,
    Backfilling,
    BackfillSchedule,
    ChangeSchedule,
    CreateSchedule,
    DeleteSchedule,
    PauseSchedule,
    Range,
    ResumeSchedule,
    Schedule,
    ScheduleChanged,
    ScheduleDeleted,
    ScheduleRun,
    Spec,
    Triggered,
    TriggerSchedule,
    owner_of,
    schedule_of,
)
from service.schedules.times import after, between, jitter, problems, stamp

FIRED_MAX = 32
"""Occurrences that one commit starts; the alarm rings again for the rest."""
MISSED_MAX = 1_000
"""Occurrences that one commit passes over."""
BUFFER_MAX = 100
"""Occurrences that wait at once, by `buffer_all`; what comes then is skipped."""
BACKFILL_MAX = 1_000
"""Occurrences of one backfill."""
RETRY_MS = 10_000
"""How long after a refusal an occurrence is tried again."""


# ── keep ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def create_keys(command: CreateSchedule, who: Principal, _standing: Standing) -> Iterable[Wanted]:
    """The schedule of that id, its namespace, the audit log's head."""
    yield Schedule, (who.tenant_id, command.schedule_id)
    yield from executions.namespace_keys(who.tenant_id, command.namespace)
    yield from audit_keys(who.tenant_id)


def keys(command: Any, who: Principal, standing: Standing) -> Iterable[Wanted]:
    """The schedule that the command names, the audit log's head; what limits executions, for one may start."""
    yield from usage_keys(who.tenant_id, standing, "running_executions")
    yield Schedule, (who.tenant_id, command.id)
    yield from audit_keys(who.tenant_id)


def need(view: View, schedule_id: str) -> Schedule:
    """The schedule, or 404."""
    found = view.get(Schedule, view.tenant_id, schedule_id)
    if found is None:
        raise not_found("schedule", schedule_id)
    return found


def need_mine(view: View, schedule_id: str) -> Schedule:
    """The schedule of a caller who asks for work by it, on a queue that its token may use. What a schedule starts later
    follows from that: nobody's token is asked then, nor that of whoever lets it pause."""
    schedule = need(view, schedule_id)
    runs.refuse_queue(view, schedule.namespace, schedule.task_queue)
    return schedule


def spec_of(schedule: Schedule) -> Spec:
    """When its occurrences are."""
    return msgspec.json.decode(schedule.spec, type=Spec)


def digest_of(command: CreateSchedule) -> str:
    """What tells a schedule from another of the same id."""
    action = command.action
    said = (command.spec, action.workflow_type, action.task_queue, dict(sorted(action.search_attributes.items())))
    rest = (command.namespace, command.overlap, command.catch_up_ms, command.paused, command.note)
    return fingerprint(encoded(said), bytes(action.input), bytes(action.memo), encoded(rest))


def create(view: View, command: CreateSchedule) -> ScheduleChanged:
    """A new schedule with its first alarm. The same again changes nothing."""
    refuse_spec(command.spec)
    said = digest_of(command)
    before = view.get(Schedule, view.tenant_id, command.schedule_id)
    if before is not None:
        if before.digest != said:
            raise StateError(
                "schedule/conflict",
                f"The schedule {before.id!r} was created with other arguments; choose another id, or change it.",
            )
        return changed(before)
    schedule = Schedule(
        view.tenant_id, command.schedule_id, command.namespace, encoded(command.spec), **action_columns(command.action),
        overlap=command.overlap, catch_up_ms=command.catch_up_ms, paused=int(command.paused), note=command.note,
        next_at=None, runs=0, missed=0, skipped=0, refusal=None, digest=said, revision=1, created_at=view.now,
        updated_at=view.now,
    )  # fmt: skip
    refuse_action(view, command.action)
    runs.refuse_queue(view, schedule.namespace, schedule.task_queue)
    executions.enter(view, schedule.namespace)
    schedule = planned(schedule, view.now)
    view.add(schedule)
    arm(view, schedule)
    audit(view, "schedule.created", schedule.id)
    return changed(schedule, created=True)


def refuse_spec(spec: Spec) -> None:
    """422 with every place of a spec that is wrong."""
    if wrong := problems(spec):
        raise invalid([(f"/spec{pointer}", text) for pointer, text in wrong])


def refuse_action(view: View, action: Action) -> None:
    """Documents are held to the limit of payloads."""
    for document in (action.input, action.memo):
        refuse_past(view, "payload_bytes", len(document))


def action_columns(action: Action) -> dict[str, Any]:
    """An action as a schedule keeps it."""
    return {
        "workflow_type": action.workflow_type,
        "task_queue": action.task_queue,
        "input": stored(action.input),
        "attributes": encoded(action.search_attributes) if action.search_attributes else None,
        "memo": stored(action.memo),
    }


def changed(schedule: Schedule, *, created: bool = False) -> ScheduleChanged:
    """Where a schedule stands."""
    return ScheduleChanged(schedule.id, bool(schedule.paused), schedule.next_at, schedule.revision, created)


def planned(schedule: Schedule, now: int) -> Schedule:
    """The schedule with its next occurrence after `now`; none while it is paused."""
    next_at = None if schedule.paused else after(spec_of(schedule), now)
    return msgspec.structs.replace(schedule, next_at=next_at, refusal=None)


def arm(view: View, schedule: Schedule, *, not_before: int = 0) -> None:
    """Let the alarm ring for the next occurrence; without one, take it away."""
    owner = owner_of(schedule.id)
    if schedule.next_at is None:
        disarm(view, schedule.tenant_id, owner, KIND)
        return
    due_at = schedule.next_at + jitter(schedule.id, spec_of(schedule), schedule.next_at)
    set_alarm(view, schedule.tenant_id, owner, KIND, max(due_at, not_before))


def put(view: View, schedule: Schedule, **changes: Any) -> Schedule:
    """Write a changed schedule, one revision on."""
    moved = msgspec.structs.replace(schedule, revision=schedule.revision + 1, updated_at=view.now, **changes)
    view.put(moved)
    return moved


def change(view: View, command: ChangeSchedule) -> ScheduleChanged:
    """Replace what is given. Another spec counts from now on; what was due before it has started first."""
    schedule = need_mine(view, command.id)
    if command.spec is not None:
        refuse_spec(command.spec)
    if command.action is not None:
        refuse_action(view, command.action)
        runs.refuse_queue(view, schedule.namespace, command.action.task_queue)
    if command.spec is not None and encoded(command.spec) != schedule.spec:
        schedule = fire_all_due(view, schedule)
        schedule = planned(msgspec.structs.replace(schedule, spec=encoded(command.spec)), view.now)
    schedule = put(
        view,
        schedule,
        overlap=command.overlap or schedule.overlap,
        catch_up_ms=schedule.catch_up_ms if command.catch_up_ms is None else command.catch_up_ms,
        **({} if command.action is None else action_columns(command.action)),
    )
    arm(view, schedule)
    audit(view, "schedule.changed", schedule.id)
    return changed(schedule)


def pause(view: View, command: PauseSchedule) -> ScheduleChanged:
    """Nothing starts from now on; what was due before has started first. What waits goes on waiting its turn. Of one
    that is paused, only another note is taken."""
    schedule = need(view, command.id)
    if schedule.paused and command.note in (None, schedule.note):
        return changed(schedule)
    if not schedule.paused:
        schedule = fire_all_due(view, schedule)
    schedule = put(view, schedule, paused=1, next_at=None, note=command.note, refusal=None)
    arm(view, schedule)
    audit(view, "schedule.paused", schedule.id, {"note": command.note})
    return changed(schedule)


def resume(view: View, command: ResumeSchedule) -> ScheduleChanged:
    """The next occurrence is the first from now; those in between are not made up for: a backfill can. One that is not
    paused is left as it is, its note too."""
    schedule = need_mine(view, command.id)
    if not schedule.paused:
        return changed(schedule)
    schedule = planned(put(view, schedule, paused=0, note=command.note), view.now)
    view.put(schedule)
    arm(view, schedule)
    audit(view, "schedule.resumed", schedule.id, {"note": command.note})
    return changed(schedule)


def delete(view: View, command: DeleteSchedule) -> ScheduleDeleted:
    """The schedule, its alarms and what is written down of its occurrences go; its executions stay."""
    schedule = need(view, command.id)
    for run in view.group(ScheduleRun, ALL_RUNS, schedule.tenant_id, schedule.id):
        view.remove(run)
    disarm_all(view, schedule.tenant_id, owner_of(schedule.id))
    view.remove(schedule)
    audit(view, "schedule.deleted", schedule.id)
    return ScheduleDeleted(schedule.id)


# ── start ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def trigger(view: View, command: TriggerSchedule) -> Triggered:
    """An occurrence of its own, now."""
    schedule = need_mine(view, command.id)
    execution_id = f"{schedule.id}.{view.new_id()}"
    schedule = occur(view, schedule, execution_id, view.now, command.overlap or schedule.overlap)
    put(view, schedule)
    run = view.get(ScheduleRun, schedule.tenant_id, schedule.id, execution_id)
    return Triggered(schedule.id, execution_id, run.status if run else "skipped")


def occur(view: View, schedule: Schedule, execution_id: str, nominal: int, overlap: str) -> Schedule:
    """An occurrence starts, waits or is skipped, once: one that has been is left as it is. The schedule as counted."""
    before = view.get(ScheduleRun, schedule.tenant_id, schedule.id, execution_id)
    if before is not None and before.status != "skipped":
        return schedule
    if view.get(Execution, schedule.tenant_id, execution_id) is not None:
        return schedule
    status, gave_way = ("running", 0) if overlap == "allow_all" else make_room(view, schedule, overlap)
    schedule = msgspec.structs.replace(schedule, skipped=schedule.skipped + gave_way)
    if status == "running":
        start(view, schedule, execution_id, nominal)
    return written(view, schedule, execution_id, nominal, status)


def make_room(view: View, schedule: Schedule, overlap: str) -> tuple[str, int]:
    """What becomes of an occurrence that may meet another: `running`, `buffered` or `skipped`; how many that waited
    give way to it."""
    others, gave_way = open_runs(view, schedule), 0
    running = [run for run in others if run.status == "running"]
    waiting = [run for run in others if run.status == "buffered"]
    if running and overlap in ("cancel_other", "terminate_other"):
        running = stop(view, schedule, running, overlap)
        for run in waiting if overlap == "cancel_other" else ():
            pass_over(view, run)
            gave_way += 1
        waiting = []
    if not running and not waiting:
        return "running", gave_way
    if overlap == "terminate_other":
        return "running", gave_way
    room = {"skip": 0, "buffer_one": 1, "buffer_all": BUFFER_MAX, "cancel_other": 1}[overlap]
    if len(waiting) >= room:
        return "skipped", gave_way
    for run in running:
        view.put(msgspec.structs.replace(run, followed=1))
    if not running:
        set_alarm(view, schedule.tenant_id, owner_of(schedule.id), FOLLOW, view.now)
    return "buffered", gave_way


def pass_over(view: View, run: ScheduleRun) -> None:
    """What waited will not start: that is written down, or it is forgotten if it is not one of the last."""
    if run.dropped:
        view.remove(run)
    else:
        view.put(msgspec.structs.replace(run, status="skipped", ended_at=view.now))


def open_runs(view: View, schedule: Schedule) -> list[ScheduleRun]:
    """What runs and what waits, in the order of their numbers."""
    found = view.group(ScheduleRun, OPEN_RUNS, schedule.tenant_id, schedule.id)
    return sorted(found, key=lambda run: run.number)


def stop(view: View, schedule: Schedule, running: list[ScheduleRun], overlap: str) -> list[ScheduleRun]:
    """End what runs, or ask it to end; what runs still."""
    reason = f"the schedule {schedule.id} starts another"
    view.expect(*((Execution, (run.tenant_id, run.current)) for run in running))
    for run in running:
        execution = newest(view, run)
        if execution is None or execution.status in ENDED:
            continue
        if overlap == "terminate_other":
            runs.terminate(view, TerminateRun(reason, execution.id))
        else:
            runs.cancel(view, CancelRun(reason, None, execution.id))
    return [run for run in open_runs(view, schedule) if run.status == "running"]


def newest(view: View, run: ScheduleRun) -> Execution | None:
    """The run that an occurrence has come to: past the one that it names, if it went on since its row was read, which
    no lock holds."""
    execution = view.get(Execution, run.tenant_id, run.current)
    while execution is not None and execution.status in ENDED:
        last = view.get(Run, execution.tenant_id, execution.id)
        if last is None or last.next_id is None:
            break
        execution = view.get(Execution, execution.tenant_id, last.next_id)
    return execution


def start(view: View, schedule: Schedule, execution_id: str, nominal: int) -> None:
    """The execution of an occurrence."""
    executions.start(
        view,
        StartLinked(
            workflow_id=schedule.workflow_type,
            task_queue=schedule.task_queue,
            namespace=schedule.namespace,
            execution_id=execution_id,
            input=shown(schedule.input) or ABSENT,
            memo=shown(schedule.memo) or ABSENT,
            attributes=msgspec.json.decode(schedule.attributes or b"{}"),
            labels={"schedule": schedule.id},
            digest=fingerprint("schedule", schedule.id, nominal),
        ),
    )


def written(view: View, schedule: Schedule, execution_id: str, nominal: int, status: str) -> Schedule:
    """The schedule with an occurrence written down; of those before the last twenty, what has ended is forgotten."""
    number, skipped = schedule.runs, status == "skipped"
    run = ScheduleRun(
        schedule.tenant_id, schedule.id, execution_id, number, nominal, status,
        view.now if status == "running" else None, view.now if skipped else None, 0, 0,
    )  # fmt: skip
    if view.get(ScheduleRun, schedule.tenant_id, schedule.id, execution_id) is None:
        view.add(run)
    else:
        view.put(run)
    if number % PAGE == 0 and number >= 2 * PAGE:
        for old in view.group(ScheduleRun, RUNS_PAGE, schedule.tenant_id, schedule.id, number // PAGE - 2):
            if old.ended_at is not None:
                view.remove(old)
            else:
                view.put(msgspec.structs.replace(old, dropped=1))
    return msgspec.structs.replace(schedule, runs=number + 1, skipped=schedule.skipped + skipped)


# ── time passes ────────────────────────────────────────────────────────────────────────────────────────────────────


def rang(view: View, fact: Rang) -> None:
    """A schedule's time has come: its next occurrences, what waits, or the next page of a backfill."""
    alarm = fact.alarm
    if alarm.kind != KIND:
        return
    schedule = view.get(Schedule, alarm.tenant_id, alarm.owner_id.partition("/")[2])
    if schedule is None:
        return
    if view.standing.status != "active":
        set_alarm(view, alarm.tenant_id, alarm.owner_id, alarm.name, view.now + RETRY_MS, alarm.detail)
    elif alarm.name == KIND:
        schedule = put(view, fire_due(view, schedule))
        arm(view, schedule, not_before=view.now + RETRY_MS if schedule.refusal else 0)
    elif alarm.name == FOLLOW:
        put(view, follow(view, schedule))
    else:
        put(view, backfilled(view, schedule, alarm.name, msgspec.json.decode(alarm.detail or b"", type=Range)))


def fire_due(view: View, schedule: Schedule) -> Schedule:
    """The schedule past what is due, up to a page: in order, what is too old passed over and counted."""
    due, missed, next_at = due_of(schedule, view.now)
    expect(view, schedule, due)
    for nominal in due:
        schedule = tried(view, schedule, nominal, schedule.overlap)
        if schedule.refusal:
            next_at = nominal
            break
    return msgspec.structs.replace(schedule, missed=schedule.missed + missed, next_at=next_at)


def fire_all_due(view: View, schedule: Schedule) -> Schedule:
    """The schedule past all that is due, for it will not come to it later: a page starts, and what is left of it then,
    cannot start now, or was to start later by its jitter, is counted as missed (a thousand at most)."""
    for _ in range(0, FIRED_MAX, page_of(schedule.overlap)):
        schedule = fire_due(view, schedule)
        if schedule.refusal:
            break
    spec, left = spec_of(schedule), 0
    nominal = schedule.next_at
    while nominal is not None and left < MISSED_MAX and nominal <= view.now:
        left, nominal = left + 1, after(spec, nominal)
    return msgspec.structs.replace(schedule, missed=schedule.missed + left, next_at=nominal)


def due_of(schedule: Schedule, now: int) -> tuple[list[int], int, int | None]:
    """Up to a page of what is due, how many are too old, and the next one after all these."""
    spec, due, missed, nominal = spec_of(schedule), list[int](), 0, schedule.next_at
    while nominal is not None and len(due) < page_of(schedule.overlap) and missed < MISSED_MAX:
        due_at = nominal + jitter(schedule.id, spec, nominal)
        if due_at > now:
            break
        if now - due_at > max(schedule.catch_up_ms, ALARM_LATE_MS):
            missed += 1
        else:
            due.append(nominal)
        nominal = after(spec, nominal)
    return due, missed, nominal


def page_of(overlap: str) -> int:
    """How many occurrences a commit starts: one, if each makes others end."""
    return 1 if overlap in ("cancel_other", "terminate_other") else FIRED_MAX


def expect(view: View, schedule: Schedule, due: list[int]) -> None:
    """Ask for the rows of all these occurrences at once."""
    ids = [f"{schedule.id}.{stamp(nominal)}" for nominal in due]
    view.expect(
        *((Execution, (schedule.tenant_id, id)) for id in ids),
        *((ScheduleRun, (schedule.tenant_id, schedule.id, id)) for id in ids),
        (OPEN_RUNS, (schedule.tenant_id, schedule.id)),
    )


def tried(view: View, schedule: Schedule, nominal: int, overlap: str) -> Schedule:
    """The schedule after an occurrence of its plan; `refusal` says why it could not start, with nothing of it done."""
    execution_id = f"{schedule.id}.{stamp(nominal)}"
    done = view.attempt(lambda: occur(view, schedule, execution_id, nominal, overlap))
    return refused(schedule, done) if isinstance(done, StateError) else msgspec.structs.replace(done, refusal=None)


def refused(schedule: Schedule, error: StateError) -> Schedule:
    """The schedule with the reason why nothing starts; it is tried again."""
    return msgspec.structs.replace(schedule, refusal=f"{error.code}: {error.detail}"[:1024])


def follow(view: View, schedule: Schedule) -> Schedule:
    """What waits starts when nothing runs, the first of it."""
    others = open_runs(view, schedule)
    running = [run for run in others if run.status == "running"]
    waiting = [run for run in others if run.status == "buffered"]
    if not waiting:
        return schedule
    if running:
        for run in running:
            view.put(msgspec.structs.replace(run, followed=1))
        return schedule
    first = waiting[0]
    there = view.get(Execution, first.tenant_id, first.execution_id)
    if there is not None and there.sequence:  # somebody else's, started under its id since
        set_alarm(view, schedule.tenant_id, owner_of(schedule.id), FOLLOW, view.now)
        pass_over(view, first)
        return msgspec.structs.replace(schedule, skipped=schedule.skipped + 1)
    done = view.attempt(lambda: start(view, schedule, first.execution_id, first.nominal_at))
    if isinstance(done, StateError):
        set_alarm(view, schedule.tenant_id, owner_of(schedule.id), FOLLOW, view.now + RETRY_MS)
        return refused(schedule, done)
    begun = msgspec.structs.replace(first, status="running", started_at=view.now, followed=int(len(waiting) > 1))
    view.put(begun)
    return msgspec.structs.replace(schedule, refusal=None)


def finished(view: View, fact: ExecutionFinished) -> None:
    """What a schedule started has ended, with the last run of its chain: the outcome is kept, what waits may start."""
    execution = fact.execution
    run = occurrence_of(view, execution)
    if run is None or run.ended_at is not None:
        return
    if runs.need_run(view, execution.tenant_id, execution.id).next_id is not None:
        return
    if run.dropped:
        view.remove(run)
    else:
        view.put(msgspec.structs.replace(run, status=fact.status, ended_at=view.now, followed=0))
    if run.followed:
        set_alarm(view, execution.tenant_id, owner_of(run.schedule_id), FOLLOW, view.now)


def occurrence_of(view: View, execution: Execution) -> ScheduleRun | None:
    """The occurrence that a run belongs to, by the first run of its chain; None for what no schedule started."""
    if not execution.segment:
        return None
    first_id = runs.need_run(view, execution.tenant_id, execution.id).first_id
    schedule_id = schedule_of(first_id)
    return None if schedule_id is None else view.get(ScheduleRun, execution.tenant_id, schedule_id, first_id)


def continued(view: View, fact: Continued) -> None:
    """What a schedule started goes on in another run; if it had ended and was reset, it is running again. Then its
    schedule is held, so that whatever is about to start knows of it, or has started before."""
    run = occurrence_of(view, runs.head(view, fact.tenant_id, fact.next_id))
    if run is not None:
        if run.ended_at is not None:
            view.get(Schedule, run.tenant_id, run.schedule_id)
        view.put(msgspec.structs.replace(run, status="running", ended_at=None, latest_id=fact.next_id))


# ── backfill ───────────────────────────────────────────────────────────────────────────────────────────────────────


def backfill(view: View, command: BackfillSchedule) -> Backfilling:
    """A range of the past, gone through a page at a time."""
    schedule = need_mine(view, command.id)
    if command.to < command.from_ or command.to > view.now:
        raise invalid([("/to", "the range ends before it begins, or in the future")])
    found = between(spec_of(schedule), command.from_, command.to, BACKFILL_MAX + 1)
    if len(found) > BACKFILL_MAX:
        raise invalid([("/from", f"the range holds more than {BACKFILL_MAX} occurrences; send it in parts")])
    if found:
        name, asked = f"{BACKFILL}{view.new_id()}", Range(command.from_, command.to, command.overlap)
        set_alarm(view, schedule.tenant_id, owner_of(schedule.id), name, view.now, encoded(asked), new=True)
    audit(view, "schedule.backfilled", schedule.id, {"from": command.from_, "to": command.to})
    return Backfilling(schedule.id, len(found))


def backfilled(view: View, schedule: Schedule, name: str, asked: Range) -> Schedule:
    """The schedule a page of a backfill further; its alarm rings again for the rest."""
    page = page_of(asked.overlap)
    left = between(spec_of(schedule), asked.from_, asked.to, page + 1)
    again = (left[page], view.now) if len(left) > page else None
    expect(view, schedule, left[:page])
    for nominal in left[:page]:
        schedule = tried(view, schedule, nominal, asked.overlap)
        if schedule.refusal:
            again = nominal, view.now + RETRY_MS
            break
    if again is not None:
        rest = encoded(Range(again[0], asked.to, asked.overlap))
        set_alarm(view, schedule.tenant_id, owner_of(schedule.id), name, again[1], rest)
    return schedule


RULES = [
    Rule(CreateSchedule, create, create_keys),
    Rule(ChangeSchedule, change, keys),
    Rule(PauseSchedule, pause, keys),
    Rule(ResumeSchedule, resume, keys),
    Rule(DeleteSchedule, delete, keys),
    Rule(TriggerSchedule, trigger, keys),
    Rule(BackfillSchedule, backfill, keys),
]
LISTENERS = [(Rang, rang), (ExecutionFinished, finished), (Continued, continued)]
