"""How children start, tell their parents of their ends, and end with them: pure decisions over the rows of a batch."""

from collections.abc import Iterable, Sequence

import msgspec

from service.alarms.model import OF_OWNER, Alarm, Rang
from service.children.model import Child, StartChild, StartChildWorkflow
from service.executions import rules as executions
from service.executions.model import ENDED, Execution, ExecutionFinished
from service.kernel.command import Rule
from service.kernel.events import append
from service.kernel.json import fingerprint
from service.kernel.limits import usage_keys
from service.kernel.principal import Principal, Standing
from service.kernel.raw import encoded, shown
from service.kernel.tables import Wanted
from service.kernel.view import View
from service.runs.model import OPEN_STEPS, CancelRequested, Closed, Continued, Link, Ordered, Run, StartLinked, Step
from service.runs.rules import (
    add_step,
    arm,
    asked_of,
    end_step,
    head,
    need_run,
    open_steps,
    refuse_queue,
    request_cancel,
    rung,
    step_before,
    wake,
)
from service.work.model import OPEN_ITEMS, ShownError

KIND = StartChildWorkflow.kind
ALARM = "children"
AT_ONCE = 100
"""How many open steps a run may have for its children to be dealt with in the commit in which it ends."""
REASON = "the parent ended or was asked to stop"


class ChildBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """Body of a child's events, in its parent's log."""

    seq: int
    execution_id: str
    workflow_type: str
    result: msgspec.Raw | None = None
    error: msgspec.Raw | ShownError | None = None


# ── start ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def ordered(view: View, fact: Ordered) -> None:
    """A workflow starts a child."""
    begin(view, head(view, fact.tenant_id, fact.execution_id), fact.command)


def child_keys(command: StartChild, who: Principal, standing: Standing) -> Iterable[Wanted]:
    """The parent, its run, the step, whatever has the child's id; what limits executions."""
    yield from usage_keys(who.tenant_id, standing, "running_executions")
    yield Execution, (who.tenant_id, command.parent_id)
    yield Run, (who.tenant_id, command.parent_id)
    yield from command.child.wants(who.tenant_id, command.parent_id)


def start_child(view: View, command: StartChild) -> Child:
    """A child started from outside: the same as the workflow's command."""
    execution = asked_of(view, command.parent_id)
    step, created = begin(view, execution, command.child)
    return Child(step.seq, step.name, step.ref, step.status, created)


def begin(view: View, parent: Execution, command: StartChildWorkflow) -> tuple[Step, bool]:
    """The child's step, and whether it is new: with its run, or failed at once if somebody else has its id."""
    before = step_before(view, parent, command)
    if before is not None:
        return before, False
    refuse_queue(view, parent.namespace, command.task_queue or parent.queue or "default")
    child_id = id_for(view, parent, command)
    if child_id is None:
        return refused(view, parent, command, command.child_id(parent.id)), True
    step = add_step(view, parent, command, command.workflow_type, ref=child_id)
    append(view, parent, "child.started", encoded(ChildBody(command.seq, child_id, command.workflow_type)))
    executions.start(view, start_of(parent, command, child_id))
    return step, True


def id_for(view: View, parent: Execution, command: StartChildWorkflow) -> str | None:
    """The id of a new child; None if it is somebody else's. Where a child of an earlier run has it and is over, or
    about to be, the new child has an id of its own: a run that is tried again or reset starts its children. So it has
    where its id was not chosen but followed from its parent's, and the child of a parent of that id, which was removed
    since, lives on."""
    chosen = command.child_id(parent.id)
    taken = view.get(Execution, parent.tenant_id, chosen)
    if taken is None:
        return chosen
    if not (of_namesake(parent, taken) and command.execution_id is None) and not left_behind(view, parent, taken):
        return None
    for own in (fingerprint(parent.id, "child", command.seq), fingerprint(parent.id, parent.created_at, command.seq)):
        if view.get(Execution, parent.tenant_id, own) is None:
            return own
    return None


def of_namesake(parent: Execution, taken: Execution) -> bool:
    """Whether an execution is the child of another parent of the same id, which was removed since."""
    return taken.parent_id == parent.id and taken.created_at < parent.created_at


def left_behind(view: View, parent: Execution, taken: Execution) -> bool:
    """Whether an execution is a child of an earlier run of the parent's chain, or of an earlier run of its id, and does
    not live on."""
    if of_namesake(parent, taken):
        return taken.status in ENDED
    if taken.parent_id in (None, parent.id) or not taken.segment:
        return False
    view.expect((Run, (taken.tenant_id, taken.id)), (Run, (taken.tenant_id, taken.parent_id)))
    child, before = (view.get(Run, taken.tenant_id, id) for id in (taken.id, taken.parent_id))
    if child is None or child.parent_seq is None or before is None:
        return False
    if before.first_id != need_run(view, parent.tenant_id, parent.id).first_id:
        return False
    return child.close_policy != "abandon" or (taken.status in ENDED and child.next_id is None)


def refused(view: View, parent: Execution, command: StartChildWorkflow, child_id: str) -> Step:
    """The step of a child that cannot be: its id is another execution's, which is left alone."""
    step = add_step(view, parent, command, command.workflow_type, status="failed")
    error = ShownError("id-taken", f"the execution {child_id!r} is there already; choose another id, or none")
    append(view, parent, "child.failed", encoded(ChildBody(command.seq, child_id, command.workflow_type, error=error)))
    wake(view, parent.tenant_id, parent.id)
    return step


def start_of(parent: Execution, command: StartChildWorkflow, child_id: str) -> StartLinked:
    """The start of a child, in its parent's namespace."""
    return StartLinked(
        workflow_id=command.workflow_type,
        execution_id=child_id,
        namespace=parent.namespace,
        input=command.input,
        parent_id=parent.id,
        attributes=command.search_attributes,
        task_queue=command.task_queue or parent.queue,
        memo=command.memo,
        execution_timeout_ms=command.execution_timeout_ms,
        run_timeout_ms=command.run_timeout_ms,
        task_timeout_ms=command.task_timeout_ms,
        workflow_retry=command.workflow_retry,
        workflow_max_attempts=command.workflow_max_attempts,
        link=Link(parent_seq=command.seq, close_policy=command.parent_close_policy),
    )


# ── end of a child ─────────────────────────────────────────────────────────────────────────────────────────────────


def ended(view: View, fact: ExecutionFinished) -> None:
    """A child has ended: its parent's log says how, and the parent sees it. Not of a run that goes on in another."""
    child = fact.execution
    step = step_of(view, child)
    if (
        step is None
        or step.status != "open"
        or step.ref != child.id
        or need_run(view, child.tenant_id, child.id).next_id is not None
    ):
        return
    end_step(view, step, child.status)
    body = ChildBody(step.seq, child.id, step.name, shown(fact.result), shown(fact.error))
    parent = head(view, step.tenant_id, step.execution_id)
    append(view, parent, f"child.{child.status}", encoded(body), closing=True)
    wake(view, step.tenant_id, step.execution_id)


def step_of(view: View, child: Execution) -> Step | None:
    """The parent's step that a run belongs to, its parent loaded with it; None for a run that is nobody's child."""
    if child.segment == 0 or child.parent_id is None:
        return None
    seq = need_run(view, child.tenant_id, child.id).parent_seq
    if seq is None:
        return None
    parent, step = (child.tenant_id, child.parent_id), (child.tenant_id, child.parent_id, KIND, seq)
    view.expect((Execution, parent), (Run, parent), (Step, step))
    return view.get(Step, *step)


def continued(view: View, fact: Continued) -> None:
    """A child goes on in another run: the step follows it, and so does what its parent's end asks of it."""
    step = step_of(view, head(view, fact.tenant_id, fact.execution_id))
    if step is None:
        return
    if step.status == "open":
        if step.ref != fact.execution_id:
            return  # the child of another parent, which had this one's id before
        view.put(msgspec.structs.replace(step, ref=fact.next_id))
    policy = need_run(view, fact.tenant_id, fact.next_id).close_policy
    requested_at = need_run(view, step.tenant_id, step.execution_id).cancel_requested_at
    stopping = requested_at is not None and step.created_at <= requested_at  # what is begun after that is to be done
    if policy != "abandon" and (step.status == "closed" or stopping):
        arm(view, fact.tenant_id, fact.next_id, f"{ALARM}:{policy}", view.now, new=True)


# ── end of a parent ────────────────────────────────────────────────────────────────────────────────────────────────


def closed(view: View, fact: Closed) -> None:
    """A parent has ended: its open children are dealt with."""
    part_from(view, [step for step in fact.steps if step.kind == KIND], many=len(fact.steps) > AT_ONCE)


def withdraw(view: View, fact: CancelRequested) -> None:
    """A parent was asked to stop: its children are dealt with as when it ends."""
    run = need_run(view, fact.tenant_id, fact.execution_id)
    part_from(view, open_steps(view, run.tenant_id, run.id, KIND), many=run.open_steps > AT_ONCE)


def part_from(view: View, steps: Sequence[Step], *, many: bool) -> None:
    """Deal with children as their policies say, the rows of all of them loaded together."""
    keys = [(step.tenant_id, step.ref or "") for step in steps]
    view.expect(*((what, key) for key in keys for what in (Execution, Run)))
    view.expect(*(wanted for key in keys for wanted in to_end(view, need_run(view, *key), many=many)))
    for key in keys:
        part(view, head(view, *key), many=many)


def to_end(view: View, run: Run, *, many: bool) -> Iterable[Wanted]:
    """What ending a child needs, so that a thousand of them are not asked for one by one."""
    key, execution = (run.tenant_id, run.id), head(view, run.tenant_id, run.id)
    if execution.status in ENDED or run.close_policy == "abandon":
        return
    yield Alarm, (*key, f"{ALARM}:{run.close_policy}")
    if many:
        return
    if run.open_steps:
        yield OPEN_STEPS, key
    if run.alarms:
        yield OF_OWNER, key
    if execution.open_items:
        yield OPEN_ITEMS, key


def part(view: View, child: Execution, *, many: bool) -> None:
    """Deal with one child as its policy says: now, or by an alarm if there are many or it has children itself."""
    run = need_run(view, child.tenant_id, child.id)
    if child.status in ENDED or run.close_policy is None or run.close_policy == "abandon":
        return
    if many or open_steps(view, run.tenant_id, run.id, KIND):
        arm(view, child.tenant_id, child.id, f"{ALARM}:{run.close_policy}", view.now)
    else:
        deal_with(view, child, run.close_policy)


def deal_with(view: View, child: Execution, policy: str) -> None:
    """End the child, or ask it to stop."""
    if policy == "terminate":
        executions.move(view, child, "terminated", None, None, REASON)
    else:
        request_cancel(view, child, REASON)


def rang(view: View, fact: Rang) -> None:
    """The turn of a child that did not fit into the commit in which its parent ended."""
    if fact.alarm.kind == ALARM and (execution := rung(view, fact.alarm)) is not None:
        deal_with(view, execution, fact.alarm.name.partition(":")[2])


RULES = [Rule(StartChild, start_child, child_keys)]
LISTENERS = [
    (StartChildWorkflow, ordered),
    (ExecutionFinished, ended),
    (Continued, continued),
    (Closed, closed),
    (CancelRequested, withdraw),
    (Rang, rang),
]
