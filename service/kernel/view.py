"""One command's view of the batch: read rows, write rows, append events, tell facts.

Everything a decision does goes into an overlay. If the decision refuses, the overlay is dropped and nothing happened;
if it asks for a row that was not loaded, the kernel loads it and decides again. So `decide` is pure: rows in, rows out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from service.errors import StateError
from service.kernel.ids import uuid7
from service.kernel.principal import Principal, Standing
from service.kernel.tables import Key, Wanted

if TYPE_CHECKING:
    from service.kernel.working_set import WorkingSet

R = TypeVar("R")
FACTS_DEEP = 8
RowKey = tuple[type, Key]
Spared = tuple[str, Key | None]
"""A channel of which a wake-up is spared, and the key that is taken."""
Freed = tuple[type, Key, str]
"""The type of a row that gave something up, under which key, and the channel to wake in any case."""


class Missing(Exception):
    """A decision needs rows that were not loaded: all that it can name so far, for each asking costs a round."""

    def __init__(self, *wanted: Wanted) -> None:
        super().__init__(*wanted)
        self.wanted = wanted


class NewEvent(msgspec.Struct, frozen=True):
    """One fact of an execution's log, about to be written."""

    tenant_id: str
    execution_id: str
    sequence: int
    kind: str
    body: bytes | None
    at: int
    actor: str
    node_id: str | None = None
    work_item_id: str | None = None
    causation_id: str | None = None


class View:
    """What one decision sees and does. `tenant_id` is the caller's, `now` milliseconds by the store's clock, `chance` a
    number in [0, 1)."""

    __slots__ = (
        "_depth", "_drawn", "_set", "_undo", "added", "chosen", "events", "freed", "ids", "now", "origin", "put_",
        "removed", "spared", "standing", "tenant_id", "wakes", "who",
    )  # fmt: skip

    def __init__(self, base: WorkingSet, who: Principal, standing: Standing, now: int) -> None:
        self._set, self.who, self.standing, self.now = base, who, standing, now
        self.tenant_id = who.tenant_id
        self.put_: dict[RowKey, Any] = {}
        self.added: dict[RowKey, Any] = {}
        self.removed: set[RowKey] = set()
        self.events: list[NewEvent] = []
        self.wakes: list[str] = []
        self.spared: list[Spared] = []
        self.freed: list[Freed] = []
        self.chosen: list[RowKey] = []
        self.ids: list[str] = []
        self.origin: Any = None
        self._drawn = 0
        self._depth = 0
        self._undo: list[tuple[RowKey, Any, Any, bool]] | None = None

    @property
    def chance(self) -> float:
        """A random number in [0, 1), for jitter."""
        return random.random()

    def new_id(self) -> str:
        """A fresh id that sorts after those of earlier milliseconds; the same one when the command is decided again."""
        if self._drawn == len(self.ids):
            self.ids.append(uuid7(self.now))
        self._drawn += 1
        return self.ids[self._drawn - 1]

    def get(self, row: type[R], *key: Any) -> R | None:
        """The row of that type and key as this batch has it, or None when there is none."""
        at = (row, key)
        found = self.put_.get(at)  # no row that was put is None
        if found is None and not (self.removed and at in self.removed):
            found = self._set.at(at)
        return found

    def has(self, row: type, *key: Any) -> bool:
        """Whether the batch has loaded or written that row, so that asking for it costs nothing."""
        return (row, key) in self.put_ or self._set.knows((row, key))

    def before(self, row: R) -> R | None:
        """What stood in the place of a row before this decision, None if nothing did: what is so once it refuses."""
        at = self._set.locate(row)
        found: R | None = self._set.at(at) if self._set.knows(at) else None
        return found

    def expect(self, *wanted: Wanted) -> None:
        """Ask for many rows or groups at once, instead of coming back for one after another."""
        if missing := [one for one in wanted if not self._set.knows(one)]:
            raise Missing(*missing)

    def group(self, row: type[R], name: str, *key: Any) -> list[R]:
        """The rows of a named group, those written earlier in the batch included, in the order of their keys."""
        wanted = self._set.group(name, key)
        found: dict[RowKey, Any] = {at: self.get(at[0], *at[1]) for at in wanted}
        found |= {at: new for at, new in self.put_.items() if at[0] is row}
        of = self._set.groups[name][1].of
        kept = [(at[1], new) for at, new in found.items() if new is not None and of(new) == key]
        return [new for _, new in sorted(kept, key=lambda pair: pair[0])]

    def pick(self, row: type[R]) -> list[R]:
        """The rows that the database chose for this command (a claim, due work), as the batch now has them."""
        found = [self.get(row, *at[1]) for at in self.chosen]
        return [new for new in found if new is not None]

    def put(self, row: Any) -> None:
        """Write a changed row."""
        at = self._set.locate(row)
        if self._undo is not None:
            self._note(at)
        self.put_[at] = row

    def add(self, row: Any) -> None:
        """Write a new row; in the place of one that this decision removed it is a changed one."""
        at = self._set.locate(row)
        if self._undo is not None:
            self._note(at)
        self.put_[at] = row
        if at in self.removed:
            self.removed.discard(at)
        else:
            self.added[at] = row

    def remove(self, row: Any) -> None:
        """Delete a row."""
        at = self._set.locate(row)
        if self._undo is not None:
            self._note(at)
        self.put_.pop(at, None)
        if self.added.pop(at, None) is None:
            self.removed.add(at)

    def attempt(self, part: Callable[[], R]) -> R | StateError:
        """Decide a part that may be refused without refusing the whole: then what it did is dropped. It costs as much
        as the part does, however much was decided before."""
        outer, self._undo = self._undo, []
        told, depth = [(one, len(one)) for one in (self.events, self.wakes, self.spared, self.freed)], self._depth
        try:
            done: R | StateError = part()
        except StateError as refusal:
            self._drop(self._undo)
            for one, before in told:
                del one[before:]
            self._depth = depth
            done = refusal
        if outer is not None:
            outer += self._undo
        self._undo = outer
        return done

    def _note(self, at: RowKey) -> None:
        """Keep what stands at a key before it is written."""
        assert self._undo is not None
        self._undo.append((at, self.put_.get(at), self.added.get(at), at in self.removed))

    def _drop(self, undo: list[tuple[RowKey, Any, Any, bool]]) -> None:
        """Put back what stood there, the last first."""
        while undo:
            at, put, added, removed = undo.pop()
            for rows, row in ((self.put_, put), (self.added, added)):
                if row is None:
                    rows.pop(at, None)
                else:
                    rows[at] = row
            (self.removed.add if removed else self.removed.discard)(at)

    def appended(self, tenant_id: str, execution_id: str) -> list[NewEvent]:
        """The events that this batch has appended to an execution's log so far."""
        both = (*self._set.events, *self.events)
        return [event for event in both if event.execution_id == execution_id and event.tenant_id == tenant_id]

    def wake(self, channel: str) -> None:
        """Wake whoever waits on `channel` after the commit."""
        self.wakes.append(channel)

    def free(self, row: Any, key: Key, channel: str) -> None:
        """Give up what one row at a time may have, under a key: woken is who waits on `channel`, and wherever the
        table's `heirs` stand, unless the same commit gives it to another row."""
        self.freed.append((self._set.locate(row)[0], key, channel))

    def spare(self, channel: str, key: Key | None = None) -> None:
        """Take what a wake-up would tell of: should the same commit bring it, one less is woken; and should it free the
        key that is taken with it, nobody is woken for that."""
        self.spared.append((channel, key))

    def tell(self, fact: Any, of: type | None = None) -> None:
        """Tell a fact: its listeners decide here and now, in this overlay, in the order of the capabilities.

        `of` names another type to listen for than the fact's own: that of a command which the fact hands on.
        """
        listeners: Iterable[Callable[[View, Any], None]] = self._set.listeners.get(of or type(fact), ())
        self._depth += 1
        if self._depth > FACTS_DEEP:
            raise StateError("server/error", "A chain of facts did not end; this is a fault of the service.")
        for listener in listeners:
            listener(self, fact)
        self._depth -= 1
