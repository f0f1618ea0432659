"""How rows of one kind come in and go out: the statements of a table, and the ways to ask for its rows.

A capability's `store.py` is a list of these. Rules never see them: they name a row by its type and key.
"""

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

import msgspec

from backends.protocol import Row

Key = tuple[Any, ...]
Wanted = tuple[Any, Key]
"""A row type (or the name of a path or a group) and a key."""

ONLY_BY_GROUP = ""
"""In place of `Table.load`: nobody asks for one of these rows by its key, only for a group of them."""


class Group(msgspec.Struct, frozen=True):
    """Rows found by something other than their key, such as the open items of an execution.

    `load` selects whole rows for `rows` of group keys; `of(row)` is the group key a row belongs to, or None, so that
    rows written earlier in the same batch are found too.
    """

    name: str
    load: str
    of: Callable[[Any], Key | None]


class Heirs(msgspec.Struct, frozen=True):
    """Who waits for what one row at a time may have, such as a concurrency key, once it is free.

    `load` finds, for `rows` of keys, what stands in line for them, the most urgent first; `told(row)` is the key and
    the channel to wake.
    """

    load: str
    told: Callable[[Row], tuple[Key, str]]


class Table(msgspec.Struct, frozen=True):
    """Rows of type `row`, known by the fields `key`.

    `rank` is the place in the order in which tables are loaded, locked and written, the same for every batch: two
    batches never wait for each other crosswise. `load` takes `rows` of keys; `paths` turn another way of asking into
    such a row (an execution by one of its items) so that one statement locks them all in order. An update's `was_x`
    column is the value that was loaded: the guard. A table without `insert` and `update` is only counted in memory.

    Two savings of bytes: `insert` may leave out columns that a new row has at their `blank` (a row that differs is
    updated right after), and `narrow` names shorter updates, each with the fields that must not have changed for it
    to say enough; the first that fits is taken. And one of reads: rows that are only ever added may be remembered for
    `lasting_ms` after they were read.
    """

    row: type
    key: tuple[str, ...]
    rank: int
    load: str
    insert: str | None = None
    update: str | None = None
    delete: str | None = None
    paths: Mapping[str, Callable[[Key], Key]] = {}
    groups: tuple[Group, ...] = ()
    narrow: Mapping[str, tuple[str, ...]] = {}
    blank: Mapping[str, Any] = {}
    lasting_ms: int = 0
    guarded: bool = False
    """Whether its rows come and go only under locks that tables before it take (an execution's), and `load` locks the
    ones that change without: it may be loaded in one statement with its neighbours that say so, too."""
    current: bool = False
    """Whether `load` shows a guarded row as it is by the time that its turn comes, though it waited for locks: it locks
    what it shows, or that never changes. It may be loaded in one statement with the locks that guard it: what came
    meanwhile is not shown, and the store refuses to insert it again."""
    wide: int = 0
    """Columns that `load` takes beyond the key: a key is padded with as many NULLs."""
    timed: bool = False
    """Whether `load` takes the time of the transaction behind the key."""
    tallied: bool = False
    """Whether its rows are counted by `namespace` and `status`; each commit says what it adds: see `kernel.tallies`."""
    heirs: Heirs | None = None
    """Who is woken when one of its rows gives up what others wait for."""
    metered: Callable[[Any, Any], Key | None] | None = None
    """What a commit did to a row, from the row before and after (None where there is none), under a name by which the
    kernel's `meter` counts it; None for what is not counted."""

    def keyed(self) -> Callable[[Any], Key]:
        """A function from a row to its key."""
        get = attrgetter(*self.key)
        return get if len(self.key) > 1 else lambda row: (get(row),)


class Writer:
    """Turns rows into the columns of a statement."""

    def __init__(self, columns: tuple[str, ...]) -> None:
        new = [name for name in columns if not name.startswith("was_")]
        self._new: Callable[[Any], Any] = attrgetter(*new)
        self._one_new = len(new) == 1
        was = [name.removeprefix("was_") for name in columns if name.startswith("was_")]
        self._was = attrgetter(*was) if was else None
        self._one_was = len(was) == 1

    def fresh(self, row: Any) -> tuple[Any, ...]:
        """Columns of a new row."""
        return (self._new(row),) if self._one_new else self._new(row)

    def changed(self, row: Any, loaded: Any) -> tuple[Any, ...]:
        """Columns of a changed row, the guard's values last."""
        if self._was is None:
            return self.fresh(row)
        was = self._was(loaded)
        return (*self.fresh(row), was) if self._one_was else (*self.fresh(row), *was)
