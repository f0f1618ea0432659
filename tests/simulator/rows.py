"""Tables as Postgres keeps them: rows of committed transactions and of those under way, locks, what must be unique.

The tables are those of the migrations. A row is a tuple in the order of its table's columns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import sqlglot

from tests.simulator.sql import predicate
from tests.tidy import house

if TYPE_CHECKING:
    from tests.simulator.database import Transaction

Row = tuple[Any, ...]
Key = tuple[Any, ...]
KEY_SHARE, UPDATE, ALL = 1, 2, 3
"""How strongly a row is locked: against deletion, against changes, against everything. Two locks of different
transactions bear each other when they add up to less than `TOO_MUCH`."""
TOO_MUCH = 4


class Record:
    """One row: what is committed, and what a transaction under way would make of it (None: there is none)."""

    __slots__ = ("key", "locks", "next", "now", "table", "writer")

    def __init__(self, table: Table, key: Key) -> None:
        self.table, self.key = table, key
        self.now: Row | None = None
        self.next: Row | None = None
        self.writer: Transaction | None = None
        self.locks: dict[Transaction, int] = {}

    def seen(self, by: Transaction) -> Row | None:
        """The row as a statement of `by` sees it: the latest commit, or what `by` itself wrote."""
        return self.next if self.writer is by else self.now

    def in_the_way(self, of: Transaction, mode: int) -> set[Transaction]:
        """Who holds a lock that does not bear `mode`."""
        if not self.locks:
            return set()
        return {other for other, held in self.locks.items() if other is not of and held + mode >= TOO_MUCH}


class Unique:
    """At most one row for a value; `of(row)` is its value, or None for a row that the index leaves out."""

    def __init__(self, name: str, columns: tuple[int, ...], where: Callable[[Row], bool] | None) -> None:
        self.name, self._where = name, where
        self._get: Callable[[Row], Any] = itemgetter(*columns)
        self.entries: dict[Any, dict[Record, None]] = {}

    def of(self, row: Row | None) -> Any:
        if row is None or (self._where is not None and not self._where(row)):
            return None
        return self._get(row)

    def enter(self, record: Record, before: Row | None) -> None:
        """A record may have another value once its transaction ends; what the same one made of it before is gone."""
        value = self.of(record.next)
        if value is not None:
            self.entries.setdefault(value, {})[record] = None
        if before is not record.now:
            self._drop(record, self.of(before), {value, self.of(record.now)})

    def leave(self, record: Record, *rows: Row | None) -> None:
        """The transaction has ended: forget the values that the record does not have."""
        own = {self.of(record.now)}
        for row in rows:
            self._drop(record, self.of(row), own)

    def _drop(self, record: Record, value: Any, kept: set[Any]) -> None:
        if value is None or value in kept:
            return
        held = self.entries.get(value, {})
        held.pop(record, None)
        if not held:
            self.entries.pop(value, None)

    def taken(self, record: Record, by: Transaction) -> Transaction | bool:
        """Whether another row has the value that `by` gives to `record`; a transaction, if that depends on its end."""
        value = self.of(record.next)
        for other in self.entries.get(value, ()) if value is not None else ():
            if other is record:
                continue
            if other.writer is not None and other.writer is not by:
                return other.writer
            if self.of(other.seen(by)) == value:
                return True
        return False


class Index:
    """Committed rows by the value of some columns; of none, all rows together."""

    def __init__(self, table: Table, columns: tuple[str, ...]) -> None:
        positions = [table.at[name] for name in columns]
        get = itemgetter(*positions or (0,))
        one: Callable[[Row], Any] = (lambda row: (get(row),)) if positions else lambda _row: ()
        self.of: Callable[[Row], Any] = get if len(positions) > 1 else one
        self.rows: dict[Any, dict[Key, Row]] = {}
        for record in table.records.values():
            self.move(record.key, None, record.now)

    def move(self, key: Key, old: Row | None, new: Row | None) -> None:
        """A commit made `new` of `old`."""
        if old is not None:
            held = self.rows[self.of(old)]
            del held[key]
            if not held:
                del self.rows[self.of(old)]
        if new is not None:
            self.rows.setdefault(self.of(new), {})[key] = new


class Table:
    """A table: columns, keys and rules from the migrations; its records."""

    def __init__(self, name: str) -> None:
        db = house.store()
        info = db.execute(f"PRAGMA table_info({name})").fetchall()
        self.name, self.columns = name, tuple(row[1] for row in info)
        self.at = {column: index for index, column in enumerate(self.columns)}
        self.null: Row = (None,) * len(self.columns)
        self.records: dict[Key, Record] = {}
        self.indexes: list[Index] = []
        uniques = list(unique_indexes(name))
        own = tuple(row[1] for row in sorted(info, key=lambda row: row[5]) if row[5])
        self.key = own if own[0] == "tenant_id" else next(columns for _, columns, _ in uniques if len(columns) > 1)
        get = itemgetter(*(self.at[column] for column in self.key))
        self.key_of: Callable[[Row], Key] = get if len(self.key) > 1 else lambda row: (get(row),)
        self.uniques = [
            Unique(
                index, tuple(self.at[column] for column in columns), predicate(where, name, self.at) if where else None
            )
            for index, columns, where in uniques
            if columns != self.key
        ]
        self.required = [index for index, row in enumerate(info) if row[3] and row[4] is None]
        self.checks = [(self.at[column], values) for column, values in checks(name)]
        self.parents = list(foreign_keys(name, self.at))
        self.serial = 0

    def wrong(self, row: Row) -> str | None:
        """The rule of the table that a row breaks by itself."""
        for index in self.required:
            if row[index] is None:
                return f"{self.name}.{self.columns[index]} is NULL"
        for index, values in self.checks:
            if row[index] not in values:
                return f"{self.name}.{self.columns[index]} is {row[index]!r}"
        return None

    def rows(self) -> Iterator[dict[str, Any]]:
        """The committed rows, by column."""
        for record in self.records.values():
            if record.now is not None:
                yield dict(zip(self.columns, record.now, strict=True))

    def put(self, rows: Iterable[dict[str, Any]]) -> None:
        """Have rows from the beginning; columns that are not given are NULL."""
        for values in rows:
            row = tuple(values.get(column) for column in self.columns)
            record = self.records[self.key_of(row)] = Record(self, self.key_of(row))
            record.next = row
            for unique in self.uniques:
                unique.enter(record, None)
            record.now, record.next = row, None


def unique_indexes(table: str) -> Iterator[tuple[str, tuple[str, ...], str | None]]:
    """The unique indexes of a table: name, columns, and the condition of a partial one."""
    db = house.store()
    for _, name, unique, _, partial in db.execute(f"PRAGMA index_list({table})").fetchall():
        if unique:
            columns = tuple(row[2] for row in db.execute(f"PRAGMA index_info({name})"))
            text = db.execute("SELECT sql FROM sqlite_master WHERE name = ?", (name,)).fetchone()
            where = sqlglot.parse_one(text[0], dialect="sqlite").find(sqlglot.exp.Where) if partial else None
            yield name, columns, None if where is None else where.this.sql()


def checks(table: str) -> Iterator[tuple[str, frozenset[str]]]:
    """The columns with a list of values in the schema."""
    text = house.store().execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0]
    for column, values in re.findall(r"CHECK \((\w+) IN \(([^)]*)\)", text):
        yield column, frozenset(re.findall(r"'(\w+)'", values))


def foreign_keys(table: str, at: dict[str, int]) -> Iterator[tuple[str, Callable[[Row], Key]]]:
    """The tables that rows point at, and a function from a row to the key it points at."""
    found: dict[int, list[Any]] = {}
    for row in house.store().execute(f"PRAGMA foreign_key_list({table})"):
        found.setdefault(row[0], []).append(row)
    for rows in found.values():
        get = itemgetter(*(at[row[3]] for row in rows))
        yield rows[0][2], get if len(rows) > 1 else lambda row, get=get: (get(row),)  # type: ignore[misc]
