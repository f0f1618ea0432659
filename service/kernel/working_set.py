"""The rows of one batch: loaded once per table, decided over, written once per table.

Load order is the order of `Table.rank`, each table's rows ordered by key, so that batches never wait crosswise. Every
update carries the values it was decided on; if the store touched fewer rows than were decided, the whole batch is undone.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from backends.errors import Conflict
from backends.protocol import Tx
from service.kernel.tables import Group, Key, Table, Wanted, Writer
from service.kernel.view import Missing, NewEvent, RowKey, View

Listener = Callable[[View, Any], None]
ABSENT = object()
EVENT_COLUMNS = NewEvent.__struct_fields__


class Schema:
    """All tables of all capabilities, indexed for the working set; built once at start-up."""

    def __init__(self, tables: Iterable[Table], listeners: Mapping[type, Sequence[Listener]], columns: Callable[[str], tuple[str, ...]]) -> None:
        self.tables: dict[type, Table] = {}
        self.order: list[Table] = sorted(tables, key=lambda table: (table.rank, table.load))
        self.groups: dict[str, tuple[Table, Group]] = {}
        self.paths: dict[str, tuple[Table, Callable[[Key], Key]]] = {}
        self.listeners = listeners
        self.kinds: dict[type, type] = {}
        for table in self.order:
            self.tables[table.row] = table
            self.groups |= {group.name: (table, group) for group in table.groups}
            self.paths |= {name: (table, path) for name, path in table.paths.items()}
        written = [name for table in self.order for name in (table.insert, table.update, table.delete) if name]
        self.writers = {name: Writer(columns(name)) for name in written}

    def kind(self, row: Any) -> type:
        """The row type that names `row`'s table: its class, or the one it extends."""
        found = self.kinds.get(type(row))
        if found is None:
            found = next(base for base in type(row).__mro__ if base in self.tables)
            self.kinds[type(row)] = found
        return found


class WorkingSet:
    """One batch's rows. `None` is remembered too: that a row does not exist was asked and answered."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.tables, self.groups, self.listeners, self.kind = schema.tables, schema.groups, schema.listeners, schema.kind
        self._rows: dict[RowKey, Any] = {}
        self._loaded: dict[RowKey, Any] = {}
        self._members: dict[tuple[str, Key], list[RowKey]] = {}
        self._changed: dict[RowKey, None] = {}
        self._new: dict[RowKey, None] = {}
        self._removed: dict[RowKey, None] = {}
        self.events: list[NewEvent] = []
        self.wakes: list[str] = []

    def at(self, at: RowKey) -> Any:
        """The row at a key; raises `Missing` when it was never asked for."""
        row = self._rows.get(at, ABSENT)
        if row is ABSENT:
            raise Missing(at)
        return row

    def knows(self, at: RowKey) -> bool:
        """Whether a key was asked for or written."""
        return at in self._rows

    def key_of(self, row: Any) -> Key:
        return self.tables[self.kind(row)].key_of(row)

    def group(self, name: str, key: Key) -> list[RowKey]:
        """The keys of a group's rows, and of rows of its table written earlier in this batch."""
        members = self._members.get((name, key))
        if members is None:
            raise Missing((name, key))
        row = self.groups[name][0].row
        return members + [at for at in (*self._new, *self._changed) if at[0] is row]

    async def load(self, tx: Tx, wanted: Iterable[Wanted]) -> None:
        """Load what is wanted and not yet here, one statement a table (and one a group), in order."""
        points, groups = self._sorted_out(wanted)
        for table in self.schema.order:
            if asked := points.get(table.row):
                self.take(table, await tx.all(table.load, rows=sorted(asked, key=null_first)))
            for group in table.groups:
                if keys := groups.get(group.name):
                    await self._load_group(tx, table, group, sorted(keys))

    def _sorted_out(self, wanted: Iterable[Wanted]) -> tuple[dict[type, set[Key]], dict[str, set[Key]]]:
        points: dict[type, set[Key]] = {}
        groups: dict[str, set[Key]] = {}
        for what, key in wanted:
            if isinstance(what, type):
                if (what, key) not in self._rows:
                    self._rows[what, key] = None
                    points.setdefault(what, set()).add(key + (None,) * self.tables[what].wide)
            elif what in self.groups:
                if (what, key) not in self._members:
                    groups.setdefault(what, set()).add(key)
            else:
                table, path = self.schema.paths[what]
                points.setdefault(table.row, set()).add(path(key))
        return points, groups

    async def _load_group(self, tx: Tx, table: Table, group: Group, keys: list[Key]) -> None:
        for key in keys:
            self._members[group.name, key] = []
        for at in self.take(table, await tx.all(group.load, rows=keys)):
            key_of_group = group.of(self._loaded[at])
            if key_of_group is not None and (group.name, key_of_group) in self._members:
                self._members[group.name, key_of_group].append(at)

    def take(self, table: Table, rows: Iterable[Sequence[Any]]) -> list[RowKey]:
        """Accept rows from the store; one that is here already stays as the batch has it."""
        keys = []
        for values in rows:
            row = table.row(*values)
            at = (table.row, table.key_of(row))
            if at not in self._loaded and at not in self._new:
                self._loaded[at] = self._rows[at] = row
            keys.append(at)
        return keys

    def keep(self, view: View) -> None:
        """Accept a decision: its overlay becomes what the next decision sees."""
        for at, row in view.put_.items():
            self._rows[at] = row
            if at in view.added:
                self._new[at] = None
            elif at not in self._new:
                self._changed[at] = None
        for at in view.removed:
            self._rows[at] = None
            self._changed.pop(at, None)
            if self._new.pop(at, ABSENT) is ABSENT:
                self._removed[at] = None
        self.events += view.events
        self.wakes += view.wakes

    async def flush(self, tx: Tx) -> None:
        """Write everything, each table once; raise `Conflict` if a guard held a row back."""
        for table in self.schema.order:
            await self._write(tx, table.delete, table, self._removed)
            await self._write(tx, table.insert, table, self._new)
            await self._write(tx, table.update, table, self._changed)
        if self.events:
            await tx.many("insert_events", [tuple(getattr(e, c) for c in EVENT_COLUMNS) for e in self.events])
        for channel in {f"tail/{event.tenant_id}/{event.execution_id}" for event in self.events}:
            tx.wake(channel)
        for channel in self.wakes:
            tx.wake(channel)

    async def _write(self, tx: Tx, statement: str | None, table: Table, keys: Iterable[RowKey]) -> None:
        mine = sorted(at[1] for at in keys if at[0] is table.row)
        if not mine or statement is None:
            return
        writer, rows = self.schema.writers[statement], []
        for key in mine:
            at = (table.row, key)
            loaded = self._loaded.get(at)
            row = loaded if keys is self._removed else self._rows[at]
            rows.append(writer.fresh(row) if loaded is None else writer.changed(row, loaded))
        if await tx.many(statement, rows) != len(rows):
            raise Conflict(f"{statement}: the rows were not as they were read")


def null_first(key: Key) -> tuple[Any, ...]:
    """A sort key for tuples that hold NULLs."""
    return tuple((value is not None, value) for value in key)
