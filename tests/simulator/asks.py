"""What clients ask for, and what an answer to it must mean for the rows.

Every request carries its mark into the bytes that it has written, so that its effect can be counted wherever it turns
up. Clients know only what they were told, forget some of it, and now and then ask for what cannot be.
"""

import random
from collections.abc import Callable
from typing import Any

import msgspec

from service.errors import StateError
from service.executions.model import (
    AppendState,
    Changed,
    MergeState,
    ReplaceState,
    SetAttributes,
    SetStatus,
    Started,
    StartExecution,
    Status,
)
from service.history.model import Appended, AppendedEvent, AppendEvents, SnapshotWritten, WriteSnapshot
from service.kernel.principal import Principal
from service.transitions import model as change
from service.transitions.model import Lease, Transition, Transitioned
from service.work.model import (
    ClaimWork,
    CompleteWork,
    DeadLetterWork,
    DiscardDead,
    Enqueue,
    Enqueued,
    EnqueueWork,
    FailWork,
    PauseQueue,
    Queue,
    ReleaseWork,
    Renewed,
    RenewLease,
    RequeueDead,
    Retry,
    Settled,
    WorkError,
)
from tests.simulator.ledger import WORK_REACH, Ledger, must

QUEUES = ("a", "b")
AGAIN = (Retry(initial_delay_ms=0, jitter=False), Retry(initial_delay_ms=400), None)


class Ask:
    """One request, however often it is sent."""

    def __init__(self, number: int, who: Principal, op: str) -> None:
        self.number, self.who, self.op = number, who, op
        self.tenant = who.tenant_id
        self.command: Any = None
        self.reply: Any = None
        self.key: str | None = None
        self.marks: list[tuple[str, str]] = []
        """Marks, and the kinds of event (or `payload`) in which they must be once the request is acknowledged."""
        self.repeatable = False
        """Whether it may be sent again when no answer came."""
        self.sent = 0
        self.expect: str | None = None
        """The refusal that the last sending must meet, if it is not refused otherwise."""
        self.told: bytes | None = None
        self.check: Callable[[Ledger, Any], None] = lambda _ledger, _reply: None

    def mark(self, part: int, *kinds: str) -> str:
        """The text of a mark, which will be found in events of these kinds."""
        self.marks += [(f"{self.tenant}:{self.number}.{part}", kind) for kind in kinds]
        return f"~{self.tenant}:{self.number}.{part}~"

    @property
    def name(self) -> str:
        """What all marks of the request begin with."""
        return f"{self.tenant}:{self.number}"

    def __repr__(self) -> str:
        return f"#{self.number} {shown(self.command)}" + (f" with {self.key}" if self.key else "")


def shown(value: Any) -> str:
    """A command or an answer for people: only what is said in it."""
    if isinstance(value, msgspec.Raw):
        return bytes(value).decode()
    if isinstance(value, list):
        return f"[{', '.join(shown(one) for one in value)}]"
    if isinstance(value, StateError):
        return f"{value.code}: {value.detail}"
    if not isinstance(value, msgspec.Struct):
        return repr(value)
    given = ((name, getattr(value, name)) for name in value.__struct_fields__)
    said = ", ".join(f"{name}={shown(one)}" for name, one in given if one not in (None, "", msgspec.Raw(b""), [], 0))
    return f"{type(value).__name__}({said})"


def raw(value: object) -> msgspec.Raw:
    """A value as JSON that is passed through."""
    return msgspec.Raw(msgspec.json.encode(value))


class Lore:
    """What the clients of one tenant have heard of it."""

    KEPT = 10

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.runs: list[str] = []
        self.items: list[str] = []
        self.dead: list[str] = []
        self.leases: dict[str, int] = {}
        self.flows: list[str] = []
        self.plans: list[str] = []
        self.tasks: list[Any] = []
        self.attempts: list[Any] = []
        self.sequences: dict[str, int] = {}

    def hear(self, list_: list[str], name: str) -> None:
        """Remember a name, and forget the oldest of many."""
        if name not in list_:
            list_.append(name)
        if len(list_) > self.KEPT:
            self.sequences.pop(list_.pop(0), None)

    def lacks(self, op: str) -> str | None:
        """What to ask for instead, so that there is something to ask `op` of."""
        if not self.runs and op in ("append", "status", "state", "snapshot", "transition"):
            return "start"
        if not self.leases and op in ("renew", "complete", "fail", "release", "dead_letter"):
            return "claim"
        if op in ("requeue", "discard", "claim", "operator_dead_letter") and not self.items:
            return "enqueue"
        return None

    def lease(self, item: str, epoch: int) -> None:
        """Remember a lease, and forget the oldest of many."""
        self.leases[item] = epoch
        if len(self.leases) > 2 * self.KEPT:
            del self.leases[next(iter(self.leases))]


class Asker:
    """Makes requests by chance."""

    def __init__(self, chance: random.Random, ops: "Ops", now: Callable[[], int]) -> None:
        self.random, self.ops, self.now = chance, ops, now
        self.number = 0

    def chance(self, probability: float) -> bool:
        """True, that often."""
        return self.random.random() < probability

    def new(self, op: str, who: Principal, lore: Lore) -> Ask:
        """A request of a kind."""
        self.number += 1
        ask = Ask(self.number, who, op)
        self.ops[op][0](self, ask, lore)
        if not ask.repeatable and ask.reply is not None and self.chance(0.6):
            ask.key, ask.repeatable = f"key-{self.number}", True
        return ask

    def one(self, names: Any, otherwise: str = "nobody") -> str:
        """One of some names; now and then one that there is not."""
        known = list(names)
        return otherwise if not known or self.chance(0.02) else str(self.random.choice(known))

    def lease_of(self, lore: Lore) -> tuple[str, int]:
        """A lease that is known, at times with a fence that is not its own."""
        item = self.one(lore.leases)
        epoch = lore.leases.get(item, 1)
        return item, max(1, epoch + self.random.choice((-1, 1))) if self.chance(0.08) else epoch

    def expected(self, lore: Lore, run: str) -> int | None:
        """Where a log is known to end, if that is to be said."""
        return lore.sequences.get(run) if self.chance(0.4) else None

    def enqueued(self, ask: Ask, part: int, kind: type[Enqueue], **more: Any) -> Any:
        """An item to enqueue."""
        if self.chance(0.3):
            more["id"] = f"i{ask.number}-{part}" if self.chance(0.8) else f"i{self.random.randint(1, 4)}"
        if self.chance(0.3):
            more["dedup_key"] = f"d{self.random.randint(1, 8)}"
        if self.chance(0.5):
            more["concurrency_key"] = f"c{self.random.randint(1, 2)}"
        if self.chance(0.15):
            more["delay_ms"] = self.random.randint(1, 600)
        if self.chance(0.1):
            more["required_capabilities"] = ["gpu"]
        return kind(
            queue=self.random.choice(QUEUES), payload=raw(ask.mark(part)), priority=self.random.randint(0, 2),
            max_attempts=self.random.randint(1, 4), retry=self.random.choice(AGAIN), **more,
        )  # fmt: skip


# ── executions ─────────────────────────────────────────────────────────────────────────────────────────────────────


def start(by: Asker, ask: Ask, _lore: Lore) -> None:
    """A run, with an id of the client's or not, with a first item or not."""
    first = None
    if by.chance(0.5):
        first = Enqueue(
            queue=by.random.choice(QUEUES), drives=by.random.choice(("nothing", "execution")), max_attempts=2,
            retry=AGAIN[0], payload=raw(ask.mark(1)),
        )  # fmt: skip
    chosen = f"e{ask.number}" if by.chance(0.6) else None
    ask.repeatable, ask.reply = chosen is not None, Started
    ask.command = StartExecution(
        workflow_id="flow", execution_id=chosen, input=raw(ask.mark(0, "execution.started")), start=first,
        pending=by.chance(0.1), digest="" if chosen is None else f"digest of {ask.name}",
        state=raw({"list": []}) if by.chance(0.3) else msgspec.Raw(b""),
    )  # fmt: skip

    def check(ledger: Ledger, reply: Started) -> None:
        at = ledger.marks[f"{ask.name}.0", "execution.started"]
        must(at == (ask.tenant, reply.execution_id, 1), ask, "was started as", at, ", not as", reply)
        if reply.work_item_id is not None:
            must((ask.tenant, reply.work_item_id) in ledger.history, ask, ": no item", reply.work_item_id)

    ask.check = check


def append(by: Asker, ask: Ask, lore: Lore) -> None:
    """One to three events."""
    run = by.one(lore.runs)
    events = [
        AppendedEvent(f"said.{part}", raw(ask.mark(part, f"said.{part}"))) for part in range(by.random.randint(1, 3))
    ]
    expected = by.expected(lore, run)
    ask.repeatable, ask.reply = expected is not None, Appended
    ask.command = AppendEvents(events, expected, run)

    def check(ledger: Ledger, reply: Appended) -> None:
        for part in range(len(events)):
            at = ledger.marks[f"{ask.name}.{part}", f"said.{part}"]
            must(at == (ask.tenant, run, reply.first_sequence + part), ask, "is at", at, ", answered was", reply)
        must(reply.last_sequence == reply.first_sequence + len(events) - 1, ask, ":", reply)

    ask.check = check


def status(by: Asker, ask: Ask, lore: Lore) -> None:
    """A move, possible or not."""
    to: Status = by.random.choice(
        ("running", "paused", "running", "paused", "running", "completed", "failed", "cancelled")
    )
    run = by.one(lore.runs)
    ask.reply = Changed
    ask.command = SetStatus(to, reason=ask.mark(0), expected_sequence=by.expected(lore, run), execution_id=run)

    def check(ledger: Ledger, reply: Changed) -> None:
        kinds = (f"execution.{to}", "execution.status_changed")
        at = next(
            (ledger.marks[f"{ask.name}.0", kind] for kind in kinds if (f"{ask.name}.0", kind) in ledger.marks), None
        )
        must(at == (ask.tenant, run, reply.sequence), ask, "is at", at, ", answered was", reply)

    ask.check = check


def changed_at(ask: Ask, run: str, kind: str) -> Callable[[Ledger, Changed], None]:
    """A change whose event stands where the answer says."""

    def check(ledger: Ledger, reply: Changed) -> None:
        at = ledger.marks[f"{ask.name}.0", kind]
        must(at == (ask.tenant, run, reply.sequence), ask, "is at", at, ", answered was", reply)

    return check


def state(by: Asker, ask: Ask, lore: Lore) -> None:
    """A state written, merged, or appended to."""
    run = by.one(lore.runs)
    expected = by.expected(lore, run)
    ask.reply = Changed
    kind = by.random.choice(("state.replaced", "state.merged", "state.appended", "attributes.set"))
    said = ask.mark(0, kind)
    if kind == "state.replaced":
        ask.command = ReplaceState(run, msgspec.json.encode({"list": [said]}), expected)
    elif kind == "state.merged":
        ask.command = MergeState(run, msgspec.json.encode({f"f{by.random.randint(1, 3)}": said}), expected)
    elif kind == "state.appended":
        ask.command = AppendState("/list", raw(said), expected, run)
    else:
        ask.command = SetAttributes({f"a{by.random.randint(1, 2)}": said}, {}, expected, run)
    ask.check = changed_at(ask, run, kind)


def snapshot(by: Asker, ask: Ask, lore: Lore) -> None:
    """A snapshot of a log, of all of it or of its beginning."""
    run = by.one(lore.runs)
    ask.repeatable, ask.reply = True, SnapshotWritten
    ask.command = WriteSnapshot(run, None if by.chance(0.6) else by.random.randint(1, 6))


# ── transitions ────────────────────────────────────────────────────────────────────────────────────────────────────


def changes(by: Asker, ask: Ask, leased: bool) -> list[Any]:
    """One to four changes; under a lease mostly a settle at the end."""
    found: list[Any] = []
    for part in range(by.random.randint(1, 3)):
        kind = by.random.choice(("append", "append", "merge", "enqueue", "cancel", "status", "snapshot"))
        if kind == "append":
            found.append(change.Append(f"said.{part}", raw(ask.mark(part, f"said.{part}"))))
        elif kind == "merge":
            found.append(change.Merge(raw({f"f{part}": ask.mark(part, "state.merged")})))
        elif kind == "enqueue":
            found.append(by.enqueued(ask, part, change.EnqueueNext))
        elif kind == "cancel" and by.chance(0.5):
            found.append(change.CancelItems(queue=by.random.choice(QUEUES)))
        elif kind == "status" and by.chance(0.4):
            found.append(change.MoveStatus(by.random.choice(("paused", "running", "completed"))))
        else:
            found.append(change.TakeSnapshot())
    if leased and by.chance(0.8):
        outcome: Any = by.random.choice(("completed", "completed", "failed", "released"))
        result = raw(ask.mark(9, "work.completed")) if outcome == "completed" else msgspec.Raw(b"")
        found.append(change.Settle(outcome, result, WorkError("broken") if outcome == "failed" else None))
    return found


def transition(by: Asker, ask: Ask, lore: Lore) -> None:
    """Several changes at once, with a lease or without."""
    leased = bool(lore.leases) and by.chance(0.6)
    run = "" if leased else by.one(lore.runs)
    lease = Lease(*by.lease_of(lore)) if leased else None
    expected = None if leased else by.expected(lore, run)
    made = changes(by, ask, leased)
    settles = isinstance(made[-1], change.Settle)
    ask.repeatable = expected is not None or settles
    ask.reply = Transitioned
    ask.command = Transition(made, expected, lease, run)

    def check(ledger: Ledger, reply: Transitioned) -> None:
        must(len(reply.changes) == len(made), ask, ":", reply)
        for mark, kind in ask.marks:
            at = ledger.marks[mark, kind]
            must(at[:2] == (ask.tenant, reply.execution_id), ask, "is at", at, ", answered was", reply)
            told = reply.changes[-1 if mark.endswith(".9") else int(mark.rpartition(".")[2])]
            within = (told.first_sequence or 0) <= at[2] <= (told.last_sequence or 0)
            must(within, ask, "is at", at, ", answered was", reply)
        if lease is not None and settles:
            settled(ledger, ask, lease.work_item_id, lease.epoch, reply.changes[-1].outcome or "")

    ask.check = check


# ── work ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def enqueue(by: Asker, ask: Ask, lore: Lore) -> None:
    """An item, of a run or of none."""
    more: dict[str, Any] = {"execution_id": by.one(lore.runs)} if by.chance(0.6) else {}
    if more and by.chance(0.3):
        more["drives"] = "execution"
    ask.command = by.enqueued(ask, 0, EnqueueWork, **more)
    named = ask.command.id is not None and ask.command.id.startswith(f"i{ask.number}-")
    ask.repeatable, ask.reply = named, Enqueued

    def check(ledger: Ledger, reply: Enqueued) -> None:
        key = (ask.tenant, reply.id)
        must(key in ledger.history, ask, ": there is no item", reply)
        if reply.created:
            at = ledger.marks.get((f"{ask.name}.0", "payload"))
            must(at == key, ask, "was enqueued as", at, ", answered was", reply)

    ask.check = check


class ClaimedAgain(msgspec.Struct):
    """What a claim that is repeated tells of an item."""

    id: str
    epoch: int


class ClaimsAgain(msgspec.Struct):
    """The answer to a claim that is repeated."""

    items: list[ClaimedAgain]


def claim(by: Asker, ask: Ask, _lore: Lore) -> None:
    """Some items of one queue or of all."""
    ask.reply = ClaimsAgain
    ask.command = ClaimWork(
        f"w{ask.number}", by.random.choice((["a"], ["b"], ["*"], ["a", "b"])), by.random.randint(1, 4),
        by.random.choice((20, 300, 3_000)), by.random.choice(([], ["gpu"])),
    )  # fmt: skip

    def check(ledger: Ledger, reply: ClaimsAgain) -> None:
        for item in reply.items:
            moments = ledger.history[ask.tenant, item.id]
            held = [one for one in moments if one.epoch == item.epoch and one.status == "leased"]
            own = all(one.worker == ask.command.worker_id for one in held)
            withdrawn = any(one.epoch >= item.epoch for one in moments)  # by another command of the same commit
            must(own and (held or withdrawn), ask, "was given", item, "; the item was", moments)

    ask.check = check


def settled(ledger: Ledger, ask: Ask, item: str, epoch: int, outcome: str) -> None:
    """The item was held under that epoch, and left it with that outcome."""
    moments = ledger.history[ask.tenant, item]
    at = [one for one in moments if one.epoch == epoch]
    must(at, ask, "settled under epoch", epoch, "which nobody held:", moments)
    held = [index for index, one in enumerate(moments) if one.epoch == epoch and one.status == "leased"]
    after = moments[held[-1] + 1 :] if held else at  # or it was claimed and settled in one commit
    wanted = {"retry_scheduled": "delayed", "released": "delayed", "dead_lettered": "dead"}
    status = wanted.get(outcome, outcome)
    may = {status, *WORK_REACH[status]}  # what other commands of the same commit made of it
    must(after and after[0].status in may, ask, "answered", outcome, "the item was", moments)


def of_lease(by: Asker, ask: Ask, lore: Lore) -> tuple[str, int]:
    """A settle: it may be repeated as it is."""
    ask.repeatable, ask.reply = True, Settled
    item, epoch = by.lease_of(lore)

    def check(ledger: Ledger, reply: Settled) -> None:
        settled(ledger, ask, item, epoch, reply.outcome)

    ask.check = check
    return item, epoch


def complete(by: Asker, ask: Ask, lore: Lore) -> None:
    """Done."""
    item, epoch = of_lease(by, ask, lore)
    ask.command = CompleteWork(epoch, raw(ask.mark(0)), item)


def fail(by: Asker, ask: Ask, lore: Lore) -> None:
    """Failed."""
    item, epoch = of_lease(by, ask, lore)
    ask.command = FailWork(epoch, WorkError("broken", ask.mark(0)), by.chance(0.8), item)


def release(by: Asker, ask: Ask, lore: Lore) -> None:
    """Handed back."""
    item, epoch = of_lease(by, ask, lore)
    ask.command = ReleaseWork(epoch, by.random.choice((0, 0, 300)), item)


def dead_letter(by: Asker, ask: Ask, lore: Lore) -> None:
    """Given up by its holder."""
    item, epoch = of_lease(by, ask, lore)
    ask.command = DeadLetterWork(WorkError("hopeless", ask.mark(0)), epoch, item)


def operator_dead_letter(by: Asker, ask: Ask, lore: Lore) -> None:
    """Given up by an operator."""
    ask.reply = Settled
    ask.command = DeadLetterWork(WorkError("unwanted", ask.mark(0)), None, by.one(lore.items))


def renew(by: Asker, ask: Ask, lore: Lore) -> None:
    """A lease kept."""
    item, epoch = by.lease_of(lore)
    ask.repeatable, ask.reply = True, Renewed
    ask.command = RenewLease(epoch, by.random.choice((None, 200, 2_000)), id=item)

    def check(ledger: Ledger, reply: Renewed) -> None:
        moments = ledger.history[ask.tenant, item]
        held = any(one.epoch == epoch and one.status == "leased" for one in moments)
        must(held and reply.epoch == epoch, ask, "was told", reply, "; the item was", moments)

    ask.check = check


def requeue(by: Asker, ask: Ask, lore: Lore) -> None:
    """Another life for a dead letter."""
    item = by.one(lore.dead or lore.items)
    ask.reply = Settled
    ask.command = RequeueDead(delay_ms=by.random.choice((0, 0, 300)), id=item)


def discard(by: Asker, ask: Ask, lore: Lore) -> None:
    """A dead letter put away."""
    item = by.one(lore.dead or lore.items)
    ask.reply = Settled
    ask.command = DiscardDead(item)

    def check(ledger: Ledger, _reply: Settled) -> None:
        must(ledger.history[ask.tenant, item][-1].status == "discarded", ask, ":", ledger.history[ask.tenant, item])

    ask.check = check


def pause(by: Asker, ask: Ask, _lore: Lore) -> None:
    """A queue stopped, or more often let go on."""
    ask.reply = Queue
    ask.command = PauseQueue(None, by.chance(0.25), by.random.choice(QUEUES))


Ops = dict[str, tuple[Callable[[Asker, Ask, Lore], None], float]]
OPS: Ops = {
    "start": (start, 5),
    "append": (append, 8),
    "status": (status, 3),
    "state": (state, 6),
    "snapshot": (snapshot, 2),
    "transition": (transition, 12),
    "enqueue": (enqueue, 12),
    "claim": (claim, 14),
    "renew": (renew, 5),
    "complete": (complete, 7),
    "fail": (fail, 6),
    "release": (release, 3),
    "dead_letter": (dead_letter, 2),
    "operator_dead_letter": (operator_dead_letter, 2),
    "requeue": (requeue, 4),
    "discard": (discard, 1),
    "pause": (pause, 2),
}
"""What a client may ask for, and how often."""
