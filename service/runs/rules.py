"""How a run begins, is woken, decides and ends: pure decisions over the rows of a batch."""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from service.alarms.model import Alarm, Rang
from service.alarms.rules import disarm, disarm_all, set_alarm
from service.errors import StateError, invalid, not_found
from service.executions import rules as executions
from service.executions.model import (
    ENDED,
    FACETS,
    OF_ITEM,
    Attributed,
    Changed,
    Execution,
    ExecutionFinished,
    ExecutionPaused,
    ExecutionStarted,
    SetAttributes,
)
from service.history.rules import snapshot
from service.kernel.audit import audit
from service.kernel.command import Rule
from service.kernel.events import append
from service.kernel.json import digest, fingerprint
from service.kernel.limits import refuse_past, usage_keys
from service.kernel.principal import Principal, Standing
from service.kernel.raw import encoded, stored
from service.kernel.tables import Wanted
from service.kernel.view import View
from service.runs.model import (
    OF_TASK,
    OPEN_STEPS,
    CancelRequested,
    CancelRun,
    CancelWorkflow,
    Closed,
    Command,
    CompleteRun,
    CompleteWorkflow,
    Failing,
    FailRun,
    FailWorkflow,
    Link,
    Ordered,
    RecordSideEffect,
    RecordSnapshot,
    Run,
    SetMemo,
    StartLinked,
    Step,
    SubmitCommands,
    Submitted,
    TerminateRun,
    UpsertSearchAttributes,
)
from service.work import rules_leases as leases
from service.work import rules_placing as placing
from service.work import rules_queues as queues
from service.work import rules_settling as settling
from service.work.model import LEASE_AT_MOST, Retry, Shelf, ShownError, Task, WorkItem, WorkSettled, queue_in

FOREVER = 2**31 - 1
TASK_TIMEOUT, BEGINS_AT = b'"task_timeout_ms"', b'"begins_at"'
AT_ONCE = Retry(backoff="fixed", initial_delay_ms=0, jitter=False)
FORCE_CANCEL, EXECUTION_TIMEOUT, RUN_TIMEOUT = "run:force_cancel", "run:execution_timeout", "run:run_timeout"


class Options(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a start said that later runs of the chain need too; and of another attempt alone, when it begins."""

    execution_timeout_ms: int | None = None
    run_timeout_ms: int | None = None
    task_timeout_ms: int | None = None
    retry: Retry | None = None
    max_attempts: int | None = None
    expires_at: int | None = None
    begins_at: int | None = None


# ── begin and wake ─────────────────────────────────────────────────────────────────────────────────────────────────


def begin(view: View, fact: ExecutionStarted) -> None:
    """A start that names a task queue begins a run, with its first workflow task. A caller's own start is held to the
    queues of its token; whoever makes the service start a run has been held to them already, or asks for nothing."""
    execution, said = fact.execution, fact.command
    if execution.segment == 0:
        return
    if isinstance(said, StartLinked):
        link = said.link
    else:
        link = Link()
        queues.refuse_queue(view.who, task_shelf(execution)[0])
    options = Options(
        said.execution_timeout_ms, said.run_timeout_ms, said.task_timeout_ms, said.workflow_retry,
        said.workflow_max_attempts,
        link.expires_at or (said.execution_timeout_ms and view.now + said.execution_timeout_ms),
        view.now + link.delay_ms if link.delay_ms else None,
    )  # fmt: skip
    if link.previous_id is None:  # else it was taken before
        refuse_past(view, "payload_bytes", len(said.memo))
    add_run(view, execution, options, link, memo=stored(said.memo))


def add_run(view: View, execution: Execution, options: Options, link: Link, *, memo: bytes | None = None) -> Run:
    """The run of an execution that was just added, its timeouts set and its first task made."""
    view.add(
        Run(
            tenant_id=execution.tenant_id,
            id=execution.id,
            task_id=None,
            woken_at=0,
            submits=int(link.worked_on),
            seen=0,
            open_steps=0,
            alarms=0,
            cancel_requested_at=None,
            first_id=link.first_id or execution.id,
            previous_id=link.previous_id,
            next_id=None,
            place=link.place,
            attempt=link.attempt,
            parent_seq=link.parent_seq,
            close_policy=link.close_policy,
            options=encoded(options),
            memo=memo,
        )
    )
    if options.expires_at is not None:
        arm(view, execution.tenant_id, execution.id, EXECUTION_TIMEOUT, options.expires_at, new=True)
    if options.run_timeout_ms is not None:
        until = view.now + link.delay_ms + options.run_timeout_ms
        arm(view, execution.tenant_id, execution.id, RUN_TIMEOUT, until, new=True)
    wake(view, execution.tenant_id, execution.id, link.delay_ms)
    return need_run(view, execution.tenant_id, execution.id)


def need_run(view: View, tenant_id: str, execution_id: str) -> Run:
    """The run, or 404: an execution that no workflow drives has none."""
    found = view.get(Run, tenant_id, execution_id)
    if found is None:
        raise not_found("workflow run", execution_id)
    return found


def wake(view: View, tenant_id: str, execution_id: str, delay_ms: int = 0) -> None:
    """The workflow must see the log as far as it goes now: by the task that is open, or by one that is made for it,
    which is handed out after `delay_ms`."""
    run, execution = need_run(view, tenant_id, execution_id), head(view, tenant_id, execution_id)
    if execution.status in ENDED:
        return
    if execution.status == "paused":  # seen when it goes on
        view.put(msgspec.structs.replace(run, woken_at=execution.sequence))
        return
    task_id = run.task_id or new_task(view, execution, delay_ms, held_ms(run))
    view.put(msgspec.structs.replace(run, task_id=task_id, woken_at=head(view, tenant_id, execution_id).sequence))


def need_open(view: View, execution_id: str) -> Execution:
    """The execution, or 404; 409 if it has ended, with the run that it went on in, if there is one."""
    execution = executions.need(view, execution_id)
    if execution.status in ENDED:
        raise ended(view, execution)
    return execution


def ended(view: View, execution: Execution) -> StateError:
    """409 for a write to an execution that has ended; `next_id` is the run that it went on in."""
    error = executions.ended(execution)
    run = view.get(Run, execution.tenant_id, execution.id) if execution.segment else None
    if run is not None and run.next_id is not None:
        error.facts["next_id"] = run.next_id
        error.detail += f" It went on as {run.next_id!r}; send the request there."
    return error


def asked_of(view: View, execution_id: str) -> Execution:
    """The open execution of a run that something is asked for from outside its workflow."""
    execution = need_open(view, execution_id)
    need_run(view, execution.tenant_id, execution.id)
    return execution


def step_keys(command: Any, who: Principal, _standing: Standing) -> Iterable[Wanted]:
    """The execution, its run, and the step of a command from outside that makes one: it says its `kind` and `seq`."""
    yield Execution, (who.tenant_id, command.execution_id)
    yield Run, (who.tenant_id, command.execution_id)
    yield Step, (who.tenant_id, command.execution_id, command.kind, command.seq)


def refuse_queue(view: View, namespace: str, queue: str) -> None:
    """403 for a task queue that the caller may not use."""
    queues.refuse_queue(view.who, queue_in(namespace, queue))


def head(view: View, tenant_id: str, execution_id: str) -> Execution:
    """The execution's head as the batch has it; a sweep asks for those of any tenant."""
    found = view.get(Execution, tenant_id, execution_id)
    if found is None:
        raise not_found("execution", execution_id)
    return found


def held_ms(run: Run) -> int | None:
    """How long a workflow task of the run may be leased at a time; None as long as the worker likes."""
    if TASK_TIMEOUT not in run.options:
        return None
    return msgspec.json.decode(run.options, type=Options).task_timeout_ms


def delay_left(view: View, run: Run) -> int:
    """How long another attempt still waits for its first task; 0 once it has seen one, or needs not wait."""
    if run.seen or BEGINS_AT not in run.options:
        return 0
    begins_at = msgspec.json.decode(run.options, type=Options).begins_at
    return max(0, (begins_at or 0) - view.now)


def new_task(view: View, execution: Execution, delay_ms: int, most_ms: int | None) -> str:
    """A workflow task on the run's queue, for workers that know its type; it is handed out until it is settled."""
    queue, requires = task_shelf(execution)
    asked = Task(
        queue=queue,
        drives="decision",
        node_id=None if most_ms is None else f"{LEASE_AT_MOST}{most_ms}",
        delay_ms=delay_ms,
        required_capabilities=[requires],
        max_attempts=FOREVER,
        retry=AT_ONCE,
    )
    return placing.place(view, asked, execution).id


def task_shelf(execution: Execution) -> tuple[str, str]:
    """The shelf of a run's workflow tasks: its queue, and what a worker must be able to run."""
    return queue_in(execution.namespace, execution.queue or "default"), f"workflow:{execution.workflow_id}"


def arm(
    view: View,
    tenant_id: str,
    execution_id: str,
    name: str,
    due_at: int,
    detail: bytes | None = None,
    *,
    new: bool = False,
) -> None:
    """Set an alarm of a run, which counts them so that it knows at its end whether there is one to take away. `new`
    says that none of that name can be there, so that nobody looks."""
    if set_alarm(view, tenant_id, execution_id, name, due_at, detail, new=new):
        run = need_run(view, tenant_id, execution_id)
        view.put(msgspec.structs.replace(run, alarms=run.alarms + 1))


def unarm(view: View, tenant_id: str, execution_id: str, name: str) -> None:
    """Take an alarm of a run away, if it is set."""
    run = need_run(view, tenant_id, execution_id)
    if run.alarms and disarm(view, tenant_id, execution_id, name):
        view.put(msgspec.structs.replace(run, alarms=run.alarms - 1))


# ── submit ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def task_keys(command: SubmitCommands, who: Principal, standing: Standing) -> Iterable[Wanted]:
    """The task, its execution, its run; what limits the executions that the workflow may start."""
    for what in (WorkItem, OF_ITEM, OF_TASK):
        yield what, (who.tenant_id, command.id)
    if any(one.starts for one in command.commands):
        yield from usage_keys(who.tenant_id, standing, "running_executions")


def submit(view: View, command: SubmitCommands) -> Submitted:
    """Settle a task by its commands, all or none. The same submission again answers as the first time."""
    said = fingerprint("commands", command.history_sequence, encoded(command.commands))
    item = leases.need(view, command.id)
    if item.epoch == command.epoch and item.status == "completed" and item.settle_digest == said:
        return msgspec.json.decode(item.settle_reply or b"", type=Submitted)
    item = leases.held(item, command.epoch)
    if item.drives != "decision" or item.execution_id is None:
        raise not_found("workflow task", item.id)
    tenant, execution_id = item.tenant_id, item.execution_id
    execution = executions.need_open(view, execution_id)
    seen(execution, command.history_sequence)
    if execution.status == "pending":  # whose worker decides, runs
        execution = executions.move(view, execution, "running", closing=True)
    view.expect(*(wanted for one in command.commands for wanted in needs(one, execution)))  # first: it may begin anew
    run = need_run(view, tenant, execution_id)
    view.put(msgspec.structs.replace(run, task_id=None, submits=run.submits + 1, seen=command.history_sequence))
    item = settling.end(view, item, "completed")
    for index, one in enumerate(command.commands):
        try:
            order(view, tenant, execution_id, one)
        except StateError as refusal:
            raise executions.refused_at(view, execution_id, f"/commands/{index}", refusal) from None
    run = need_run(view, tenant, execution_id)
    if run.task_id is None and run.woken_at > command.history_sequence:
        wake(view, tenant, execution_id)
    execution = head(view, tenant, execution_id)
    reply = Submitted(execution_id, execution.status, execution.sequence, need_run(view, tenant, execution_id).task_id)
    view.put(msgspec.structs.replace(item, settle_digest=said, settle_reply=encoded(reply)))
    return reply


def needs(command: Command, execution: Execution) -> Iterable[Wanted]:
    """The rows that a command needs, its shelves among them."""
    yield from command.wants(execution.tenant_id, execution.id)
    for queue, requires in command.shelves():
        yield Shelf, (execution.tenant_id, queue_in(execution.namespace, queue), requires)


def seen(execution: Execution, history_sequence: int) -> None:
    """422 for a worker that claims to have seen more than there is."""
    if history_sequence > execution.sequence:
        raise invalid(
            [("/history_sequence", f"the log ends at {execution.sequence}; send the sequence that was replayed")]
        )


def order(view: View, tenant_id: str, execution_id: str, command: Command) -> None:
    """Do what one command asks for: here, or wherever its type is listened for."""
    execution = executions.need_open(view, execution_id)
    own = APPLY.get(type(command))
    if own is not None:
        own(view, execution, command)
    else:
        view.tell(Ordered(tenant_id, execution_id, command), of=type(command))


def step_before(view: View, execution: Execution, command: Any) -> Step | None:
    """The step that this command was before, or None; 409 when the counter stands for something else."""
    kind, seq = command.kind, command.seq
    found = view.get(Step, execution.tenant_id, execution.id, kind, seq)
    if found is None:
        return None
    said = encoded(command)
    if found.digest != fingerprint(said) and digest(found.said) != digest(said):  # the order of keys says nothing
        raise StateError(
            "workflow/nondeterminism",
            f"The workflow's {kind} {seq} was {found.said.decode()} and is now {said.decode()}. Workflow "
            "code must ask for the same things in the same order when replayed; deploy the code that began this run.",
            kind=kind,
            seq=seq,
            before=msgspec.Raw(found.said),
            now=msgspec.Raw(said),
        )
    return found


def add_step(
    view: View,
    execution: Execution,
    command: Any,
    name: str,
    *,
    status: str = "open",
    ref: str | None = None,
    detail: bytes | None = None,
) -> Step:
    """Write down what the workflow asks for; an open step is closed with its run."""
    said = encoded(command)
    step = Step(
        execution.tenant_id, execution.id, command.kind, command.seq, name, fingerprint(said), said, status, ref,
        detail, view.now, None if status == "open" else view.now,
    )  # fmt: skip
    view.add(step)
    if status == "open":
        run = need_run(view, execution.tenant_id, execution.id)
        view.put(msgspec.structs.replace(run, open_steps=run.open_steps + 1))
    return step


def open_step(view: View, tenant_id: str, execution_id: str, kind: str, seq: int) -> Step | None:
    """The step of that counter, if it has not ended; None too where there never was one."""
    step = view.get(Step, tenant_id, execution_id, kind, seq)
    return step if step is not None and step.status == "open" else None


def open_steps(view: View, tenant_id: str, execution_id: str, kind: str) -> list[Step]:
    """What a run has asked for of a kind and not yet got."""
    if not need_run(view, tenant_id, execution_id).open_steps:
        return []
    return [step for step in view.group(Step, OPEN_STEPS, tenant_id, execution_id) if step.kind == kind]


def end_step(view: View, step: Step, status: str, detail: bytes | None = None) -> Step:
    """The step in the word that says how it ended."""
    step = msgspec.structs.replace(step, status=status, ended_at=view.now, detail=detail or step.detail)
    view.put(step)
    run = need_run(view, step.tenant_id, step.execution_id)
    view.put(msgspec.structs.replace(run, open_steps=run.open_steps - 1))
    return step


def _complete(view: View, execution: Execution, command: CompleteWorkflow) -> None:
    executions.move(view, execution, "completed", stored(command.result))


def _fail(view: View, execution: Execution, command: FailWorkflow) -> None:
    error = encoded(settling.shown_error(command.error))
    view.tell(Failing(execution, command, error))
    execution = head(view, execution.tenant_id, execution.id)
    if execution.status not in ENDED:
        executions.move(view, execution, "failed", None, error)


def _cancel(view: View, execution: Execution, _command: CancelWorkflow) -> None:
    executions.move(view, execution, "cancelled")


class SideEffectBody(msgspec.Struct, frozen=True):
    """Body of `side_effect.recorded`."""

    seq: int
    name: str
    value: msgspec.Raw


def _side_effect(view: View, execution: Execution, command: RecordSideEffect) -> None:
    if step_before(view, execution, command) is not None:
        return
    refuse_past(view, "payload_bytes", len(command.value))
    add_step(view, execution, command, command.name, status="recorded")
    body = SideEffectBody(command.seq, command.name, command.value)
    append(view, execution, "side_effect.recorded", encoded(body))


def _snapshot(view: View, execution: Execution, command: RecordSnapshot) -> None:
    state = bytes(command.state)
    snapshot(view, executions.write_state(view, execution, "state.replaced", state, state))


def _attributes(view: View, execution: Execution, command: UpsertSearchAttributes) -> None:
    view.expect(*((what, (execution.tenant_id, execution.id)) for what in (Attributed, FACETS)))
    executions.set_attributes(view, SetAttributes(command.patch, {}, None, execution.id), "/patch")


def _memo(view: View, execution: Execution, command: SetMemo) -> None:
    refuse_past(view, "payload_bytes", len(command.memo))
    run = need_run(view, execution.tenant_id, execution.id)
    view.put(msgspec.structs.replace(run, memo=stored(command.memo)))
    append(view, execution, "memo.set", stored(command.memo))


APPLY: dict[type, Callable[..., None]] = {
    CompleteWorkflow: _complete,
    FailWorkflow: _fail,
    CancelWorkflow: _cancel,
    RecordSideEffect: _side_effect,
    RecordSnapshot: _snapshot,
    UpsertSearchAttributes: _attributes,
    SetMemo: _memo,
}


def task_settled(view: View, fact: WorkSettled) -> None:
    """A workflow task ends by its commands only; one that an operator buried takes its run with it."""
    item = fact.item
    if item.drives != "decision" or item.execution_id is None:
        return
    run = need_run(view, item.tenant_id, item.execution_id)
    if run.task_id != item.id:
        return
    if fact.outcome == "completed":
        raise StateError(
            "work/conflict",
            "A workflow task is settled by its commands: POST /v1/workflow-tasks/{id}/commands.",
            current_status="leased",
        )
    view.put(msgspec.structs.replace(run, task_id=None))
    execution = head(view, item.tenant_id, item.execution_id)
    if execution.status == "pending":
        execution = executions.move(view, execution, "running", closing=True)
    if execution.status not in ENDED:
        executions.move(view, execution, "failed", None, fact.error, closing=True)


# ── end ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class CancelBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """Body of `workflow.cancel_requested`."""

    reason: str | None = None


def by_execution(command: Any, who: Principal, _standing: Standing) -> Iterable[Wanted]:
    """The execution and its run."""
    yield Execution, (who.tenant_id, command.execution_id)
    yield Run, (who.tenant_id, command.execution_id)


def cancel(view: View, command: CancelRun) -> Changed:
    """Ask a run to stop; at once if nobody has worked on it, or if no workflow drives the execution."""
    execution = need_open(view, command.execution_id)
    audit(view, "execution.cancelled", execution.id, {"from": execution.status, "reason": command.reason})
    if execution.segment == 0:
        return executions.changed(executions.move(view, execution, "cancelled", None, None, command.reason))
    force_at = None if command.force_after_ms is None else view.now + command.force_after_ms
    request_cancel(view, execution, command.reason, force_at)
    return executions.changed(head(view, execution.tenant_id, execution.id))


def request_cancel(view: View, execution: Execution, reason: str | None, force_at: int | None = None) -> None:
    """The request, once: its event, what is pending withdrawn, a task for the workflow to answer by."""
    tenant, id = execution.tenant_id, execution.id
    run = need_run(view, tenant, id)
    if run.cancel_requested_at is None:
        view.put(msgspec.structs.replace(run, cancel_requested_at=view.now))
        append(view, execution, "workflow.cancel_requested", encoded(CancelBody(reason)), closing=True)
        view.tell(CancelRequested(tenant, id, reason))
        if untouched(view, run):
            executions.move(view, head(view, tenant, id), "cancelled", None, None, reason)
            return
        wake(view, tenant, id)
    if force_at is not None:
        arm(view, tenant, id, FORCE_CANCEL, force_at)


def untouched(view: View, run: Run) -> bool:
    """Whether no worker has ever held a task of this run, or of one whose work it takes up."""
    task = view.get(WorkItem, run.tenant_id, run.task_id) if run.task_id else None
    return run.submits == 0 and (task is None or task.epoch == 0)


def terminate(view: View, command: TerminateRun) -> Changed:
    """End at once; leases are taken back, and nothing of it stays open."""
    execution = need_open(view, command.execution_id)
    audit(view, "execution.terminated", execution.id, {"from": execution.status, "reason": command.reason})
    return executions.changed(executions.move(view, execution, "terminated", None, None, command.reason))


def complete(view: View, command: CompleteRun) -> Changed:
    """End well, whoever works on it."""
    execution = need_open(view, command.execution_id)
    return executions.changed(executions.move(view, execution, "completed", stored(command.result)))


def fail_keys(command: FailRun, who: Principal, standing: Standing) -> Iterable[Wanted]:
    """The execution and its run; what limits the executions that another attempt is one of."""
    yield from by_execution(command, who, standing)
    yield from usage_keys(who.tenant_id, standing, "running_executions")


def fail(view: View, command: FailRun) -> Changed:
    """End badly, or go on in another attempt. One that is paused is an operator's to end, and that is audited."""
    execution = need_open(view, command.execution_id)
    executions.operate(view, execution, "failed")
    if execution.segment == 0:
        error = encoded(settling.shown_error(command.error))
        return executions.changed(executions.move(view, execution, "failed", None, error))
    _fail(view, execution, FailWorkflow(command.error, command.retryable))
    return executions.changed(head(view, execution.tenant_id, execution.id))


def close(view: View, fact: ExecutionFinished) -> None:
    """When a run ends, its alarms and open steps end with it; the steps' capabilities are told."""
    execution = fact.execution
    if execution.segment == 0:
        return
    run = need_run(view, execution.tenant_id, execution.id)
    if run.open_steps:
        steps = view.group(Step, OPEN_STEPS, execution.tenant_id, execution.id)
        for step in steps:
            view.put(msgspec.structs.replace(step, status="closed", ended_at=view.now))
        view.tell(Closed(execution, steps))
    if run.alarms:
        disarm_all(view, execution.tenant_id, execution.id)
    run = need_run(view, execution.tenant_id, execution.id)
    view.put(msgspec.structs.replace(run, task_id=None, open_steps=0, alarms=0))


def rung(view: View, alarm: Alarm) -> Execution | None:
    """The execution whose alarm has rung, one alarm fewer; None if it has ended."""
    run = need_run(view, alarm.tenant_id, alarm.owner_id)
    view.put(msgspec.structs.replace(run, alarms=run.alarms - 1))
    execution = head(view, alarm.tenant_id, alarm.owner_id)
    return None if execution.status in ENDED else execution


def rang(view: View, fact: Rang) -> None:
    """A run that was to be cancelled by now is; one whose time is up has timed out."""
    alarm = fact.alarm
    if alarm.kind != "run" or (execution := rung(view, alarm)) is None:
        return
    if alarm.name == FORCE_CANCEL:
        executions.move(view, execution, "cancelled")
    else:
        if execution.status != "running":  # time passes for a run that waits or is paused, too
            execution = executions.move(view, execution, "running", closing=True)
        error = ShownError("timeout", f"the {alarm.name.partition(':')[2].replace('_', ' ')} is over")
        executions.move(view, execution, "timed_out", None, encoded(error), closing=True)


def paused(view: View, fact: ExecutionPaused) -> None:
    """A run that is paused decides nothing: its task is withdrawn, whoever holds it, and none is made before it is
    resumed. What it has asked for goes on meanwhile, and is there to be seen."""
    execution = fact.execution
    if execution.segment == 0:
        return
    run = need_run(view, execution.tenant_id, execution.id)
    task = view.get(WorkItem, run.tenant_id, run.task_id) if run.task_id else None
    if fact.resumed and run.woken_at > run.seen:
        wake(view, run.tenant_id, run.id, delay_left(view, run))
    elif not fact.resumed and task is not None:
        touched = task.epoch > 0  # what a worker has held is settled by it or by the pause: a submit either way
        view.put(msgspec.structs.replace(run, task_id=None, submits=run.submits + touched))
        settling.cancel_item(view, task)


RULES = [
    Rule(SubmitCommands, submit, task_keys),
    Rule(CancelRun, cancel, by_execution),
    Rule(TerminateRun, terminate, by_execution),
    Rule(CompleteRun, complete, by_execution),
    Rule(FailRun, fail, fail_keys),
]
LISTENERS = [
    (ExecutionStarted, begin),
    (WorkSettled, task_settled),
    (ExecutionPaused, paused),
    (ExecutionFinished, close),
    (Rang, rang),
]
