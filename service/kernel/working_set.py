"""The rows of one batch: loaded once per table, decided over, written once per table.

Load order is the order of `Table.rank`, each table's rows ordered by key, so that batches never wait crosswise. Every
update carries the values it was decided on; if the store touched fewer rows than were decided, the batch is undone.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

from msgspec.structs import astuple, replace

from backends.errors import Conflict
from backends.protocol import Read, Row, Tx, Write
from service.kernel.tables import Group, Key, Table, Wanted, Writer
from service.kernel.tallies import Place, place_of, tally_changes
from service.kernel.view import Freed, Missing, NewEvent, RowKey, Spared, View

Listener = Callable[[View, Any], None]
Asked = tuple[Table, Group | None, list[Key]]
"""A table, the group of its rows that is meant (None: rows by their keys), and the keys."""
ABSENT = object()
LASTING_MAX = 100_000
HEIRS_MAX = 8
"""How many lines are told that what they all wait for is free: one of them gets it, each other one looks once."""


class Schema:
    """All tables of all capabilities, indexed for the working set; built once at start-up."""

    def __init__(
        self,
        tables: Iterable[Table],
        listeners: Mapping[type, Sequence[Listener]],
        columns: Callable[[str], tuple[str, ...]],
    ) -> None:
        self.tables: dict[type, Table] = {}
        self.order: list[Table] = sorted(tables, key=lambda table: (table.rank, table.load))
        self.groups: dict[str, tuple[Table, Group]] = {}
        self.paths: dict[str, tuple[Table, Callable[[Key], Key]]] = {}
        self.listeners = listeners
        self._lasting: dict[RowKey, tuple[Any, int]] = {}
        self.key_of: dict[type, Callable[[Any], Key]] = {}
        self._located: dict[type, tuple[type, Callable[[Any], Key]]] = {}
        self._places = {table.row: place for place, table in enumerate(self.order)}
        for table in self.order:
            self.tables[table.row] = table
            self.key_of[table.row] = table.keyed()
            self._located[table.row] = (table.row, self.key_of[table.row])
            self.groups |= {group.name: (table, group) for group in table.groups}
            self.paths |= {name: (table, path) for name, path in table.paths.items()}
        own = [(table.insert, table.update, table.delete, *table.narrow) for table in self.order]
        written = [name for names in own for name in names if name is not None]
        self.writers = {name: Writer(columns(name)) for name in written}
        self.narrow = {
            table.row: [(name, attrgetter(*fields)) for name, fields in table.narrow.items()] for table in self.order
        }
        self.blanks = {table.row: Blank(table.blank) for table in self.order if table.blank}
        self.tallied = [table.row for table in self.order if table.tallied]
        self.metered = [(table.row, table.metered) for table in self.order if table.metered is not None]

    def in_order(self, rows: Iterable[type]) -> list[type]:
        """Row types in the order of their tables."""
        return sorted(rows, key=self._places.__getitem__)

    def remember(self, at: RowKey, row: Any, until: int) -> None:
        """Keep a row that is only ever added, so that the next batches need not read it."""
        if len(self._lasting) >= LASTING_MAX:
            self._lasting.clear()
        self._lasting[at] = (row, until)

    def remembered(self, at: RowKey, now: int) -> Any:
        """A row that was read not long ago, or None."""
        row, until = self._lasting.get(at, (None, 0))
        return row if now < until else None

    def locate(self, row: Any) -> RowKey:
        """Where a row belongs: its table's row type (its own class, or the one it extends) and its key."""
        found = self._located.get(type(row))
        if found is None:
            found = next(self._located[base] for base in type(row).__mro__ if base in self.tables)
            self._located[type(row)] = found
        return found[0], found[1](row)


class WorkingSet:
    """One batch's rows. `None` is remembered too: that a row does not exist was asked and answered."""

    def __init__(self, schema: Schema, now: int) -> None:
        self.schema, self._now = schema, now
        self.groups, self.listeners, self.locate = schema.groups, schema.listeners, schema.locate
        self._rows: dict[RowKey, Any] = {}
        self._loaded: dict[RowKey, Any] = {}
        self._members: dict[tuple[str, Key], list[RowKey]] = {}
        self._written: dict[str, dict[Key | None, dict[RowKey, None]]] = {}
        self._changed: dict[type, dict[RowKey, None]] = {}
        self._new: dict[type, dict[RowKey, Any]] = {}
        self._removed: dict[type, dict[RowKey, None]] = {}
        self.events: list[NewEvent] = []
        self.wakes: list[str] = []
        self.spared: list[Spared] = []
        self.freed: list[Freed] = []
        self.heirs: dict[Key, list[str]] = {}

    def at(self, at: RowKey) -> Any:
        """The row at a key; raises `Missing` when it was never asked for."""
        row = self._rows.get(at, ABSENT)
        if row is ABSENT and not self._recalls(at):
            raise Missing(at)
        return self._rows[at] if row is ABSENT else row

    def knows(self, wanted: Wanted) -> bool:
        """Whether a row was asked for, written or is remembered, or a group loaded."""
        return wanted in self._rows or wanted in self._members or self._recalls(wanted)

    def lacks(self, wanted: Wanted) -> bool:
        """Whether the store was asked for a row that was not there."""
        return self._rows.get(wanted, ABSENT) is None and wanted not in self._loaded

    def _recalls(self, at: RowKey) -> bool:
        """Take a row that an earlier batch has read, where its table lets it: then nobody need come back for it."""
        row = self.schema.remembered(at, self._now)
        if row is not None:
            self._rows[at] = row
        return row is not None

    def group(self, name: str, key: Key) -> list[RowKey]:
        """The keys of a group's rows, and of those that were in it when they were written earlier in this batch."""
        members = self._members.get((name, key))
        if members is None:
            raise Missing((name, key))
        return [*members, *self._written_of(name).get(key, ())]

    def _written_of(self, name: str) -> dict[Key | None, dict[RowKey, None]]:
        """What was written in this batch, by the group it is in; `keep` goes on with it once somebody has asked."""
        written = self._written.get(name)
        if written is None:
            table, group = self.groups[name]
            written = self._written[name] = {}
            for at in chain(self._new.get(table.row, ()), self._changed.get(table.row, ())):
                written.setdefault(group.of(self._rows[at]), {})[at] = None
        return written

    async def load(self, tx: Tx, wanted: Iterable[Wanted], *beside: Read) -> list[list[Row]]:
        """Load what is wanted and not yet here, one statement a table (and one a group), in order; neighbours that are
        `guarded` in one go. With the first of them goes what is read `beside`, the rows of each of which are
        returned."""
        aside: list[list[Row]] = []
        for stage in [*self._stages(*self._sorted_out(wanted))] or ([[]] if beside else []):
            reads = [(group.load if group else table.load, keys) for table, group, keys in stage]
            found = await tx.load([*beside, *reads])
            aside += found[: len(beside)]
            for (table, group, keys), rows in zip(stage, found[len(beside) :], strict=True):
                taken = self.take(table, rows)
                if group is not None:
                    self._join(group, keys, taken)
            beside = ()
        return aside

    def _stages(
        self, points: Mapping[type, Iterable[Key]], groups: Mapping[str, Iterable[Key]]
    ) -> Iterator[list[Asked]]:
        """What to ask of the store, stage by stage: each may count on the locks of those before. A table that is
        `current` goes with what guards it, unless there are groups: to these rows may come while a lock is waited for,
        and some of them are locked."""
        lead: list[Asked] = []
        guarded: list[Asked] = []
        for row in self.schema.in_order({*points, *(self.groups[name][0].row for name in groups)}):
            table = self.schema.tables[row]
            asked: list[Asked] = [(table, None, [*points[row]])] if row in points else []
            asked += [(table, group, [*groups[group.name]]) for group in table.groups if group.name in groups]
            if not table.guarded:
                yield from filter(None, (lead, guarded))
                *alone, lead = ([one] for one in asked)
                yield from alone
                guarded = []
            elif lead and table.current and not groups:
                lead += asked
            else:
                guarded += asked
        yield from filter(None, (lead, guarded))

    def _sorted_out(self, wanted: Iterable[Wanted]) -> tuple[dict[type, dict[Key, None]], dict[str, dict[Key, None]]]:
        points: dict[type, dict[Key, None]] = {}
        groups: dict[str, dict[Key, None]] = {}
        for what, key in wanted:
            if isinstance(what, type):
                if (what, key) not in self._rows:
                    self._rows[what, key] = self.schema.remembered((what, key), self._now)
                    if self._rows[what, key] is not None:
                        continue
                    table = self.schema.tables[what]
                    if table.wide or table.timed:
                        key = key + (None,) * table.wide + (self._now,) * table.timed
                    points.setdefault(what, {})[key] = None
            elif what in self.groups:
                if (what, key) not in self._members:
                    groups.setdefault(what, {})[key] = None
            else:
                table, path = self.schema.paths[what]
                points.setdefault(table.row, {})[path(key)] = None
        return points, groups

    def _join(self, group: Group, keys: Iterable[Key], rows: Iterable[RowKey]) -> None:
        """Remember which rows are of a group: of all those that it was asked for."""
        for key in keys:
            self._members[group.name, key] = []
        for at in rows:
            key_of_group = group.of(self._loaded[at])
            if key_of_group is not None and (group.name, key_of_group) in self._members:
                self._members[group.name, key_of_group].append(at)

    def take(self, table: Table, rows: Iterable[Sequence[Any]], *, whole: bool = False) -> list[RowKey]:
        """Accept rows from the store; one that is here already stays as the batch has it. `whole` rows, which come
        before anything is decided, bring what a load leaves out."""
        keys, make, loaded = [], table.row, self._loaded
        key_of = self.schema.key_of[make]
        for values in rows:
            row = make(*values)
            at = (make, key_of(row))
            if whole or at not in loaded:
                loaded[at] = self._rows[at] = row
                if table.lasting_ms:
                    self.schema.remember(at, row, self._now + table.lasting_ms)
            keys.append(at)
        return keys

    def keep(self, view: View) -> None:
        """Accept a decision: its overlay becomes what the next decision sees. A row that an earlier one added is still
        a new one: it is inserted as it is in the end."""
        rows = self._rows
        for name, written in self._written.items():
            table, group = self.groups[name]
            for at, row in view.put_.items():
                if at[0] is table.row:
                    written.setdefault(group.of(row), {})[at] = None
        for at, row in view.put_.items():
            rows[at] = row
            if at in view.added or at in self._new.get(at[0], ()):
                self._new.setdefault(at[0], {})[at] = self._loaded[at] = row
            else:
                self._changed.setdefault(at[0], {})[at] = None
        for at in view.removed:
            rows[at] = None
            self._changed.get(at[0], {}).pop(at, None)
            if self._new.get(at[0], {}).pop(at, ABSENT) is ABSENT:
                self._removed.setdefault(at[0], {})[at] = None
        self.events += view.events
        self.wakes += view.wakes
        self.spared += view.spared
        self.freed += view.freed

    async def flush(self, tx: Tx) -> None:
        """Write everything, each table once; raise `Conflict` if a guard held a row back."""
        await self._save(tx, self._writes())
        await self._save(tx, self._rest())

    async def find_heirs(self, tx: Tx) -> None:
        """Find, over what is written now, whom to wake for what was given up: of each at most `HEIRS_MAX` channels, the
        most urgent first, and the one where they wait for it in any case."""
        for kind in self.schema.in_order({kind for kind, _, _ in self.freed}):
            always = {key: channel for of, key, channel in self.freed if of is kind}
            heirs, told = self.schema.tables[kind].heirs, dict[Key, list[str]]()
            assert heirs is not None, kind
            for key, channel in map(heirs.told, await tx.all(heirs.load, rows=sorted(always))):
                told.setdefault(key, []).append(channel)
            for key, channel in always.items():
                self.heirs[key] = [*dict.fromkeys([*told.get(key, [])[:HEIRS_MAX], channel])]

    @staticmethod
    async def _save(tx: Tx, writes: Iterable[Write]) -> None:
        made = [write for write in writes if write[1]]
        for (statement, rows), count in zip(made, await tx.save(made), strict=True):
            if count != len(rows):
                raise Conflict(f"{statement}: the rows were not as they were read")

    def _writes(self) -> Iterator[Write]:
        for kind in self.schema.in_order({*self._removed, *self._new, *self._changed}):
            table = self.schema.tables[kind]
            if removed := self._removed.get(kind):
                yield self._write(table.delete, removed, self._loaded)
            if new := self._new.get(kind):
                yield self._insert(table, new)
            if changed := self._changed.get(kind):
                yield from self._update(table, changed)
        for kind in self.schema.tallied:
            yield "insert_tally_changes", tally_changes(self._places(kind), self._now)
        yield "insert_events", [astuple(event) for event in self.events]
        for tail in {(event.tenant_id, event.execution_id) for event in self.events}:
            self.wakes.append(f"tail/{tail[0]}/{tail[1]}")

    def _places(self, kind: type) -> Iterator[tuple[Place | None, Place | None]]:
        """From where to where the batch moves each row of a table that is tallied, by namespace and status."""
        for before, after in self._moves(kind):
            yield before and place_of(before), after and place_of(after)

    def _moves(self, kind: type) -> Iterator[tuple[Any, Any]]:
        """Each row of a table that the batch writes, as it was and as it will be; None where there is none."""
        rows, loaded = self._rows, self._loaded
        for new in self._new.get(kind, {}).values():
            yield None, new
        for at in self._changed.get(kind, ()):
            yield loaded[at], rows[at]
        for at in self._removed.get(kind, ()):
            yield loaded[at], None

    def measured(self) -> tuple[int, Counter[Key]]:
        """When the batch was (milliseconds) and what it did to the rows of tables that are metered."""
        found: Counter[Key] = Counter()
        for kind, measure in self.schema.metered:
            found.update(what for moved in self._moves(kind) if (what := measure(*moved)) is not None)
        return self._now, found

    def _insert(self, table: Table, new: Mapping[RowKey, Any]) -> Write:
        """New rows in the order of their keys: two batches that insert the same ids wait in line, not crosswise."""
        return self._write(table.insert, sorted(new, key=by_key), new)

    def _rest(self) -> Iterator[Write]:
        """New rows that have more than their insert says, updated once they are there: as a whole, whatever of them the
        insert has written already."""
        for kind in self.schema.in_order(kind for kind in self._new if kind in self.schema.blanks):
            table, new = self.schema.tables[kind], self._new[kind]
            if more := [at for at, row in new.items() if self.schema.blanks[kind].differs(row)]:
                self._loaded |= {at: replace(new[at], **table.blank) for at in more}
                yield self._write(table.update, more, self._rows)

    def _update(self, table: Table, changed: Iterable[RowKey]) -> Iterator[Write]:
        """Changed rows; those that changed little, by a shorter statement."""
        rows, loaded, left = self._rows, self._loaded, list(changed)
        for statement, fields in self.schema.narrow[table.row]:
            fit = [at for at in left if fields(rows[at]) == fields(loaded[at])]
            if fit:
                yield self._write(statement, fit, rows)
                left = [] if len(fit) == len(left) else [at for at in left if at not in set(fit)]
        if left:
            yield self._write(table.update, left, rows)

    def _write(self, statement: str | None, keys: Iterable[RowKey], of: Mapping[RowKey, Any]) -> Write:
        if statement is None:
            return "", []
        writer, loaded = self.schema.writers[statement], self._loaded
        return statement, [writer.changed(of[at], loaded.get(at)) for at in keys]


class Blank:
    """Tells whether a new row has anything in the columns that its insert leaves out."""

    def __init__(self, blank: Mapping[str, Any]) -> None:
        self._get = attrgetter(*blank)
        self._blank = tuple(blank.values())

    def differs(self, row: Any) -> bool:
        """Whether `row` must also be updated."""
        return bool(self._get(row) != self._blank)


def by_key(at: RowKey) -> Key:
    """The key part of a row's place."""
    return at[1]
