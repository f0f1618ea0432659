"""What must be true after every commit, and of every answer: the rows are never asked to judge themselves.

`committed` looks at what a commit changed, in the light of everything that was committed before; `deep` looks at all
rows anew and knows nothing of how they came about. Both raise `Violation`.
"""

import re
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from typing import Any

import msgspec

from service.executions.model import ENDED, STATUS
from service.history.fold import fold
from service.history.model import LoggedEvent
from service.kernel.audit import FIRST, AuditEntry, link
from service.kernel.json import fingerprint
from service.work.model import OPEN
from tests.simulator.database import Change, Database, Transaction
from tests.simulator.rows import Key, Row, Table
from tests.tidy.documents import WORK
from tests.walk import engine_rows

MARK = re.compile(rb"~(\w[\w-]*):(\d+)\.(\d+)~")
"""`~tenant:request.part~`: put by a client into what it sends, so that its effect is known wherever it turns up."""
FOLLOWS = {status: frozenset(follows.split(", ")) - {"nothing"} for status, (_, follows) in WORK.items()}
DRIVEN = ("decision", "activity")
"""What the items of workflows drive: no limit refuses what must go on."""
NEW_ITEM = frozenset({"ready", "delayed"})
RUNNING = ("pending", "running", "paused")


class Violation(AssertionError):
    """A promise was broken."""


def must(holds: object, *said: object) -> None:
    """Raise a `Violation` that says so."""
    if not holds:
        raise Violation(" ".join(str(one) for one in said))


def closure(table: dict[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """What may become of each status in one commit, which may hold several steps."""
    reach = {status: set(row) for status, row in table.items()}
    for _ in table:
        for row in reach.values():
            row |= {further for status in list(row) for further in reach[status]}
    return {status: frozenset(row) for status, row in reach.items()}


STATUS_REACH = closure(dict(STATUS.table))
WORK_REACH = closure(FOLLOWS)


class Delivery(msgspec.Struct, frozen=True):
    """One moment of an item: what a commit left."""

    status: str
    epoch: int
    worker: str | None
    expires_at: int | None
    attempt: int
    settle: str | None


class Moved(msgspec.Struct):
    """Body of an event that moves an execution."""

    from_: str = msgspec.field(name="from")
    to: str


class Columns:
    """The columns of a table by name: `at.status(row)`."""

    def __init__(self, table: Table) -> None:
        for name, index in table.at.items():
            setattr(self, name, lambda row, index=index: row[index])

    def __getattr__(self, name: str) -> Callable[[Row], Any]:
        raise AttributeError(name)


class Ledger:
    """Everything that was committed, as the promises see it."""

    def __init__(self, database: Database, limits: dict[str, dict[str, int]]) -> None:
        self.database, self.limits = database, limits
        self.now_max = 0
        """The latest time that any process was told."""
        self.marks: dict[tuple[str, str], tuple[Any, ...]] = {}
        """(mark, kind of event) → (tenant, execution, sequence); (mark, `payload`) → (tenant, item)."""
        self.seen: set[str] = set()
        """Requests of which something was committed."""
        self.refused: set[str] = set()
        """Requests of which nothing may ever be seen."""
        self.history: dict[Key, list[Delivery]] = defaultdict(list)
        self.ends: dict[Key, int] = defaultdict(int)
        """Execution → the last sequence of its log."""
        self.open: Counter[Key] = Counter()
        self.leased: Counter[Key] = Counter()
        self.dedup: Counter[Key] = Counter()
        self.running: Counter[str] = Counter()
        self.ready: Counter[str] = Counter()
        self.tokens: Counter[str] = Counter()
        self.chains: dict[str, tuple[int, str]] = {}
        self._at = {name: Columns(table) for name, table in database.tables.items()}
        self._looks: dict[str, Callable[[Key, Row | None, Row | None], None]] = {
            "events": self._event, "executions": self._execution, "work_items": self._item, "states": self._state,
            "tokens": self._token, "audit": self._audit, "idempotency_keys": self._answer,
        }  # fmt: skip
        self._touched: set[Key] = set()
        self._new: Counter[str] = Counter()
        self._back: Counter[str] = Counter()
        self._backs: deque[tuple[int, str, int]] = deque(maxlen=1_000)
        """When (by the number of commits) how many items of a tenant came back onto their shelves."""
        self.looked: dict[Key, int] = {}
        self.also: list[Callable[[list[Change]], None]] = []
        """Who else judges each commit."""
        database.committed = self.committed

    # ── after every commit ──

    def committed(self, by: Transaction, changes: list[Change]) -> None:
        """Judge one commit."""
        self._touched, self._new, self._back = set(), Counter(), Counter()
        grown = sorted((key for table, key, _, _ in changes if table.name == "events"), key=lambda key: key[2])
        for tenant, execution, sequence in grown:
            last = self.ends[tenant, execution]
            must(sequence == last + 1, "the log of", tenant, "/", execution, "goes from", last, "to", sequence)
            self.ends[tenant, execution] = sequence
            self._touched.add((tenant, execution))
        handed = {record.key: row for record, row in by.between.items() if record.table.name == "work_items"}
        for table, key, old, new in changes:
            look = self._looks.get(table.name)
            if look is None:
                continue
            if table.name == "work_items" and key in handed and self._is_handed_over(handed[key], new):
                look(key, old, handed[key])
                old = handed[key]
            look(key, old, new)
        for key in self._touched:
            self._adds_up(key)
        self._backs += [(self.database.commits, tenant, count) for tenant, count in self._back.items() if count]
        self._within_limits(by.began)
        for judge in self.also:
            judge(changes)

    def _event(self, key: Key, old: Row | None, new: Row | None) -> None:
        at = self._at["events"]
        must(old is None and new is not None, "an event was changed:", key, old, new)
        assert new is not None
        body, kind = at.body(new), at.kind(new)
        self._mark(key, kind, body)
        if kind.startswith("execution.") and kind != "execution.started":
            moved = msgspec.json.decode(body, type=Moved)
            must(moved.to in STATUS.table[moved.from_], key, "moves from", moved.from_, "to", moved.to)

    def _execution(self, key: Key, old: Row | None, new: Row | None) -> None:
        at = self._at["executions"]
        must(new is not None, "an execution is gone:", old)
        assert new is not None
        status = at.status(new)
        if old is not None:
            before = at.status(old)
            must(before not in ENDED, key, "had ended as", before, "and was changed:", new)
            must(status == before or status in STATUS_REACH[before], key, "moved from", before, "to", status)
            must(at.sequence(new) >= at.sequence(old), "the sequence of", key, "fell:", new)
        must((at.completed_at(new) is not None) == (status in ENDED), "an end without its time:", new)
        count = (status in RUNNING) - (old is not None and at.status(old) in RUNNING)
        self.running[key[0]] += count
        self._touched.add(key)

    def _adds_up(self, key: Key) -> None:
        at = self._at["executions"]
        record = self.database.tables["executions"].records.get(key)
        must(record is not None and record.now is not None, "something was written for", key, ", which is not there")
        assert record is not None and record.now is not None
        row = record.now
        must(at.sequence(row) == self.ends[key], key, "is at", at.sequence(row), ", its log ends at", self.ends[key])
        must(at.open_items(row) == self.open[key], key, "counts", at.open_items(row), "open items of", self.open[key])
        must(at.status(row) not in ENDED or not self.open[key], key, "is", at.status(row), "with open items")

    def _is_handed_over(self, between: Row, new: Row | None) -> bool:
        """Whether a commit has brought an item, and leased it to a claim that waited for it: two steps."""
        at = self._at["work_items"]
        return new is not None and at.status(between) in NEW_ITEM and at.status(new) == "leased"

    def _item(self, key: Key, old: Row | None, new: Row | None) -> None:
        at = self._at["work_items"]
        must(new is not None, "an item is gone:", old)
        assert new is not None
        self._count_item(key, old, new)
        status, epoch = at.status(new), at.epoch(new)
        said = at.settle_digest(new)
        self.history[key].append(Delivery(status, epoch, at.worker_id(new), at.expires_at(new), at.attempt(new), said))
        must((at.expires_at(new) is not None) == (status == "leased"), "a lease without an end:", new)
        must((at.settled_at(new) is not None) == (status not in OPEN), "settled or not:", new)
        must(0 <= at.attempt(new) <= at.max_attempts(new), "attempts:", new)
        if old is None:
            must(epoch == (status == "cancelled"), "a new item at epoch", epoch, ":", new)
            self._mark(key, "payload", at.payload(new))
            return
        before, was = at.status(old), at.epoch(old)
        must(before == status or status in WORK_REACH[before], key, "moved from", before, "to", status, ":", new)
        must(before == status or before not in ("completed", "cancelled", "discarded"), key, "was settled:", new)
        must(before != "completed" or old == new, key, "was completed and is changed:", new)
        by_end = ended_with(at.settle_reply(new) or b"")
        revoked = status == "cancelled" != before and (said is None or by_end)  # not: settled so by who was asked to
        taken = (status == "leased" and before != "leased") or revoked
        given = before in NEW_ITEM and status != "leased" and epoch > was  # claimed and withdrawn in one commit
        must(epoch == was + taken or (given and epoch <= was + 1 + taken),
             "the epoch of", key, "went from", was, "to", epoch, ",", before, "→", status)  # fmt: skip
        if before == status == "leased":
            must(at.worker_id(old) == at.worker_id(new), key, "changed hands within epoch", epoch, ":", new)
        if before == "leased" and said == fingerprint("expired", was):
            must(at.expires_at(old) <= self.now_max, key, "was taken back before its lease had ended:", old)

    def _count_item(self, key: Key, old: Row | None, new: Row) -> None:
        """What an item counts for: before, and now."""
        at = self._at["work_items"]
        tenant = key[0]
        for row, count in ((old, -1), (new, 1)):
            status = None if row is None else at.status(row)
            if row is None or status not in OPEN:
                continue
            if (execution := at.execution_id(row)) is not None:
                self.open[tenant, execution] += count
                self._touched.add((tenant, execution))
            self.ready[tenant] += count * (status != "leased")
            if (one := at.dedup_key(row)) is not None:
                self.dedup[tenant, one] += count
                must(self.dedup[tenant, one] <= 1 or count < 0, "two open items have the dedup key", one, ":", row)
            if (one := at.concurrency_key(row)) is not None and status == "leased":
                self.leased[tenant, one] += count
        if old is None or at.status(old) in ("dead", "leased"):
            again = at.status(new) in NEW_ITEM
            goes_on = at.drives(new) in DRIVEN if old is None else at.status(old) == "leased"
            (self._back if goes_on else self._new)[tenant] += again

    def _mark(self, key: Key, kind: str, body: bytes | None) -> None:
        """Whatever marks are in an event of some kind, or in a payload: of this tenant's requests, and here only."""
        for tenant, ask, part in MARK.findall(body or b""):
            name = f"{tenant.decode()}:{ask.decode()}"
            mark = f"{name}.{part.decode()}"
            self.seen.add(name)
            must(tenant.decode() == key[0], mark, "turned up in", kind, "of", key)
            before = self.marks.setdefault((mark, kind), key)
            must(before == key, mark, "is there twice, as", kind, "of", before, "and of", key)
            must(name not in self.refused, mark, "was refused and is there as", kind, "of", key)

    def _state(self, key: Key, old: Row | None, new: Row | None) -> None:
        at = self._at["states"]
        must(new is not None, "a state is gone:", old)
        assert new is not None
        must(old is None or at.sequence(old) < at.sequence(new), "a state was written over a later one:", new)
        must(at.sequence(new) <= self.ends[key], "a state of a later event:", new)

    def _token(self, key: Key, old: Row | None, new: Row | None) -> None:
        at = self._at["tokens"]
        must(new is not None, "a token is gone:", old)
        assert new is not None
        ended = None if old is None else at.revoked_at(old)
        must(ended in (None, at.revoked_at(new)), "a revoked token lives again:", new)
        self.tokens[key[0]] += (at.revoked_at(new) is None) - (old is not None and ended is None)

    def _audit(self, key: Key, old: Row | None, new: Row | None) -> None:
        must(old is None and new is not None, "a line of an audit log was changed:", key)
        entry = AuditEntry(*(new or ()))
        sequence, before = self.chains.get(entry.tenant_id, (0, FIRST))
        must(entry.sequence == sequence + 1, "an audit log goes from", sequence, "to", entry.sequence)
        must(link(before, entry) == entry.hash, "an audit log is broken at", key)
        self.chains[entry.tenant_id] = (entry.sequence, entry.hash)

    def _answer(self, key: Key, old: Row | None, _new: Row | None) -> None:
        must(old is None, "an answer that was kept is changed:", key)

    def _within_limits(self, began: int) -> None:
        """What came back onto its shelf (a retry) is never refused, and may have come since the commit had counted."""
        for key, count in self.leased.items():
            must(count <= 1, "two leases of the concurrency key", key)
        for tenant, limits in self.limits.items():
            for name, counts in (("running_executions", self.running), ("tokens", self.tokens)):
                most = limits.get(name)
                must(most is None or counts[tenant] <= most, tenant, "has", counts[tenant], name, "of", most)
            most = limits.get("ready_work_items")
            if most is not None and self._new[tenant]:
                back = sum(count for at, whose, count in self._backs if whose == tenant and at > began)
                allowed = most + back
                must(self.ready[tenant] <= allowed, tenant, "has", self.ready[tenant], "ready items of", most)

    # ── all rows anew ──

    def deep(self) -> None:
        """Every row, without what is remembered of commits; then that the two agree."""
        tables = self.database.tables
        logs: dict[Key, list[dict[str, Any]]] = defaultdict(list)
        for event in tables["events"].rows():
            logs[event["tenant_id"], event["execution_id"]].append(event)
        items = list(tables["work_items"].rows())
        open_ = Counter((one["tenant_id"], one["execution_id"]) for one in items if one["status"] in OPEN)
        states = {(one["tenant_id"], one["execution_id"]): one for one in tables["states"].rows()}
        snapshots = [(one["tenant_id"], one["execution_id"], one["sequence"]) for one in tables["snapshots"].rows()]
        kept = Counter(one[:2] for one in snapshots)
        executions = {(one["tenant_id"], one["id"]): one for one in tables["executions"].rows()}
        must(set(logs) == set(executions), "logs without executions, or executions without logs")
        for key, row in executions.items():
            log = sorted(logs[key], key=lambda event: int(event["sequence"]))
            must([one["sequence"] for one in log] == list(range(1, row["sequence"] + 1)), "not dense:", key)
            must(len(log) == self.ends[key], key, "had", self.ends[key], "events and has", len(log))
            must(row["open_items"] == open_[key], key, "counts", row["open_items"], "of", open_[key])
            must(
                kept[key] <= row["snapshot_keep"] + 1, kept[key], "snapshots of", key, "are kept"
            )  # one asked for below
            newest = row["snapshot_sequence"]
            must(not newest or (*key, newest) in snapshots, "the newest snapshot is gone:", key, newest)
            if self.looked.get(key) != row["sequence"]:
                self._replays(key, row, log, states.get(key))
                self.looked[key] = row["sequence"]
        must(len(items) == len(self.history), "an item is gone")
        self.engine()

    def engine(self) -> None:
        """What must be true of the durable engine's rows."""
        tenants: dict[str, engine_rows.Rows] = defaultdict(lambda: {name: [] for name in engine_rows.TABLES})
        for name in engine_rows.TABLES:
            for row in self.database.tables[name].rows():
                tenants[row["tenant_id"]][name].append(row)
        for rows in tenants.values():
            engine_rows.check(rows)

    @staticmethod
    def _replays(key: Key, row: dict[str, Any], log: list[dict[str, Any]], state: dict[str, Any] | None) -> None:
        names = LoggedEvent.__struct_fields__
        found = fold(LoggedEvent(*(event[name] for name in names)) for event in log)
        must(found.status == row["status"], "replay of", key, "ends", found.status, ", the row is", row["status"])
        stored = msgspec.json.decode(state["state"]) if state else {}
        must(found.state == stored, "replay of", key, "gives", found.state, ", stored is", stored)


def ended_with(reply: bytes) -> bool:
    """Whether an item's answer is that of a transition which did not settle it but ended its execution, and it too."""
    return b'"changes":' in reply and b'"type":"settle"' not in reply
