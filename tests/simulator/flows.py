"""What the clients of a world of workflows ask for: callers, workflow workers, activity workers, operators.

They know what they were told, and of a log where it ends when they get its task. What must be true of the engine's rows
afterwards is `tests.walk.engine_rows`; here is what an answer means.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from service.activities.model import (
    CancelActivity,
    CompleteActivity,
    FailActivity,
    HeartbeatActivity,
    NewActivity,
    ScheduleActivity,
    Scheduled,
)
from service.chains.model import ContinueAsNew, ContinueRun, Next, ResetRun
from service.children.model import Child, StartChild, StartChildWorkflow
from service.executions.model import Changed, SetStatus, Started, StartExecution
from service.runs.model import (
    CancelRun,
    CancelWorkflow,
    CompleteRun,
    CompleteWorkflow,
    FailRun,
    FailWorkflow,
    RecordSideEffect,
    RecordSnapshot,
    SubmitCommands,
    Submitted,
    TerminateRun,
    UpsertSearchAttributes,
)
from service.schedules.model import schedule_of
from service.signals.model import SendSignal, SignalExternal, Signalled, SignalWithStart, Told, WaitForSignal
from service.timers.model import CancelTimer, NewTimer, ScheduleTimer, Timer
from service.work.model import ClaimWork, Renewed, Retry, Settled, WorkError
from tests.simulator.asks import OPS as CORE
from tests.simulator.asks import Ask, Asker, Lore, Ops, raw, settled
from tests.simulator.ledger import Ledger, must

TYPES = ("order", "part")
POLICIES = ("terminate", "request_cancel", "abandon")


class Task(msgspec.Struct):
    """What a claim tells of an item; read again from a stored answer as well."""

    id: str
    epoch: int
    execution_id: str | None


class Tasks(msgspec.Struct):
    """The answer to a claim."""

    items: list[Task]


class Held(msgspec.Struct, frozen=True):
    """A task or an attempt that somebody holds, and where the log ended when it was handed out."""

    id: str
    epoch: int
    execution_id: str
    sequence: int


def flow(by: Asker, lore: Lore) -> str:
    """A run that is known."""
    return by.one(lore.flows)


def met(lore: Lore, run: str) -> None:
    """Remember a run."""
    lore.hear(lore.flows, run)


def counter(by: Asker) -> int:
    """A workflow's counter: of few, so that they meet."""
    return by.random.randint(1, 9)


# ── callers ────────────────────────────────────────────────────────────────────────────────────────────────────────


def started(by: Asker, ask: Ask, **more: Any) -> StartExecution:
    """The start of a run with an id of the client's."""
    if by.chance(0.3):
        more["workflow_retry"], more["workflow_max_attempts"] = Retry(initial_delay_ms=20, jitter=False), 3
    if by.chance(0.2):
        more["run_timeout_ms"] = by.random.choice((40, 400))
    return StartExecution(
        workflow_id=by.random.choice(TYPES), task_queue="flows", execution_id=f"r{ask.number}",
        digest=f"digest of {ask.name}", input=raw(ask.number), **more,
    )  # fmt: skip


def start_run(by: Asker, ask: Ask, lore: Lore) -> None:
    """A run."""
    ask.repeatable, ask.reply = True, Started
    ask.command = started(by, ask)
    ask.check = lambda _ledger, reply: met(lore, reply.execution_id)


def logged(ledger: Ledger, ask: Ask, run: str, sequence: int, kind: str) -> None:
    """The event stands where the answer says."""
    record = ledger.database.tables["events"].records.get((ask.tenant, run, sequence))
    found = None if record is None or record.now is None else record.now[record.table.at["kind"]]
    must(found == kind, ask, "is at", sequence, "of", run, "as", found)


def signal(by: Asker, ask: Ask, lore: Lore) -> None:
    """A signal with an id of its own, so that it may be repeated."""
    run = flow(by, lore)
    ask.repeatable, ask.reply = True, Signalled
    ask.command = SendSignal(raw(ask.number), f"s{ask.number}", "go", run)
    ask.check = lambda ledger, reply: logged(ledger, ask, run, reply.sequence, "signal.received")


def signal_with_start(by: Asker, ask: Ask, lore: Lore) -> None:
    """A signal to a run that this starts."""
    ask.repeatable, ask.reply = True, Signalled
    ask.command = SignalWithStart(started(by, ask), Told("go", raw(ask.number), f"s{ask.number}"))

    def check(ledger: Ledger, reply: Signalled) -> None:
        met(lore, reply.execution_id)
        logged(ledger, ask, reply.execution_id, reply.sequence, "signal.received")

    ask.check = check


def timer(by: Asker, ask: Ask, lore: Lore) -> None:
    """A timer from outside."""
    ask.reply = Timer
    ask.command = NewTimer(counter(by), by.random.choice((0, 30, 300)), None, flow(by, lore))


def activity(by: Asker, ask: Ask, lore: Lore) -> None:
    """An activity from outside."""
    said = msgspec.structs.asdict(activity_of(by, counter(by)))
    ask.reply = Scheduled
    ask.command = NewActivity(**said, execution_id=flow(by, lore))


def child(by: Asker, ask: Ask, lore: Lore) -> None:
    """A child from outside."""
    ask.reply = Child
    ask.command = StartChild(child_of(by, counter(by)), flow(by, lore))


def cancel(by: Asker, ask: Ask, lore: Lore) -> None:
    """A request to stop."""
    ask.reply = Changed
    ask.command = CancelRun(None, by.random.choice((None, 0, 50)), flow(by, lore))


def pause_run(by: Asker, ask: Ask, lore: Lore) -> None:
    """A run that is to decide nothing for a while, or to go on."""
    ask.reply = Changed
    ask.command = SetStatus(by.random.choice(("paused", "running")), execution_id=flow(by, lore))


def terminate(by: Asker, ask: Ask, lore: Lore) -> None:
    """An end at once."""
    ask.reply = Changed
    ask.command = TerminateRun(None, flow(by, lore))


def complete_run(by: Asker, ask: Ask, lore: Lore) -> None:
    """A good end from outside."""
    ask.reply = Changed
    ask.command = CompleteRun(raw(ask.number), flow(by, lore))


def fail_run(by: Asker, ask: Ask, lore: Lore) -> None:
    """A bad end from outside, perhaps another attempt."""
    ask.reply = Changed
    ask.command = FailRun(WorkError("broken"), by.chance(0.8), flow(by, lore))


def following(ask: Ask, lore: Lore) -> Callable[[Ledger, Next], None]:
    """The run that another goes on in is there."""

    def check(ledger: Ledger, reply: Next) -> None:
        must(ledger.ends[ask.tenant, reply.next_id] > 0, ask, "goes on in", reply.next_id, "which is not there")
        met(lore, reply.next_id)

    return check


def continue_run(by: Asker, ask: Ask, lore: Lore) -> None:
    """A run continued from outside."""
    ask.repeatable, ask.reply, ask.check = True, Next, following(ask, lore)
    ask.command = ContinueRun(raw(ask.number), None, None, flow(by, lore))


def reset(by: Asker, ask: Ask, lore: Lore) -> None:
    """A run from the beginning of another's log."""
    ask.repeatable, ask.reply, ask.check = True, Next, following(ask, lore)
    ask.command = ResetRun(by.random.randint(1, 8), f"{ask.number}", flow(by, lore))


# ── workflow workers ───────────────────────────────────────────────────────────────────────────────────────────────


def claim_as(ask: Ask, lore: Lore, held: list[Held], command: ClaimWork) -> None:
    """A claim: each item is its holder's, under its epoch. What a schedule has started is heard of so."""
    ask.reply, ask.command = Tasks, command

    def check(ledger: Ledger, reply: Tasks) -> None:
        for item in reply.items:
            moments = ledger.history[ask.tenant, item.id]
            own = [one for one in moments if one.epoch == item.epoch and one.status == "leased"]
            must(all(one.worker == command.worker_id for one in own), ask, "was given", item, "; it was", moments)
            run = item.execution_id or ""
            if schedule_of(run):
                met(lore, run)
            held.append(Held(item.id, item.epoch, run, ledger.ends[ask.tenant, run]))
        del held[:-12]

    ask.check = check


def claim_tasks(by: Asker, ask: Ask, lore: Lore) -> None:
    """Some workflow tasks."""
    ask.op = "claim_tasks"
    types = [f"workflow:{name}" for name in TYPES]
    lease = by.random.choice((30, 3_000, 9_000))
    claim_as(ask, lore, lore.tasks, ClaimWork(f"w{ask.number}", ["flows"], by.random.randint(1, 3), lease, types))


def taken(by: Asker, held: list[Held]) -> Held:
    """Something that is held; mostly its holder is done with it then."""
    index = by.random.randrange(len(held))
    return held.pop(index) if by.chance(0.7) else held[index]


def submit(by: Asker, ask: Ask, lore: Lore) -> None:
    """What a workflow asks for, and at times how it ends."""
    if not lore.tasks:
        claim_tasks(by, ask, lore)
        return
    task = taken(by, lore.tasks)
    made = [commanded(by, lore) for _ in range(by.random.randint(0, 4))]
    if by.chance(0.25):
        made.append(ending(by))
    ask.repeatable, ask.reply = True, Submitted
    ask.command = SubmitCommands(task.epoch, task.sequence, made, task.id)

    def check(ledger: Ledger, reply: Submitted) -> None:
        settled(ledger, ask, task.id, task.epoch, "completed")
        must(reply.execution_id == task.execution_id, ask, "of", task, ":", reply)
        must(reply.sequence <= ledger.ends[ask.tenant, task.execution_id], ask, ": the log is shorter than", reply)

    ask.check = check


def activity_of(by: Asker, seq: int) -> ScheduleActivity:
    """What an activity is, as its counter says."""
    limits: dict[str, Any] = ({}, {"start_to_close_ms": 60}, {"schedule_to_start_ms": 80}, {"heartbeat_timeout_ms": 40},
                              {"schedule_to_close_ms": 150})[seq % 5]  # fmt: skip
    said = {"seq": seq, "name": "add", "task_queue": "pay", "input": raw(seq), "max_attempts": 1 + seq % 3}
    return ScheduleActivity(initial_interval_ms=10, **said, **limits)


def child_of(by: Asker, seq: int) -> StartChildWorkflow:
    """A child, as its counter says."""
    return StartChildWorkflow(seq=seq, workflow_type="part", task_queue="flows", parent_close_policy=POLICIES[seq % 3])


def commanded(by: Asker, lore: Lore) -> Any:
    """One thing that a workflow asks for."""
    seq, value = counter(by), by.random.random()
    if value < 0.3:
        return activity_of(by, seq)
    if value < 0.5:
        return ScheduleTimer(seq, (0, 20, 200)[seq % 3])
    if value < 0.65:
        return child_of(by, seq)
    if value < 0.75:
        return SignalExternal(seq, flow(by, lore), "go", raw(seq))
    return by.random.choice(
        (
            CancelActivity(seq), CancelTimer(seq), RecordSideEffect(seq, "dice", raw(None)), WaitForSignal("go"),
            RecordSnapshot(raw({"n": seq})), UpsertSearchAttributes({"a": seq}),
        )
    )  # fmt: skip


def ending(by: Asker) -> Any:
    """How a workflow ends or goes on."""
    return by.random.choice(
        (CompleteWorkflow(raw(1)), FailWorkflow(WorkError("broken")), CancelWorkflow(), ContinueAsNew(raw(2)))
    )


# ── activity workers ───────────────────────────────────────────────────────────────────────────────────────────────


def claim_activities(by: Asker, ask: Ask, lore: Lore) -> None:
    """Some activities."""
    ask.op = "claim_activities"
    lease = by.random.choice((30, 3_000, 9_000))
    claim_as(ask, lore, lore.attempts, ClaimWork(f"a{ask.number}", ["pay"], 3, lease, ["activity:add"]))


def of_attempt(make: Callable[[Asker, Held], Any], outcome: str | None) -> Callable[[Asker, Ask, Lore], None]:
    """What a worker says of its attempt; with `outcome` its item is settled by it."""

    def asked(by: Asker, ask: Ask, lore: Lore) -> None:
        if not lore.attempts:
            claim_activities(by, ask, lore)
            return
        held = taken(by, lore.attempts)
        ask.repeatable, ask.reply = True, Settled if outcome else Renewed
        ask.command = make(by, held)
        if outcome:
            ask.check = lambda ledger, reply: settled(ledger, ask, held.id, held.epoch, reply.outcome)

    return asked


complete = of_attempt(lambda by, held: CompleteActivity(held.epoch, raw(by.number), held.id), "completed")
fail = of_attempt(lambda by, held: FailActivity(held.epoch, WorkError("broken"), by.chance(0.8), held.id), "failed")
heartbeat = of_attempt(lambda by, held: HeartbeatActivity(held.epoch, raw(by.number), held.id), None)

OPS: Ops = {
    "start_run": (start_run, 6),
    "signal": (signal, 5),
    "signal_with_start": (signal_with_start, 2),
    "timer": (timer, 3),
    "activity": (activity, 3),
    "child": (child, 2),
    "cancel": (cancel, 2),
    "pause_run": (pause_run, 4),
    "terminate": (terminate, 2),
    "complete_run": (complete_run, 2),
    "fail_run": (fail_run, 2),
    "continue_run": (continue_run, 2),
    "reset": (reset, 2),
    "claim_tasks": (claim_tasks, 6),
    "submit": (submit, 18),
    "claim_activities": (claim_activities, 4),
    "complete_activity": (complete, 7),
    "fail_activity": (fail, 6),
    "heartbeat": (heartbeat, 6),
    "start": CORE["start"],
    "append": CORE["append"],
    "enqueue": CORE["enqueue"],
    "claim": CORE["claim"],
    "renew": CORE["renew"],
}
"""What a client of a world of workflows may ask for, and how often."""
