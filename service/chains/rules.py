"""How a run goes on in another: pure decisions over the rows of a batch."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from service.alarms.model import Alarm
from service.chains.model import CARRY_MAX, RESET_MAX, ContinueAsNew, ContinueRun, Next, ResetRun, next_id
from service.errors import StateError, invalid, not_found
from service.executions import rules as executions
from service.executions.model import ENDED, Attributed, Execution, State
from service.history.fold import fold
from service.history.model import OURS, LoggedEvent
from service.history.rules import logged
from service.kernel.audit import audit, audit_keys
from service.kernel.command import Rule
from service.kernel.events import append
from service.kernel.json import fingerprint, merge_patch
from service.kernel.limits import refuse_past, usage_keys
from service.kernel.principal import Principal, Standing
from service.kernel.raw import ABSENT, encoded
from service.kernel.tables import Wanted
from service.kernel.view import View
from service.runs.commands import ONE
from service.runs.model import CancelRequested, Continued, Failing, Link, Ordered, Run, SignalCarried, StartLinked, Step
from service.runs.rules import (
    FORCE_CANCEL,
    CancelBody,
    Options,
    arm,
    ended,
    head,
    need_run,
    refuse_queue,
    request_cancel,
    untouched,
    wake,
)
from service.work.model import DEFAULT_RETRY, MAX_ATTEMPTS
from service.work.rules_settling import backoff

SIGNAL, CANCEL = "signal.received", "workflow.cancel_requested"

# ── the next run ───────────────────────────────────────────────────────────────────────────────────────────────────


def linked_start(view: View, execution: Execution, id: str, said: str, link: Link) -> StartLinked:
    """A start that carries everything over but the input; `said` recognises it when it is asked for again."""
    run = need_run(view, execution.tenant_id, execution.id)
    options = msgspec.json.decode(run.options, type=Options)
    kept = view.get(Attributed, execution.tenant_id, execution.id)
    labels, attributes = (kept.labels, kept.attributes) if kept is not None else (None, None)
    return StartLinked(
        workflow_id=execution.workflow_id,
        version=execution.version,
        execution_id=id,
        namespace=execution.namespace,
        parent_id=parent_of(view, execution),
        labels=msgspec.json.decode(labels or b"{}"),
        attributes=msgspec.json.decode(attributes or b"{}"),
        task_queue=execution.queue,
        memo=msgspec.Raw(run.memo or b""),
        execution_timeout_ms=options.execution_timeout_ms,
        run_timeout_ms=options.run_timeout_ms,
        task_timeout_ms=options.task_timeout_ms,
        workflow_retry=options.retry,
        workflow_max_attempts=options.max_attempts,
        digest=said,
        link=msgspec.structs.replace(
            link,
            first_id=run.first_id,
            previous_id=run.id,
            place=run.place + 1,
            parent_seq=run.parent_seq,
            close_policy=run.close_policy,
            expires_at=options.expires_at,
        ),
    )


def parent_of(view: View, execution: Execution) -> str | None:
    """The parent of a run's successor; None when it is gone, past its retention: nobody is left to be told."""
    if execution.parent_id is None or view.get(Execution, execution.tenant_id, execution.parent_id) is None:
        return None
    return execution.parent_id


def id_of_next(view: View, execution: Execution) -> str:
    """The id of the run that follows a run; where the one has it that followed another run of the same id, which was
    removed since, one that is this run's alone."""
    id = next_id(execution.id)
    taken = view.get(Execution, execution.tenant_id, id)
    return id if taken is None else fingerprint(execution.id, "next", execution.created_at)


def reserve(view: View, run: Run, id: str) -> None:
    """Write down where the run goes on, before it ends: so that nobody is told of that end. 409 if the id is taken."""
    if view.get(Execution, run.tenant_id, id) is not None:
        raise StateError("execution/conflict", f"The next run's id {id!r} is another execution's.")
    view.put(msgspec.structs.replace(run, next_id=id))


def begin(
    view: View,
    execution: Execution,
    start: StartLinked,
    carried: Iterable[LoggedEvent],
    force_at: int | None = None,
    *,
    succeeds: bool = True,
) -> None:
    """The next run, with what the one before had not seen; whoever knows the one before is told. A request to cancel
    is forced at `force_at`, as it would have been there. It `succeeds` the one before if that ends in this commit."""
    tenant, id = execution.tenant_id, start.execution_id or ""
    executions.start(view, start, succeeds=succeeds)
    view.tell(Continued(tenant, execution.id, id))
    for event in carried:
        hand_on(view, tenant, id, event, force_at)


def force_at_of(view: View, run: Run, carried: Iterable[LoggedEvent]) -> int | None:
    """When the request to cancel that goes on with a run is forced; None if it is not, or if there is none."""
    if not run.alarms or all(event.kind != CANCEL for event in carried):
        return None
    alarm = view.get(Alarm, run.tenant_id, run.id, FORCE_CANCEL)
    return None if alarm is None else alarm.due_at


def hand_on(view: View, tenant_id: str, id: str, event: LoggedEvent, force_at: int | None) -> None:
    """A signal, or a request to cancel, of the run before."""
    execution = head(view, tenant_id, id)
    if event.kind == SIGNAL:
        carry(view, tenant_id, id, event, taken=True)
        wake(view, tenant_id, id)
    elif event.kind == CANCEL:
        request_cancel(view, execution, reason_of(event), force_at)


def reason_of(event: LoggedEvent) -> str | None:
    """Why a run was asked to stop."""
    return msgspec.json.decode(event.body or b"{}", type=CancelBody).reason


def carry(view: View, tenant_id: str, id: str, event: LoggedEvent, *, taken: bool = False) -> None:
    """An event of the run before in the log of the next one; of a signal, whoever knows signals is told. What was
    `taken` from a caller goes on whatever the limit of events is by now."""
    execution = append(
        view, head(view, tenant_id, id), event.kind, event.body, node_id=event.node_id,
        causation_id=event.causation_id, closing=taken,
    )  # fmt: skip
    if event.kind == SIGNAL:
        view.tell(SignalCarried(execution, event.body))


def unseen(view: View, execution: Execution, run: Run) -> list[LoggedEvent]:
    """The signals and requests to cancel that the workflow had not seen when it last submitted; 409 if so much came
    since that it cannot go on in one commit."""
    if run.woken_at <= run.seen:
        return []
    if (count := execution.sequence - run.seen) > CARRY_MAX:
        raise StateError(
            "workflow/unseen",
            f"The workflow has seen the log up to {run.seen}; of what came since, at most {CARRY_MAX} events go on in "
            f"another run, and there are {count}. Let a worker settle a task that has seen more.",
            limit=CARRY_MAX,
            current=count,
            seen=run.seen,
        )
    found = log_of(view, execution, run.seen + 1, execution.sequence)
    return [event for event in found if event.kind in (SIGNAL, CANCEL)]


def log_of(view: View, execution: Execution, first: int, last: int) -> list[LoggedEvent]:
    """The events `first` to `last` of a log, this batch's included; only these are read."""
    tenant, id = execution.tenant_id, execution.id
    fresh = {event.sequence: logged(event) for event in view.appended(tenant, id)}
    wanted = range(first, last + 1)
    view.expect(*((LoggedEvent, (tenant, id, sequence)) for sequence in wanted if sequence not in fresh))
    found = (fresh.get(sequence) or view.get(LoggedEvent, tenant, id, sequence) for sequence in wanted)
    return [event for event in found if event is not None]


class ContinuedBody(msgspec.Struct, frozen=True):
    """Body of `workflow.continued_as_new`."""

    next_id: str
    workflow_type: str


class RetriedBody(msgspec.Struct, frozen=True):
    """Body of `workflow.retry_scheduled`; `at` is when the next attempt's first task is handed out."""

    next_id: str
    attempt: int
    at: int


class StartedWith(msgspec.Struct, frozen=True):
    """The part of `execution.started` that another attempt needs."""

    input: msgspec.Raw = ABSENT


# ── continue ───────────────────────────────────────────────────────────────────────────────────────────────────────


def ordered(view: View, fact: Ordered) -> None:
    """A workflow goes on in a new run."""
    go_on(view, head(view, fact.tenant_id, fact.execution_id), fact.command)


def continue_keys(command: ContinueRun, who: Principal, standing: Standing) -> Iterable[Wanted]:
    """The execution, its run, what is carried over, whatever has the next run's id; what limits executions."""
    yield from usage_keys(who.tenant_id, standing, "running_executions")
    yield Execution, (who.tenant_id, command.execution_id)
    yield Run, (who.tenant_id, command.execution_id)
    yield from ContinueAsNew().wants(who.tenant_id, command.execution_id)


def continue_run(view: View, command: ContinueRun) -> Next:
    """A run continued from outside: the same as the workflow's command; the same again answers the same."""
    execution = executions.need(view, command.execution_id)
    run = need_run(view, execution.tenant_id, execution.id)
    said = ContinueAsNew(command.input, command.workflow_type, command.task_queue)
    if execution.status in ENDED:
        if run.next_id is None or head(view, run.tenant_id, run.next_id).digest != digest_of(said):
            raise ended(view, execution)
        return Next(execution.id, run.next_id, False)
    return Next(execution.id, go_on(view, execution, said))


def digest_of(command: ContinueAsNew) -> str:
    """What a command to continue says."""
    return fingerprint("continue", encoded(command))


def go_on(view: View, execution: Execution, command: ContinueAsNew) -> str:
    """Close the run as completed, its successor named in its log, and begin the successor: its id."""
    tenant, id = execution.tenant_id, id_of_next(view, execution)
    run = need_run(view, tenant, execution.id)
    carried = unseen(view, execution, run)
    force_at, link = force_at_of(view, run, carried), Link(worked_on=not untouched(view, run))
    start = msgspec.structs.replace(linked_start(view, execution, id, digest_of(command), link), input=command.input)
    if command.task_queue is not None:
        start = msgspec.structs.replace(start, task_queue=command.task_queue)
    if command.workflow_type not in (None, execution.workflow_id):
        start = msgspec.structs.replace(start, workflow_id=command.workflow_type, version=None)
    refuse_queue(view, start.namespace, start.task_queue or "default")
    refuse_past(view, "payload_bytes", len(command.input))
    reserve(view, run, id)
    body = encoded(ContinuedBody(id, start.workflow))
    execution = append(view, execution, "workflow.continued_as_new", body, closing=True)
    begin(view, executions.move(view, execution, "completed"), start, carried, force_at)
    return id


# ── try again ──────────────────────────────────────────────────────────────────────────────────────────────────────


def failing(view: View, fact: Failing) -> None:
    """A workflow that fails and may be tried again: the run fails, and another attempt begins after the backoff."""
    execution = fact.execution
    run = need_run(view, execution.tenant_id, execution.id)
    options = msgspec.json.decode(run.options, type=Options)
    delay = delay_before_next(view, run, options, fact)
    if delay is None:
        return
    tenant, id = execution.tenant_id, next_id(execution.id)
    view.expect((Attributed, (tenant, execution.id)), (Execution, (tenant, id)), (Run, (tenant, id)))
    id = id_of_next(view, execution)
    (first,) = log_of(view, execution, 1, 1)
    carried = unseen(view, execution, run)
    link = Link(attempt=run.attempt + 1, delay_ms=delay)
    start = linked_start(view, execution, id, fingerprint("retry", execution.id), link)
    start = msgspec.structs.replace(start, input=msgspec.json.decode(first.body or b"{}", type=StartedWith).input)
    reserve(view, run, id)
    body = encoded(RetriedBody(id, link.attempt, view.now + delay))
    execution = append(view, execution, "workflow.retry_scheduled", body, closing=True)
    begin(view, executions.move(view, execution, "failed", None, fact.error), start, carried)


def delay_before_next(view: View, run: Run, options: Options, fact: Failing) -> int | None:
    """Milliseconds until the next attempt, or None if there is none: not asked for, used up, stopped, or too late."""
    if (options.retry is None and options.max_attempts is None) or not fact.command.retryable:
        return None
    retry = options.retry or DEFAULT_RETRY
    used_up = run.attempt >= (options.max_attempts or MAX_ATTEMPTS)
    if used_up or run.cancel_requested_at is not None or fact.command.error.type in retry.non_retryable:
        return None
    delay = backoff(retry, run.attempt, view.chance)
    late = options.expires_at is not None and view.now + delay >= options.expires_at
    return None if late else delay


# ── reset ──────────────────────────────────────────────────────────────────────────────────────────────────────────


MEMO = "memo.set"
BEGINS = {"activity.scheduled": "activity", "timer.scheduled": "timer", "child.started": "child"}
"""The events that begin a step which takes time, and its kind."""
ENDS = frozenset(
    f"{kind}.{end}"
    for kind, ends in {
        "activity": ("completed", "failed", "timed_out", "cancelled"),
        "timer": ("fired", "cancelled"),
        "child": ENDED,
        "side_effect": ("recorded",),
        "signal": ("sent", "failed"),
    }.items()
    for end in ends
)
"""The events that end a step; the kind is the first word."""
FAMILIES = ("workflow.", "snapshot.", "work.", "execution.")
LEFT_OUT = frozenset(kind for kind in OURS if kind.startswith(FAMILIES))
"""Events of ours that say how the old run was driven, not what the workflow knows."""


class ResetBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """Body of `workflow.reset`, in the log of the run that was reset."""

    next_id: str
    to_sequence: int
    reason: str | None = None


class Began(msgspec.Struct, frozen=True):
    """The part of `execution.started` that a reset needs."""

    input: msgspec.Raw = ABSENT
    state: msgspec.Raw = ABSENT
    memo: msgspec.Raw = ABSENT
    labels: dict[str, Any] = {}
    attributes: dict[str, Any] = {}


class Prefix(msgspec.Struct, frozen=True):
    """The log up to the point of a reset: which steps had ended by then, which were pending, and which of these were so
    already when the run was asked to stop."""

    events: Sequence[LoggedEvent]
    ended: frozenset[tuple[str, int]]
    pending: frozenset[tuple[str, int]]
    stopping: frozenset[tuple[str, int]]


class StepBody(msgspec.Struct, frozen=True):
    """The part of a step's events that names it."""

    seq: int


def reset_keys(command: ResetRun, who: Principal, standing: Standing) -> Iterable[Wanted]:
    """The execution, its run, what is carried over, whatever has the new run's id; what limits executions; what an
    operator does is audited."""
    yield from usage_keys(who.tenant_id, standing, "running_executions")
    yield Execution, (who.tenant_id, command.execution_id)
    yield Run, (who.tenant_id, command.execution_id)
    yield Attributed, (who.tenant_id, command.execution_id)
    yield Execution, (who.tenant_id, reset_id(command))
    yield from audit_keys(who.tenant_id)


def reset_id(command: ResetRun) -> str:
    """The id of the run that a reset begins."""
    return fingerprint(command.execution_id, "reset", command.to_sequence, command.reason)


def reset(view: View, command: ResetRun) -> Next:
    """A new run from a prefix of the log; the old one, if it is open, is terminated. The same again is a no-op."""
    execution = executions.need(view, command.execution_id)
    run, id = need_run(view, execution.tenant_id, execution.id), reset_id(command)
    if run.next_id == id:
        return Next(execution.id, id, False)
    refuse(execution, run, command)
    refuse_queue(view, execution.namespace, execution.queue or "default")
    audit(view, "execution.reset", execution.id, {"to_sequence": command.to_sequence, "reason": command.reason})
    log = log_of(view, execution, 1, execution.sequence)
    if len(log) < execution.sequence:  # past its retention: it is being removed, a page at a time
        raise not_found("execution", execution.id)
    prefix, later = prefix_of(log[: command.to_sequence]), log[command.to_sequence :]
    steps, force_at = steps_of(view, execution, prefix), force_at_of(view, run, prefix.events)
    start = start_of(view, execution, run, id, prefix, later)
    reserve(view, run, id)
    if was_open := execution.status not in ENDED:
        body = encoded(ResetBody(id, command.to_sequence, command.reason))
        execution = append(view, execution, "workflow.reset", body, closing=True)
        execution = executions.move(view, execution, "terminated", None, None, command.reason)
    begin(view, execution, start, (), succeeds=was_open)
    replay(view, run, id, prefix, steps, force_at)
    for event in later:
        if event.kind == SIGNAL:
            carry(view, execution.tenant_id, id, event)
    wake(view, execution.tenant_id, id)
    return Next(execution.id, id)


def refuse(execution: Execution, run: Run, command: ResetRun) -> None:
    """422 for a point that is not in the log, or a log too long; 409 for a run that goes on in another."""
    if command.to_sequence > execution.sequence:
        raise invalid([("/to_sequence", f"the log ends at {execution.sequence}")])
    if execution.sequence > RESET_MAX:
        raise invalid([("/to_sequence", f"a log of more than {RESET_MAX} events cannot be reset")])
    if run.next_id is not None:
        raise StateError(
            "execution/conflict",
            f"The run goes on in {run.next_id!r} already; reset the last run of the chain.",
            current_status=execution.status,
            next_id=run.next_id,
        )


def prefix_of(events: Sequence[LoggedEvent]) -> Prefix:
    """What a log says of the workflow's steps."""
    began: set[tuple[str, int]] = set()
    ended: set[tuple[str, int]] = set()
    stopping: set[tuple[str, int]] = set()
    for event in events:
        if event.kind == CANCEL:
            stopping |= began
        if event.kind in BEGINS or event.kind in ENDS:
            step = (event.kind.partition(".")[0], msgspec.json.decode(event.body or b"", type=StepBody).seq)
            (began if event.kind in BEGINS else ended).add(step)
    return Prefix(events, frozenset(ended), frozenset(began - ended), frozenset(stopping - ended))


def steps_of(view: View, execution: Execution, prefix: Prefix) -> dict[tuple[str, int], Step]:
    """The steps of a prefix, by kind and counter."""
    keys = sorted(prefix.ended | prefix.pending)
    view.expect(*((Step, (execution.tenant_id, execution.id, *key)) for key in keys))
    found = {key: view.get(Step, execution.tenant_id, execution.id, *key) for key in keys}
    return {key: step for key, step in found.items() if step is not None}


def start_of(
    view: View, execution: Execution, run: Run, id: str, prefix: Prefix, later: Sequence[LoggedEvent]
) -> StartLinked:
    """The start of the new run: the input of the old one, and labels, attributes and memo as they were at the point.
    The time of the whole begins anew. What had ended has told its parent so, and is no longer ended with it."""
    began = msgspec.json.decode(prefix.events[0].body or b"{}", type=Began)
    labels, attributes, memo = began.labels, began.attributes, bytes(began.memo)
    if not memo and all(event.kind != MEMO for event in later):
        memo = run.memo or b""
    for event in prefix.events:
        if event.kind == "attributes.set":
            patch = msgspec.json.decode(event.body or b"{}", type=Began)
            labels, attributes = merge_patch(labels, patch.labels), merge_patch(attributes, patch.attributes)
        elif event.kind == MEMO:
            memo = event.body or b""
    link = Link(attempt=run.attempt, worked_on=not untouched(view, run))
    start = linked_start(view, execution, id, fingerprint("reset", id), link)
    policy = "abandon" if run.close_policy is not None and execution.status in ENDED else run.close_policy
    return msgspec.structs.replace(
        start,
        input=began.input,
        state=began.state,
        labels=labels,
        attributes=attributes,
        memo=msgspec.Raw(memo),
        link=msgspec.structs.replace(start.link, expires_at=None, close_policy=policy),
    )


def replay(
    view: View, run: Run, id: str, prefix: Prefix, steps: dict[tuple[str, int], Step], force_at: int | None
) -> None:
    """The prefix of a run's log in the new one: what has ended is copied, what was pending is asked for anew, after it.
    A run that was asked to stop by then still is: what was pending when it was is withdrawn again, and at `force_at` it
    is forced to."""
    tenant_id, requests = run.tenant_id, [event for event in prefix.events if event.kind == CANCEL]
    for event in prefix.events:
        if event.kind == CANCEL or not (event.kind in LEFT_OUT or begins_pending(event, prefix)):
            carry(view, tenant_id, id, event)
    keep_state(view, tenant_id, id, prefix)
    for key, step in steps.items():
        if key in prefix.ended:
            view.add(msgspec.structs.replace(step, execution_id=id))
    ask_anew(view, tenant_id, id, [step for key, step in steps.items() if key in prefix.stopping])
    for event in requests:
        stopped = msgspec.structs.replace(need_run(view, tenant_id, id), cancel_requested_at=run.cancel_requested_at)
        view.put(stopped)
        view.tell(CancelRequested(tenant_id, id, reason_of(event)))
    if force_at is not None:
        arm(view, tenant_id, id, FORCE_CANCEL, force_at)
    ask_anew(view, tenant_id, id, [step for key, step in steps.items() if key in prefix.pending - prefix.stopping])


def ask_anew(view: View, tenant_id: str, id: str, steps: Iterable[Step]) -> None:
    """Have the new run ask for what the old one had asked for and not got. Each is as old as it was there: what a
    request to stop has found stops, however it goes on."""
    for step in steps:
        asked = ONE.decode(step.said)
        view.tell(Ordered(tenant_id, id, asked), of=type(asked))
        made = view.get(Step, tenant_id, id, step.kind, step.seq)
        if made is not None:
            view.put(msgspec.structs.replace(made, created_at=step.created_at))


def begins_pending(event: LoggedEvent, prefix: Prefix) -> bool:
    """Whether the event begins a step that was pending at the point."""
    kind = BEGINS.get(event.kind)
    return kind is not None and (kind, msgspec.json.decode(event.body or b"", type=StepBody).seq) in prefix.pending


def keep_state(view: View, tenant_id: str, id: str, prefix: Prefix) -> None:
    """The state as the prefix adds up to it, if it writes any."""
    if not any(event.kind.startswith("state.") for event in prefix.events):
        return
    new = State(tenant_id, id, encoded(fold(prefix.events).state), head(view, tenant_id, id).sequence)
    if prefix_has_state(prefix):
        view.put(new)
    else:
        view.add(new)


def prefix_has_state(prefix: Prefix) -> bool:
    """Whether the start itself wrote a state."""
    return bool(msgspec.json.decode(prefix.events[0].body or b"{}", type=Began).state)


RULES = [Rule(ContinueRun, continue_run, continue_keys), Rule(ResetRun, reset, reset_keys)]
LISTENERS = [(ContinueAsNew, ordered), (Failing, failing)]
