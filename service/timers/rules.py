"""How timers are set, fire and are cancelled: pure decisions over the rows of a batch."""

import msgspec

from service.alarms.model import OF_OWNER, Rang
from service.errors import invalid
from service.executions.model import Execution
from service.kernel.command import Rule
from service.kernel.events import append
from service.kernel.raw import encoded
from service.kernel.view import View
from service.runs.model import CancelRequested, Ordered, Step
from service.runs.rules import (
    add_step,
    arm,
    asked_of,
    end_step,
    head,
    open_step,
    open_steps,
    rung,
    step_before,
    step_keys,
    unarm,
    wake,
)
from service.timers.model import ONE_TIME, CancelTimer, NewTimer, ScheduleTimer, Timer, alarm_of

KIND = ScheduleTimer.kind


class TimerBody(msgspec.Struct, frozen=True):
    """Body of a timer's events, and what its step keeps."""

    seq: int
    fire_at: int


def body_of(step: Step) -> TimerBody:
    """What a timer's step keeps."""
    return msgspec.json.decode(step.detail or b"", type=TimerBody)


def ordered(view: View, fact: Ordered) -> None:
    """A workflow sets a timer."""
    schedule(view, head(view, fact.tenant_id, fact.execution_id), fact.command)


def schedule(view: View, execution: Execution, command: ScheduleTimer) -> tuple[Step, bool]:
    """The timer's step, and whether it is new: its alarm is set and its event appended."""
    before = step_before(view, execution, command)
    if before is not None:
        return before, False
    fire_at = command.fire_at if command.fire_at is not None else view.now + (command.duration_ms or 0)
    body = encoded(TimerBody(command.seq, fire_at))
    step = add_step(view, execution, command, KIND, detail=body)
    arm(view, execution.tenant_id, execution.id, alarm_of(command.seq), fire_at, new=True)
    append(view, head(view, execution.tenant_id, execution.id), "timer.scheduled", body)
    return step, True


def set_timer(view: View, command: NewTimer) -> Timer:
    """A timer set from outside: the same as the workflow's command."""
    if (command.fire_at is None) == (command.duration_ms is None):
        raise invalid([("/fire_at", ONE_TIME)])
    execution = asked_of(view, command.execution_id)
    step, created = schedule(view, execution, ScheduleTimer(command.seq, command.duration_ms, command.fire_at))
    return Timer(execution.id, step.seq, body_of(step).fire_at, step.status, created)


def cancelled(view: View, fact: Ordered) -> None:
    """A workflow takes a timer back; one that has fired, or never was, is left alone."""
    command: CancelTimer = fact.command
    step = open_step(view, fact.tenant_id, fact.execution_id, KIND, command.seq)
    if step is not None:
        cancel(view, step)


def cancel(view: View, step: Step) -> None:
    """The timer will not fire; the log says so."""
    end_step(view, step, "cancelled")
    unarm(view, step.tenant_id, step.execution_id, alarm_of(step.seq))
    append(view, head(view, step.tenant_id, step.execution_id), "timer.cancelled", step.detail, closing=True)


def fire(view: View, fact: Rang) -> None:
    """A timer's time has come: its event, and the workflow sees it."""
    alarm = fact.alarm
    if alarm.kind != KIND or (execution := rung(view, alarm)) is None:
        return
    step = open_step(view, alarm.tenant_id, alarm.owner_id, KIND, alarm.seq)
    if step is None:
        return
    end_step(view, step, "fired")
    append(view, execution, "timer.fired", step.detail, closing=True)
    wake(view, alarm.tenant_id, alarm.owner_id)


def withdraw(view: View, fact: CancelRequested) -> None:
    """A run that was asked to stop waits for no timer."""
    steps = open_steps(view, fact.tenant_id, fact.execution_id, KIND)
    if steps:
        view.expect((OF_OWNER, (fact.tenant_id, fact.execution_id)))
    for step in steps:
        cancel(view, step)


RULES = [Rule(NewTimer, set_timer, step_keys)]
LISTENERS = [(ScheduleTimer, ordered), (CancelTimer, cancelled), (Rang, fire), (CancelRequested, withdraw)]
