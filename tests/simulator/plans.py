"""What the clients of a world of workflows ask of schedules. What must come of it is `tests.simulator.occurrences`.

A schedule is named after its overlap policy: so it is known for ever what an occurrence of it may meet. Those that ask
one thing more of a schedule than there is create one.
"""

from collections.abc import Callable
from typing import Any, get_args

from service.schedules.model import (
    Action,
    Backfilling,
    BackfillSchedule,
    ChangeSchedule,
    CreateSchedule,
    DeleteSchedule,
    Overlap,
    PauseSchedule,
    ResumeSchedule,
    ScheduleChanged,
    ScheduleDeleted,
    Spec,
    Triggered,
    TriggerSchedule,
)
from tests.simulator.asks import Ask, Asker, Lore, Ops, raw
from tests.simulator.flows import met
from tests.simulator.ledger import Ledger, must

POLICIES: tuple[Overlap, ...] = get_args(Overlap)
EVERY = (1_000, 1_500, 2_500)
CATCH_UP = (600, 9_000)
PAST = 6_000
"""How far back a backfill goes, at most."""


def spec_of(by: Asker) -> Spec:
    """Every so often."""
    every, offset, late = by.random.choice(EVERY), by.random.choice((0, 70)), by.random.choice((0, 400))
    return Spec(every_ms=every, offset_ms=offset, jitter_ms=late)


def create(by: Asker, ask: Ask, lore: Lore) -> None:
    """A schedule, or one that is there already."""
    ask.op = "create_schedule"
    name: Overlap = by.random.choice(POLICIES)
    ask.repeatable, ask.reply = True, ScheduleChanged
    ask.command = CreateSchedule(
        name, spec_of(by), Action("order", "flows", raw(ask.number)), overlap=name, paused=by.chance(0.1),
        catch_up_ms=by.random.choice(CATCH_UP),
    )  # fmt: skip
    ask.check = lambda _ledger, _reply: lore.hear(lore.plans, name)


def of_plan(
    make: Callable[[Asker, Any], Any],
    reply: type,
    check: Callable[[Ask, Lore], Callable[[Ledger, Any], None]] | None = None,
) -> Callable[[Asker, Ask, Lore], None]:
    """Something that is asked of a schedule, by its name."""

    def asked(by: Asker, ask: Ask, lore: Lore) -> None:
        if not lore.plans:
            create(by, ask, lore)
            return
        ask.reply, ask.command = reply, make(by, by.one(lore.plans))
        if check is not None:
            ask.check = check(ask, lore)

    return asked


def triggered(ask: Ask, lore: Lore) -> Callable[[Ledger, Triggered], None]:
    """What was started is there."""

    def check(ledger: Ledger, reply: Triggered) -> None:
        began = ledger.ends[ask.tenant, reply.execution_id] > 0
        must(began or reply.status != "running", ask, "started", reply.execution_id, "which is not there")
        if began:
            met(lore, reply.execution_id)

    return check


def backfill(by: Asker, name: Overlap) -> BackfillSchedule:
    """A range of the past, by the schedule's own policy."""
    to = by.now() - by.random.randint(100, PAST)
    return BackfillSchedule(to - by.random.randint(0, PAST), to, name, name)


OPS: Ops = {
    "create_schedule": (create, 4),
    "change_schedule": (of_plan(lambda by, name: ChangeSchedule(spec=spec_of(by), id=name), ScheduleChanged), 1),
    "pause_schedule": (of_plan(lambda _, name: PauseSchedule(id=name), ScheduleChanged), 1),
    "resume_schedule": (of_plan(lambda _, name: ResumeSchedule(id=name), ScheduleChanged), 2),
    "delete_schedule": (of_plan(lambda _, name: DeleteSchedule(name), ScheduleDeleted), 0.7),
    "trigger_schedule": (of_plan(lambda _, name: TriggerSchedule(id=name), Triggered, triggered), 2),
    "backfill_schedule": (of_plan(backfill, Backfilling), 1.5),
}
"""What a client of a world of workflows may ask of schedules, and how often."""
