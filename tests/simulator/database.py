"""A double of Postgres in memory: transactions of many processes, one statement at a time, in an order drawn by chance.

What it promises is what READ COMMITTED does: each statement sees what was committed when it began, and what its own
transaction wrote; a row that another transaction holds is waited for and then judged again as it has become; locks are
kept to the end of the transaction; whoever waits in a circle loses one of its members; a unique value that depends on
a transaction under way is waited for. What a transaction wrote appears at once with its commit, or never.

A statement is a generator: it yields the transactions that it must wait for, and goes on when it is asked again.
"""

import random
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any

from backends.errors import Conflict, Full, OutcomeUnknown, StoreError, Unavailable
from tests.simulator.rows import KEY_SHARE, Index, Key, Record, Row, Table
from tests.simulator.sql import LOOKUPS, Plan, plans
from tests.tidy import house

Change = tuple[Table, Key, Row | None, Row | None]
"""A table, a key, the row before and the row after a commit."""
Waiting = Generator[set["Transaction"], None, Any]
PAUSES = 0.02
"""How often a statement rests between two rows that it locks, so that others come between."""

LATE = 0.8
"""How often the server has still not noticed that nobody is at the other end of a connection."""


def in_short(change: Change) -> str:
    """A change for people: what it is of, and what became of its status."""
    table, key, old, new = change
    at = table.at.get("status")
    steps = "" if at is None else " → ".join(str(row[at]) for row in (old, new) if row is not None)
    return f"{table.name} {'/'.join(str(part) for part in key)} {steps}".rstrip()


class Race(StoreError):
    """40001 or 40P01: undone by the store; the same transaction may be tried again."""


class Rates:
    """How often (per statement) what goes wrong: a connection is cut, the disk is full."""

    cut = 0.0
    full = 0.0


class Transaction:
    """A transaction under way, and the statement that it is at."""

    def __init__(self, database: "Database", number: int, owner: str, tell: Callable[[Any, Any], None]) -> None:
        self.database, self.number, self.owner = database, number, owner
        self.began = database.commits
        self.tell = tell
        self.op: Waiting | None = None
        self.said = ""
        self.waits: set[Transaction] = set()
        self.writes: dict[Record, None] = {}
        self.written: set[Table] = set()
        self.between: dict[Record, Row] = {}
        """What a row was in between that was written twice."""
        self.held: dict[Record, None] = {}
        self.failed = self.over = self.orphan = self.committing = False

    def __repr__(self) -> str:
        return f"T{self.number}"

    def look(self, number: int, value: Key) -> Iterable[Row]:
        """The rows with a value in some columns, as a statement that begins now sees them. NULL equals nothing."""
        if None in value:
            return ()
        table, index = self.database.lookup(number)
        if index is None:
            record = table.records.get(value)
            row = None if record is None else record.seen(self)
            return () if row is None else (row,)
        rows = index.rows.get(value, {})
        if table not in self.written:
            return rows.values()
        own = {record.key: record.next for record in self.writes if record.table is table}
        mine = [row for row in own.values() if row is not None and index.of(row) == value]
        return [*(row for key, row in rows.items() if key not in own), *mine]

    # ── locks and writes ──

    def lock(self, record: Record, mode: int) -> Waiting:
        """Wait until a row bears the lock, and take it."""
        while others := record.in_the_way(self, mode):
            yield others
        record.locks[self] = max(mode, record.locks.get(self, 0))
        self.held[record] = None

    def write(self, record: Record, row: Row | None) -> Waiting:
        """Make something else of a row that is locked, or is new."""
        table = record.table
        if row is not None and (wrong := table.wrong(row)):
            raise Conflict(wrong)
        before = record.seen(self)
        if record in self.writes and before is not None:
            self.between[record] = before
        record.writer, record.next = self, row
        self.writes[record] = None
        self.written.add(table)
        for unique in table.uniques:
            unique.enter(record, before)
            while (taken := unique.taken(record, self)) is not False:
                if taken is True:
                    raise Conflict(f"{unique.name}: {unique.of(row)}")
                yield {taken}
        for parent, key in table.parents:
            if row is not None and (before is None or key(before) != key(row)):
                yield from self._point_at(parent, key(row))

    def _point_at(self, parent: str, key: Key) -> Waiting:
        """A foreign key: the row must be there, and stay."""
        record = self.database.tables[parent].records.get(key)
        if record is not None:
            yield from self.lock(record, KEY_SHARE)
        if record is None or record.seen(self) is None:
            raise Conflict(f"no {parent} {key}")

    def insert(self, table: Table, row: Row, plan: Plan, params: Mapping[str, Any]) -> Waiting:
        """A new row; the number of rows touched. Its key may be another's, or be about to be."""
        key = table.key_of(row)
        while True:
            record = table.records.get(key)
            if record is None:
                record = table.records[key] = Record(table, key)
            if record.writer is not None and record.writer is not self:
                yield {record.writer}
                continue
            if record.seen(self) is None:
                yield from self.write(record, row)
                return 1
            if plan.on_conflict is None:
                raise Conflict(f"{table.name}: {key} is taken")
            return (yield from self._instead(record, row, plan, params))

    def _instead(self, record: Record, row: Row, plan: Plan, params: Mapping[str, Any]) -> Waiting:
        """ON CONFLICT: nothing, or an update of the row that is there."""
        conflict = plan.on_conflict
        if conflict is None or conflict.true is None or conflict.give is None:
            return 0
        yield from self.lock(record, 2)
        env = (row, record.seen(self))
        if env[1] is None or not conflict.true(env, params, self.look):
            return 0
        yield from self.write(record, conflict.give(env, params, self.look))
        return 1

    # ── statements ──

    def select(self, plan: Plan, rows: Sequence[Row], params: Mapping[str, Any]) -> Waiting:
        """The rows of a query, locked if it says so; or those of one for every row of the batch."""
        if plan.each is None:
            return (yield from self.taken(plan, plan.find(rows, params, self.look), params))
        given: list[Row] = []
        for row in rows:
            given += yield from self.taken(plan, plan.find([row], params, self.look), params, row[plan.each])
        return given

    def taken(
        self, plan: Plan, found: list[tuple[Any, ...]], params: Mapping[str, Any], most: int | None = None
    ) -> Waiting:
        """What a query found, in order, up to its limit or to `most`, as it has become once it is locked."""
        if plan.order is not None:
            found.sort(key=plan.order)
        if plan.limit is not None:
            most = params[plan.limit] if isinstance(plan.limit, str) else plan.limit
        if not plan.lock:
            return [plan.give(env, params, self.look) for env in found[:most]]
        given: list[Row] = []
        for env in found:
            if most is not None and len(given) >= most:
                break
            if (now := (yield from self.hold(plan, env, params))) is not None:
                given.append(plan.give(now, params, self.look))
        return given

    def hold(self, plan: Plan, env: tuple[Any, ...], params: Mapping[str, Any]) -> Waiting:
        """Lock the row that a statement found; the environment with the row as it is now, or None if it is not meant
        any more."""
        table = self.database.tables[plan.table or ""]
        before = env[plan.target]
        record = table.records.get(table.key_of(before))
        if record is None:
            return None
        if self.database.chance(PAUSES):
            yield set()
        if plan.skip_locked and record.in_the_way(self, plan.lock):
            return None
        yield from self.lock(record, plan.lock)
        row = record.seen(self)
        if row is before:
            return env
        now = (*env[: plan.target], row, *env[plan.target + 1 :])
        return now if row is not None and plan.true(now, params, self.look) else None

    def change(self, plan: Plan, found: list[tuple[Any, ...]], params: Mapping[str, Any]) -> Waiting:
        """Insert, update or delete what was found; the number of rows touched."""
        table, count = self.database.tables[plan.table or ""], 0
        for env in found:
            if plan.kind == "insert":
                row = self.database.completed(table, plan.give(env, params, self.look), self.number)
                count += yield from self.insert(table, row, plan, params)
                continue
            now = yield from self.hold(plan, env, params)
            if now is not None:
                record = table.records[table.key_of(now[plan.target])]
                new = plan.give(now, params, self.look) if plan.kind == "update" else None
                yield from self.write(record, new)
                count += 1
        return count

    def statement(self, made: Sequence[Plan], rows: Sequence[Row], params: Mapping[str, Any]) -> Waiting:
        """One statement of the service's."""
        if self.failed:
            raise StoreError("25P02: the transaction has failed")
        if made[0].kind != "select":
            return (yield from self.change(made[0], made[0].find(rows, params, self.look), params))
        found: list[Row] = []
        for plan in made:
            found += yield from self.select(plan, rows, {**params, "rows": rows})
        return found

    def gathered(self, reads: Sequence[tuple[Sequence[Plan], Sequence[Row]]]) -> Waiting:
        """Several reads as one statement: over one snapshot, one after another."""
        if self.failed:
            raise StoreError("25P02: the transaction has failed")
        found = [[(plan, plan.find(rows, {"rows": rows}, self.look)) for plan in made] for made, rows in reads]
        out: list[list[Row]] = []
        for (_, rows), parts in zip(reads, found, strict=True):
            out.append([])
            for plan, envs in parts:
                out[-1] += yield from self.taken(plan, envs, {"rows": rows})
        return out

    def together(self, writes: Sequence[tuple[Plan, Sequence[Row]]]) -> Waiting:
        """Several writes of different tables as one statement: over one snapshot, one after another."""
        if self.failed:
            raise StoreError("25P02: the transaction has failed")
        found = [plan.find(rows, {}, self.look) for plan, rows in writes]
        counts: list[int] = []
        for (plan, _), envs in zip(writes, found, strict=True):
            counts.append((yield from self.change(plan, envs, {})))
        return counts


class Database:
    """All tables, the transactions under way, and whose turn it is."""

    def __init__(self, chance: random.Random) -> None:
        self.random = chance
        self.tables = {name: Table(name) for name in house.tables()}
        self.plans: dict[tuple[str, str], tuple[Plan, ...]] = {}
        self.running: list[Transaction] = []
        self.waiting: list[Transaction] = []
        self.rates = Rates()
        self.down = False
        self.number = 0
        self.deadlocks = self.commits = self.undone = 0
        self.committed: Callable[[Transaction, list[Change]], None] = lambda _by, _changes: None
        self.say: Callable[[str], None] | None = None
        self._lookups: dict[int, tuple[Table, Index | None]] = {}

    def chance(self, probability: float) -> bool:
        """True, that often."""
        return self.random.random() < probability

    def lookup(self, number: int) -> tuple[Table, Index | None]:
        """The table of a look-up and its index; None where its columns are the key."""
        found = self._lookups.get(number)
        if found is None:
            name, columns = LOOKUPS[number]
            table = self.tables[name]
            index = None if columns == table.key else Index(table, columns)
            if index is not None:
                table.indexes.append(index)
            found = self._lookups[number] = (table, index)
        return found

    def plan(self, name: str, where: str) -> tuple[Plan, ...]:
        """The plans of a statement; a test may have put others in their place."""
        found = self.plans.get((name, where))
        if found is None:
            found = self.plans[name, where] = plans(name, where)
        return found

    def completed(self, table: Table, row: Row, by: int) -> Row:
        """A new row with what the schema fills in."""
        if table.name != "events":
            return row
        table.serial += 1
        filled = {table.at["position"]: table.serial, table.at["commit_id"]: by}
        return tuple(filled.get(index, value) for index, value in enumerate(row))

    # ── transactions ──

    def begin(self, owner: str, tell: Callable[[Any, Any], None]) -> Transaction:
        """A new transaction. `tell(result, error)` is called when a statement is done."""
        if self.down:
            raise Unavailable("the database is down")
        self.number += 1
        return Transaction(self, self.number, owner, tell)

    def ask(self, by: Transaction, op: Waiting, said: str) -> None:
        """A statement arrives."""
        by.op, by.said = op, said
        self.running.append(by)

    def step(self) -> None:
        """Let one transaction go on, whichever."""
        by = self.running.pop(self.random.randrange(len(self.running)))
        if by.orphan and self.running and self.chance(LATE):
            self.running.append(by)
        elif by.orphan:
            self._wind_up(by)
        elif self.chance(self.rates.cut):
            self._cut(by)
        elif self.chance(self.rates.full) and by.writes:
            self.fail(by, Full("no room"))
        else:
            self._go(by)

    def _go(self, by: Transaction) -> None:
        assert by.op is not None
        try:
            waits = next(by.op)
        except StopIteration as done:
            self._note(by, done.value)
            by.op = None
            self._tell(by, done.value, None)
        except StoreError as error:
            self.fail(by, error)
        else:
            self._park(by, waits)

    def _park(self, by: Transaction, waits: set[Transaction]) -> None:
        by.waits = {other for other in waits if not other.over}
        if not by.waits:
            self.running.append(by)
            return
        if self.say is not None:
            self.say(f"{by} of {by.owner} waits for {sorted(other.number for other in by.waits)}: {by.said}")
        self.waiting.append(by)
        if circle := self._circle(by):
            victim = self.random.choice(sorted(circle, key=lambda one: one.number))
            self.deadlocks += 1
            self.waiting.remove(victim)
            self.fail(victim, Race("40P01"))

    def _circle(self, start: Transaction) -> list[Transaction]:
        """Whoever waits in a circle with `start`."""
        reached: dict[Transaction, set[Transaction]] = {}
        todo = [start]
        while todo:
            one = todo.pop()
            if one not in reached:
                reached[one] = one.waits
                todo += one.waits
        behind = {start} if any(start in waits for waits in reached.values()) else set()
        while more := {one for one, waits in reached.items() if waits & behind} - behind:
            behind |= more
        return list(behind)

    def _tell(self, by: Transaction, result: Any, error: Exception | None) -> None:
        if not by.orphan:
            by.tell(result, error)

    def fail(self, by: Transaction, error: Exception) -> None:
        """The store refuses a statement: all of the transaction is undone at once."""
        if self.say is not None:
            self.say(f"{by} of {by.owner} fails, {error!r}: {by.said}")
        by.failed, by.op = True, None
        self.undo(by)
        self._tell(by, None, error)

    def commit(self, by: Transaction) -> Waiting:
        """Everything at once."""
        yield from ()
        if by.failed:
            raise Conflict("a statement had failed")
        self.settle(by)

    def rollback(self, by: Transaction) -> Waiting:
        """Nothing at all."""
        yield from ()
        self.undo(by)

    def settle(self, by: Transaction) -> None:
        """What the transaction wrote is what there is."""
        changes: list[Change] = []
        for record in by.writes:
            old, new = record.now, record.next
            if old is not new:
                changes.append((record.table, record.key, old, new))
            for index in record.table.indexes:
                index.move(record.key, old, new)
            record.now, record.next, record.writer = new, None, None
            for unique in record.table.uniques:
                unique.leave(record, old, new)
        self.commits += 1
        self._end(by)
        if self.say is not None and changes:
            self.say(f"{by} of {by.owner} commits {', '.join(in_short(change) for change in changes)}")
        if changes:
            self.committed(by, changes)

    def undo(self, by: Transaction) -> None:
        """What the transaction wrote was never there."""
        if by.over:
            return
        for record in by.writes:
            new = record.next
            record.next = record.writer = None
            for unique in record.table.uniques:
                unique.leave(record, new)
        self.undone += bool(by.writes)
        self._end(by)

    def _end(self, by: Transaction) -> None:
        by.over = True
        for record in (*by.held, *by.writes):
            record.locks.pop(by, None)
            records, gone = record.table.records, record.now is None and record.writer is None and not record.locks
            if gone and records.get(record.key) is record:  # else another row has come in its place
                del records[record.key]
        freed = [other for other in self.waiting if by in other.waits]
        for other in freed:
            other.waits = set()
            self.waiting.remove(other)
        self.running += freed

    # ── faults ──

    def _cut(self, by: Transaction) -> None:
        """The connection breaks: before the statement came, or before its answer did. The server finds out later."""
        if self.say is not None:
            self.say(f"{by} of {by.owner} is cut off at: {by.said}")
        error = OutcomeUnknown("cut off") if by.committing else Unavailable("cut off")
        self.running.append(by)
        self._tell(by, None, error)
        by.orphan = True

    def _wind_up(self, by: Transaction) -> None:
        """The server does what it was asked by somebody who is gone, or never heard of it; then it undoes the rest."""
        if self.say is not None:
            self.say(f"{by}, left by {by.owner}, is wound up: {by.said}")
        if by.op is not None and not by.failed and self.chance(0.5):
            self._go(by)
            if by in self.running or by in self.waiting:
                return
        self.undo(by)

    def abandon(self, owner: str) -> None:
        """A process is gone: its transactions are nobody's."""
        under_way = (*self.running, *self.waiting)
        for by in under_way:
            if by.owner == owner:
                by.orphan = True

    def restart(self) -> None:
        """The server crashes and comes back: what was under way is undone; a commit may have made it before."""
        if self.say is not None:
            self.say("the database restarts")
        under_way = sorted((*self.running, *self.waiting), key=lambda one: one.number)
        self.running, self.waiting = [], []
        for by in under_way:
            if by.committing and not by.failed and self.chance(0.5):
                self.settle(by)
            self.undo(by)
            self._tell(by, None, OutcomeUnknown("restarted") if by.committing else Unavailable("restarted"))
            by.orphan = True
        self.running, self.waiting = [one for one in self.running if not one.over], []

    def _note(self, by: Transaction, result: Any) -> None:
        if self.say is not None:
            many = f"{len(result)} rows" if isinstance(result, list) else "" if result is None else f"{result} rows"
            self.say(f"{by} of {by.owner} {by.said} → {many or 'done'}")
