"""What only the database can choose: the next items of some queues, leases that ran out, items that became due.

A claim looks shelf by shelf. A shelf is a queue and one set of required capabilities, so its head is always something
the claimer can do, and the index gives it in order: the cost does not grow with what lies behind. Items put off for
later stand on an index of their own, so a thousand future items of high priority never hide a ready one. The claims of
a batch look together, whosever they are: one statement finds their shelves, one the heads of all of these.

Of the items with one concurrency key at most one is leased. A claim steps over the items of a key that is busy, so
those hide nothing, but each costs a look; a unique index holds two processes to it that claim at the same moment.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import translate
from itertools import islice
from typing import Any

from backends.protocol import Read, Row, Tx
from service.executions.model import Execution
from service.kernel.command import Chooser
from service.kernel.principal import SYSTEM, Principal
from service.kernel.tables import Key, Wanted
from service.work.model import OPEN_ITEMS, TASKS_ALONE, ClaimWork, PromoteDue, ReclaimLeases, WorkItem, apart, queue_in

FIELDS = WorkItem.__struct_fields__
TENANT, ID, QUEUE, REQUIRES, PRIORITY, READY_AT, KEY, STATUS = (
    FIELDS.index(name)
    for name in ("tenant_id", "id", "queue", "requires", "priority", "ready_at", "concurrency_key", "status")
)
LOOKS = 8
"""How many times a batch of claims looks at the heads of shelves, each time behind what had a busy concurrency key."""
DUE_MAX = 1_000
"""How much of what is due a batch takes, however many ask."""
ShelfKey = tuple[str, str, str]
"""A shelf: tenant, queue, required capabilities."""


def together(_command: Any, _who: Principal) -> Any:
    """All claims of a batch choose together."""
    return None


class Ask:
    """Claims of a batch that look on the same shelves: `who` asks `command`, and those at `indexes` of the batch ask
    the same, for `want` items in all. `best` is what they have found so far, in order; `sure` are the first of it,
    before which nothing can come that was not seen."""

    def __init__(self, who: Principal, command: ClaimWork) -> None:
        self.who, self.command, self.tenant_id = who, command, who.tenant_id
        self.by_pattern = any(is_glob(name) for name in command.queues)
        self.indexes: list[int] = []
        self.want = 0
        self.shelves: list[ShelfKey] = []
        self.best: list[Row] = []
        self.sure: list[Row] = []

    def look(
        self,
        heads: Mapping[ShelfKey, Sequence[Row]],
        most: Mapping[ShelfKey, int],
        taken: set[Key],
        busy: set[str],
    ) -> bool:
        """Add what the heads of its shelves offer, without what others took or what has a busy concurrency key; whether
        nothing that comes before it lies behind them. If something may, that must be looked at."""
        found = [row for shelf in self.shelves for row in heads.get(shelf, ()) if key_of(row) not in taken]
        if not self.sure and all(row[KEY] is None for row in found):  # a shelf shows as many as all its claims may take
            self.best = sorted(found, key=order)[: self.want]
            return True
        known = {row[ID] for row in self.sure}
        free = (row for row in found if row[ID] not in known and row[KEY] not in busy)
        fresh = one_a_key(sorted(free, key=order))
        self.best = [*self.sure, *fresh][: self.want]  # what was sure comes before all that was found since
        end = min((end for shelf in self.shelves for end in ends(heads.get(shelf, ()), most[shelf])), default=None)
        if end is None or (len(self.best) == self.want and order(self.best[-1]) <= end):
            return True
        self.sure = [row for row in self.best if order(row) <= end]
        return False


def asks_of(commands: Sequence[ClaimWork], whos: Sequence[Principal]) -> list[Ask]:
    """What a batch asks for, in the order in which it came: alike claims of one tenant are one."""
    found: dict[Any, Ask] = {}
    for index, (command, who) in enumerate(zip(commands, whos, strict=True)):
        said = command.namespace, tuple(sorted(command.queues)), tuple(sorted(command.capabilities))
        ask = found.get(key := (who.tenant_id, who.queues, said))
        if ask is None:
            ask = found[key] = Ask(who, command)
        ask.indexes.append(index)
        ask.want += command.max_items
    return list(found.values())


class Deal:
    """What the claims of a batch get: `hands`, in their order. `taken` are items, `busy` the concurrency keys of each
    tenant that were dealt."""

    def __init__(self, commands: Sequence[ClaimWork]) -> None:
        self._commands = commands
        self.hands: list[list[Row]] = [[] for _ in commands]
        self.taken: set[Key] = set()
        self.busy: dict[str, set[str]] = defaultdict(set)

    def after_look(
        self,
        asks: Sequence[Ask],
        heads: Mapping[ShelfKey, Sequence[Row]],
        most: Mapping[ShelfKey, int],
        *,
        last: bool,
    ) -> list[Ask]:
        """Deal to whoever has seen enough; who must look again. Behind one of these its tenant's later claims wait."""
        again: dict[str, list[Ask]] = {}
        for ask in asks:
            waits = again.get(ask.tenant_id)
            if waits is not None:
                waits.append(ask)
            elif ask.look(heads, most, self.taken, self.busy[ask.tenant_id]) or last:
                self._deal(ask)
            else:
                again[ask.tenant_id] = [ask]
        return [ask for waits in again.values() for ask in waits]

    def _deal(self, ask: Ask) -> None:
        chosen, start = ask.best, 0
        self.taken.update(key_of(row) for row in chosen)
        self.busy[ask.tenant_id].update(row[KEY] for row in chosen if row[KEY] is not None)
        for index in ask.indexes:
            most = self._commands[index].max_items
            self.hands[index] = chosen[start : start + most]
            start += most


async def choose_ready(
    tx: Tx,
    commands: Sequence[ClaimWork],
    _whos: Sequence[Principal],
    asks: Sequence[Ask],
    shelves: Sequence[Sequence[Row]],
) -> list[list[Row]]:
    """The best items over all shelves of each claim, dealt in the order in which the claims came. `asks` is what they
    come to, `shelves` what was read for it."""
    deal = Deal(commands)
    find_shelves(asks, dict(zip((name for name, _ in shelves_of(asks)), shelves, strict=True)))
    most: dict[ShelfKey, int] = defaultdict(int)
    for ask in asks:
        for shelf in ask.shelves:
            most[shelf] += ask.want
    for look in range(LOOKS):
        heads = await heads_of(tx, asks, most, deal.busy)
        asks = deal.after_look(asks, heads, most, last=look == LOOKS - 1)
        if not asks:
            break
    return deal.hands


async def heads_of(
    tx: Tx, asks: Sequence[Ask], most: Mapping[ShelfKey, int], busy: Mapping[str, set[str]]
) -> dict[ShelfKey, list[Row]]:
    """The heads of the shelves that are asked for, cut at `most` of each, without items whose concurrency key is busy,
    in the store or in this batch."""
    shelves = sorted({shelf for ask in asks for shelf in ask.shelves})
    if not shelves:
        return {}
    held = {f"{tenant}/{key}" for tenant, keys in busy.items() for key in keys}
    held |= {f"{ask.tenant_id}/{row[KEY]}" for ask in asks for row in ask.sure if row[KEY] is not None}
    rows = [(*shelf, most[shelf]) for shelf in shelves]
    found: dict[ShelfKey, list[Row]] = {}
    for row in await tx.all("heads_of_shelves", rows=rows, now=tx.now, busy=sorted(held)):
        found.setdefault((row[TENANT], row[QUEUE], row[REQUIRES]), []).append(row)
    return found


def one_a_key(rows: Sequence[Row]) -> list[Row]:
    """The rows without those that come after another one with the same concurrency key."""
    first: dict[str, str] = {}
    for row in rows:
        if row[KEY] is not None:
            first.setdefault(row[KEY], row[ID])
    return [row for row in rows if row[KEY] is None or first[row[KEY]] == row[ID]]


def ends(rows: Sequence[Row], most: int) -> list[tuple[int, int, str]]:
    """Where the walks of a shelf were cut, that of what is ready and that of what was put off: what none of them showed
    comes later."""
    if len(rows) < most:
        return []
    walks = [[order(row) for row in rows if row[STATUS] == status] for status in ("ready", "delayed")]
    return [max(walk) for walk in walks if len(walk) >= most]


def key_of(row: Row) -> Key:
    """The key of an item's row."""
    return row[TENANT], row[ID]


def order(row: Row) -> tuple[int, int, str]:
    """Priority first, then the time at which it became ready, then the id."""
    return -row[PRIORITY], row[READY_AT], row[ID]


def asks_and_shelves(commands: Sequence[ClaimWork], whos: Sequence[Principal]) -> tuple[list[Ask], list[Read]]:
    """What the claims of a batch ask for, and what to read of shelves for it."""
    asks = asks_of(commands, whos)
    return asks, shelves_of(asks)


def shelves_of(asks: Sequence[Ask]) -> list[Read]:
    """The shelves of queues by name, and for patterns, which are matched here, all of a tenant."""
    names = {(ask.tenant_id, queue_in(ask.command.namespace, name)) for ask in asks for name in plain(ask)}
    tenants = {(ask.tenant_id,) for ask in asks if ask.by_pattern}
    reads: list[Read] = [("shelves_of_queues", sorted(names)), ("shelves_of_tenants", sorted(tenants))]
    return [read for read in reads if read[1]]


def find_shelves(asks: Sequence[Ask], found: Mapping[str, Sequence[Row]]) -> None:
    """Give each claim the shelves of the queues that it asks for: those that are not paused, need nothing that is not
    offered, and that the token may use: `a*` may be asked for by a token for `a?`, which gets no more than that."""
    by_name, by_tenant = grouped(found.get("shelves_of_queues", ()), 2), grouped(found.get("shelves_of_tenants", ()), 1)
    for ask in asks:
        command, tenant = ask.command, ask.tenant_id
        if ask.by_pattern:
            shelves = by_tenant.get((tenant,), [])
            wanted = set(filter(asked(command), dict.fromkeys(shelf[1] for shelf in shelves)))
            shelves = [shelf for shelf in shelves if shelf[1] in wanted]
        else:
            queues = {queue_in(command.namespace, name) for name in command.queues}
            shelves = [shelf for queue in queues for shelf in by_name.get((tenant, queue), ())]
        offered = frozenset(command.capabilities)
        ask.shelves = [shelf for shelf in shelves if fits(shelf[2], offered) and ask.who.may_use(shelf[1])]


def plain(ask: Ask) -> Sequence[str]:
    """The queues that are looked up by name: those of a claim without a pattern."""
    return () if ask.by_pattern else ask.command.queues


def grouped(rows: Iterable[Row], columns: int) -> dict[Key, list[ShelfKey]]:
    """Shelves by the first columns of their key."""
    found: dict[Key, list[ShelfKey]] = {}
    for tenant, queue, requires in rows:
        shelf = tenant, queue, requires
        found.setdefault(shelf[:columns], []).append(shelf)
    return found


def fits(requires: str, offered: frozenset[str]) -> bool:
    """Whether a shelf needs nothing that is not offered. What needs nothing is no task: it is not for a worker that
    asks for tasks, which would hold it and never be shown it."""
    return offered.issuperset(requires.split(",")) if requires else TASKS_ALONE not in offered


def asked(command: ClaimWork) -> Callable[[str], bool]:
    """Tells whether a claim asks for a queue, by name or by a pattern; no pattern leads out of the claim's namespace.
    The patterns are made ready once: there are more queues and claims than `fnmatch` remembers patterns."""
    named = frozenset(queue_in(command.namespace, name) for name in command.queues if not is_glob(name))
    patterns = [re.compile(translate(name)) for name in command.queues if is_glob(name)]

    def asks_for(queue: str) -> bool:
        if queue in named:
            return True
        namespace, name = apart(queue)
        return namespace == command.namespace and any(pattern.match(name) for pattern in patterns)

    return asks_for


def is_glob(name: str) -> bool:
    """Whether a queue is asked for by pattern."""
    return "*" in name or "?" in name


def whose(_command: Any, who: Principal) -> Any:
    """Sweeps of one tenant, or of all, choose together."""
    return who.tenant_id


async def choose_expired(tx: Tx, commands: Sequence[ReclaimLeases], whos: Sequence[Principal]) -> list[list[Row]]:
    """Leases that ran out, the longest first."""
    return await dealt(tx, ("expired_leases", "expired_leases_of_tenant"), commands, whos[0].tenant_id)


async def choose_due(tx: Tx, commands: Sequence[PromoteDue], whos: Sequence[Principal]) -> list[list[Row]]:
    """Items whose time has come, the most overdue first, without those that somebody holds."""
    return await dealt(tx, ("due_items_of_all", "due_items_of_tenant"), commands, whos[0].tenant_id)


async def dealt(
    tx: Tx, statements: tuple[str, str], commands: Sequence[ReclaimLeases | PromoteDue], tenant_id: str
) -> list[list[Row]]:
    """What is due of every tenant if the system asks, else of the one that does; to each command in turn as much as it
    asks for, and to all of them no more than one may have."""
    of_all, of_tenant = statements
    limit = min(DUE_MAX, sum(command.limit for command in commands))
    if tenant_id == SYSTEM:
        rows = await tx.all(of_all, now=tx.now, limit=limit)
    else:
        rows = await tx.all(of_tenant, tenant_id=tenant_id, now=tx.now, limit=limit)
    left = iter(rows)
    return [list(islice(left, command.limit)) for command in commands]


def item_and_execution(values: Row) -> list[Wanted]:
    """The chosen item, its execution and, if that will end with it, what is open in it."""
    tenant, item, execution, ending = values
    wanted: list[Wanted] = [(WorkItem, (tenant, item))]
    wanted += [] if execution is None else [(Execution, (tenant, execution))]
    return wanted if ending is None else [*wanted, (OPEN_ITEMS, (tenant, ending))]


READY = Chooser(WorkItem, together, choose_ready, ahead=asks_and_shelves)
EXPIRED = Chooser(WorkItem, whose, choose_expired, item_and_execution)
DUE = Chooser(WorkItem, whose, choose_due, whole=False)
