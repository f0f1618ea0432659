"""Faults put in on purpose: a simulator that finds none of them would prove nothing.

Each takes one fence away, from the double of the store or from the service. `BROKEN` must be found; `HELD` take away
one of two fences, and the other one must hold alone.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple
from unittest import mock

import msgspec

from backends.errors import OutcomeUnknown
from backends.statements import texts
from service import capabilities
from service.children import rules as children
from service.errors import StateError
from service.kernel import idempotency, run
from service.kernel.handover import Along
from service.kernel.json import fingerprint
from service.kernel.lease import Lease
from service.kernel.limits import use
from service.kernel.run import Kernel
from service.kernel.view import View
from service.runs import rules as runs
from service.runs.model import Step
from service.schedules import rules as schedules
from service.timers import rules as timers
from service.work import rules_leases as leases
from service.work import rules_placing as placing
from service.work import rules_settling as settling
from service.work.model import Reclaimed, ReclaimLeases, WorkError, WorkItem
from tests.simulator.asks import OPS
from tests.simulator.backend import ALL_OF_THEM, SimulatedBackend
from tests.simulator.database import Database, Transaction
from tests.simulator.rows import Record
from tests.simulator.sql import compiled
from tests.simulator.world import TENANTS, World

Prepare = Callable[[World], None]
ITEMS = ("update_work_items", "settle_work_items", "lease_work_items")
RUNS = ("update_executions", "advance_executions", "update_states")


def rewritten(world: World, name: str, *cuts: str, lock: bool = True) -> None:
    """A statement without some of its text, or without its locks."""
    said = texts()[name]
    text = said.get("postgres") or said[""]
    for cut in cuts:
        assert cut in text, f"{name} has no {cut!r}"
        text = text.replace(cut, "")
    plans = compiled(name, text)
    world.database.plans[name, ALL_OF_THEM] = (
        plans if lock else tuple(msgspec.structs.replace(plan, lock=0, skip_locked=False) for plan in plans)
    )


def unlocked(*names: str) -> Prepare:
    """Reads that lock nothing."""

    def prepare(world: World) -> None:
        for name in names:
            rewritten(world, name, lock=False)

    return prepare


def unguarded_items(world: World) -> None:
    """Updates of items whatever has become of them."""
    for name in ITEMS:
        cut = " AND work_items.epoch = rows.was_epoch\n   AND work_items.status = rows.was_status"
        rewritten(world, name, cut)


def unguarded_runs(world: World) -> None:
    """Updates of executions and states whatever has become of them."""
    for name in RUNS[:2]:
        rewritten(world, name, " AND executions.sequence = rows.was_sequence")
    rewritten(world, RUNS[2], "\n   AND states.sequence = rows.was_sequence")


ITEM_READS = ("load_work_items", "open_items_of_executions", "open_items_by_dedup_key", "heads_of_shelves")


def neither(world: World) -> None:
    """Items without locks and without guards."""
    unlocked(*ITEM_READS)(world)
    unguarded_items(world)


def without_unique(name: str) -> Prepare:
    """A table without one of its unique indexes."""

    def prepare(world: World) -> None:
        table = world.database.tables["work_items"]
        table.uniques = [unique for unique in table.uniques if unique.name != name]

    return prepare


def nothing(_world: World) -> None:
    """The world as it is."""


# ── faults of the store ────────────────────────────────────────────────────────────────────────────────────────────


def some_commits_lost(settle: Any) -> Any:
    """Now and then a commit is acknowledged and undone."""

    def settled(self: Database, by: Transaction) -> None:
        if by.writes and not by.orphan and self.chance(0.02):
            self.undo(by)
        else:
            settle(self, by)

    return settled


def some_commits_torn(settle: Any) -> Any:
    """Now and then what a commit did to work items is lost."""

    def settled(self: Database, by: Transaction) -> None:
        if self.chance(0.02):
            for record in [record for record in by.writes if record.table.name == "work_items"]:
                del by.writes[record]
                record.next = record.writer = None
        settle(self, by)

    return settled


def dirty(seen: Any) -> Any:
    """What is not committed yet is seen."""

    def look(self: Record, by: Transaction) -> Any:
        return self.next if self.writer is not None else seen(self, by)

    return look


def again_after_unknown(write: Any) -> Any:
    """The seam tries again when it does not know whether it has committed."""

    async def written(self: SimulatedBackend, work: Any) -> Any:
        try:
            return await write(self, work)
        except OutcomeUnknown:
            return await write(self, work)

    return written


# ── faults of the service ──────────────────────────────────────────────────────────────────────────────────────────


def no_fence(_held: Any) -> Any:
    """Whoever names an item may settle it."""
    return lambda item, _epoch: item


def same_epoch(lease: Any) -> Any:
    """A delivery that does not raise the epoch."""

    def leased(view: View, item: WorkItem, command: Any) -> Any:
        return lease(view, msgspec.structs.replace(item, epoch=max(0, item.epoch - 1)), command)

    return leased


def remembered_standings(standings_in: Any) -> Any:
    """What was once read of a caller is believed from then on."""
    known: dict[Any, Any] = {}

    def standings(rows: Any, whos: Any) -> Any:
        found = standings_in(rows, whos)
        return [known.setdefault(who, one) for who, one in zip(whos, found, strict=True)]

    return standings


def kept_refusals(decide: Any) -> Any:
    """A refusal that leaves behind what it had done until then."""

    def decided(self: Kernel, view: View, request: Any) -> Any:
        try:
            return decide(self, view, request)
        except StateError:
            view._set.keep(view)
            raise

    return decided


def served_at_once(decided: Any) -> Any:
    """Who goes along with a batch has the answer before that is committed."""

    def told(self: Along, outcomes: Any) -> None:
        decided(self, outcomes)
        self.serve()

    return told


def uncounted(_use: Any) -> Any:
    """Limits of which each command knows only itself."""

    def used(view: View, name: str, count: int = 1) -> None:
        if view.standing.limit(name) != 0:
            return
        use(view, name, count)

    return used


def stale_reclaim(view: View, _command: ReclaimLeases) -> Reclaimed:
    """A reclaim that judges each item as it was before the first: an item that the one before it cancelled lives on."""
    for item in view.pick(WorkItem):
        if item.status == "leased" and (item.expires_at or 0) <= view.now:
            error = WorkError("lease_expired", f"worker {item.worker_id!r} did not renew its lease")
            settling.failed(view, item, error, True, fingerprint("expired", item.epoch), "work.lease_expired")
    return Reclaimed([], [])


def early_reclaim(view: View, _command: ReclaimLeases) -> Reclaimed:
    """A reclaim that takes back what was chosen, though it was renewed since."""
    for chosen in view.pick(WorkItem):
        item = view.get(WorkItem, chosen.tenant_id, chosen.id) or chosen
        if item.status == "leased":
            error = WorkError("lease_expired", f"worker {item.worker_id!r} did not renew its lease")
            settling.failed(view, item, error, True, fingerprint("expired", item.epoch), "work.lease_expired")
    return Reclaimed([], [])


def reclaiming(decide: Callable[[View, ReclaimLeases], Reclaimed]) -> Callable[[Any], Any]:
    """The rules with another reclaim."""

    def changed(rules: Any) -> Any:
        def changed_rules() -> Any:
            found = rules()
            return found | {ReclaimLeases: msgspec.structs.replace(found[ReclaimLeases], decide=decide)}

        return changed_rules

    return changed


def first_wake_only(wake: Any) -> Any:
    """What happens while a task is held wakes nobody when it is submitted."""

    def woken(view: View, tenant_id: str, execution_id: str, delay_ms: int = 0) -> None:
        if runs.need_run(view, tenant_id, execution_id).submits == 0:
            wake(view, tenant_id, execution_id, delay_ms)

    return woken


def nobody(_function: Any) -> Any:
    """Nothing is found."""
    return lambda *_args: None


def started_anyway(_make_room: Any) -> Any:
    """An occurrence that meets others starts beside them."""
    return lambda *_args: "running"


def passed_over(tried: Any) -> Any:
    """An occurrence that is refused is done with."""

    def once(view: View, schedule: Any, *said: Any) -> Any:
        return msgspec.structs.replace(tried(view, schedule, *said), refusal=None)

    return once


def first_due_only(due_of: Any) -> Any:
    """Of what is due the first alone starts, and the schedule is past all of it."""

    def due(schedule: Any, now: int) -> Any:
        found, missed, next_at = due_of(schedule, now)
        return found[:1], missed, next_at

    return due


def unfollowed(occurrence_of: Any) -> Any:
    """A schedule knows the runs that it has started, and not those that they go on in."""

    def found(view: View, execution: Any) -> Any:
        first = runs.need_run(view, execution.tenant_id, execution.id).first_id if execution.segment else ""
        return occurrence_of(view, execution) if first == execution.id else None

    return found


def unmoved(_follow: Any) -> Any:
    """What waits is left waiting."""
    return lambda _view, schedule: schedule


def always_held(_keep: Any) -> Any:
    """Every process believes that it is the one that sweeps."""

    async def kept(_self: Lease) -> bool:
        return True

    return kept


def unguarded_schedules(world: World) -> None:
    """Updates of schedules whatever has become of them."""
    rewritten(world, "update_schedules", " AND schedules.revision = rows.was_revision")


def uncounted_ends(end_step: Any) -> Any:
    """A step that ends is still counted as open."""

    def ended(view: View, step: Step, status: str, detail: bytes | None = None) -> Step:
        before = runs.need_run(view, step.tenant_id, step.execution_id)
        found: Step = end_step(view, step, status, detail)
        view.put(before)
        return found

    return ended


def told_twice(append: Any) -> Any:
    """A timer that fires says so twice."""

    def said(view: View, execution: Any, kind: str, body: Any = None, **more: Any) -> Any:
        after = append(view, execution, kind, body, **more)
        return append(view, after, kind, body, **more) if kind == "timer.fired" else after

    return said


def dropped(_function: Any) -> Any:
    """Nothing is done."""
    return lambda *_args: None


BUSY = {"processes": 4, "lanes": 2, "clients": 16, "batch_max": 3}
TURNOVER = dict.fromkeys(OPS, 0.3) | {"enqueue": 10.0, "claim": 10.0, "complete": 20.0, "operator_dead_letter": 10.0}
ENQUEUING = BUSY | {"limits": {}, "weights": TURNOVER}
CUT = BUSY | {"cut": 0.03, "lost": 0.05}
HANDING = CUT | {"limits": {}, "weights": TURNOVER}
LATE = BUSY | {"jump": 0.01, "skew_ms": 0}
FLOWS = {"engine": True, "weights": {}, "limits": {}}
PLANS = FLOWS | {"processes": 3, "weights": {"create_schedule": 12.0, "trigger_schedule": 6.0}}
FULL = PLANS | {"limits": {tenant: {"running_executions": 4} for tenant in TENANTS}}


class Mutant(NamedTuple):
    """One fault: what a world is prepared with, and a function of a module or class put in another's place. `shape` is
    the kind of world that it shows in, `first` the seed of one in which it shows soon."""

    prepare: Prepare = nothing
    owner: Any = None
    name: str = ""
    put: Callable[[Any], Any] = dropped
    shape: Mapping[str, Any] = BUSY
    first: int = 1

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """With the fault in place, and every capability loaded before, so that none keeps it."""
        capabilities.rules()
        if self.owner is None:
            yield
            return
        with mock.patch.object(self.owner, self.name, self.put(getattr(self.owner, self.name))):
            yield


BROKEN: dict[str, Mutant] = {
    "items are neither locked nor guarded": Mutant(neither),
    "two leases of a concurrency key are let in": Mutant(without_unique("work_concurrency"), first=4),
    "two open items of a dedup key are let in": Mutant(without_unique("work_dedup"), shape=ENQUEUING),
    "a tenant's turn to count is not waited for": Mutant(unlocked("lock_tenants")),
    "a commit is lost": Mutant(nothing, Database, "settle", some_commits_lost),
    "a commit is torn": Mutant(nothing, Database, "settle", some_commits_torn),
    "what is not committed is seen": Mutant(nothing, Record, "seen", dirty, CUT),
    "an unknown commit is made again": Mutant(nothing, SimulatedBackend, "write", again_after_unknown, CUT),
    "the fence is not looked at": Mutant(nothing, settling, "held", no_fence),
    "the epoch stays": Mutant(nothing, leases, "lease", same_epoch),
    "answers are not kept": Mutant(nothing, idempotency, "remember", dropped),
    "a revoked token is still believed": Mutant(nothing, run, "standings_in", remembered_standings),
    "a refusal leaves something": Mutant(nothing, Kernel, "_decide", kept_refusals),
    "an end leaves items open": Mutant(nothing, settling, "cancel_item", dropped),
    "who goes along is answered before the commit": Mutant(nothing, Along, "decided", served_at_once, HANDING),
    "ready items are not counted": Mutant(nothing, placing, "use", uncounted),
    "the sweep forgets what it has just done": Mutant(nothing, capabilities, "rules", reclaiming(stale_reclaim), LATE),
    "the sweep does not look again": Mutant(nothing, capabilities, "rules", reclaiming(early_reclaim), LATE),
    "a wake is lost": Mutant(nothing, runs, "wake", first_wake_only, FLOWS),
    "an end leaves alarms set": Mutant(nothing, runs, "disarm_all", dropped, FLOWS),
    "a parent is not told of its child's end": Mutant(nothing, children, "step_of", nobody, FLOWS, first=3),
    "a step that ends is counted on": Mutant(nothing, timers, "end_step", uncounted_ends, FLOWS),
    "a timer fires twice": Mutant(nothing, timers, "append", told_twice, FLOWS),
    "an overlap policy is not asked": Mutant(nothing, schedules, "make_room", started_anyway, PLANS),
    "an occurrence that is refused is passed over": Mutant(nothing, schedules, "tried", passed_over, FULL),
    "of what is due the first alone starts": Mutant(nothing, schedules, "due_of", first_due_only, PLANS),
    "the chain of an occurrence is not followed": Mutant(nothing, schedules, "occurrence_of", unfollowed, PLANS),
    "what waits is left waiting": Mutant(nothing, schedules, "follow", unmoved, PLANS),
}
"""Faults that a promise does not survive."""
HELD: dict[str, Mutant] = {
    "items without guards are held by their locks": Mutant(unguarded_items),
    "runs without locks are held by their guards": Mutant(unlocked("load_executions")),
    "runs without guards are held by their locks": Mutant(unguarded_runs),
    "steps and states without locks are held by guards": Mutant(unlocked("load_steps", "load_states"), shape=FLOWS),
    "schedules without locks are held by their guards": Mutant(unlocked("load_schedules"), shape=PLANS),
    "schedules without guards are held by their locks": Mutant(unguarded_schedules, shape=PLANS),
    "sweeps of all processes at once are held by the rows": Mutant(nothing, Lease, "keep", always_held, PLANS),
}
"""Faults that one of two fences makes up for."""
