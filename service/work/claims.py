"""What only the database can choose: the next items of some queues, leases that ran out, items that became due.

A claim looks shelf by shelf. A shelf is a queue and one set of required capabilities, so its head is always something
the claimer can do, and the index gives it in order: the cost does not grow with what lies behind. Items put off for
later stand on an index of their own, so a thousand future items of high priority never hide a ready one.

Of the items with one concurrency key at most one is leased. A claim steps over the items of a key that is busy, so
those hide nothing, but each costs a look; a unique index holds two processes to it that claim at the same moment.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from backends.protocol import Row, Tx
from service.executions.model import Execution
from service.kernel.command import Chooser
from service.kernel.principal import SYSTEM, Principal
from service.kernel.tables import Key, Wanted
from service.work.model import OPEN_ITEMS, ClaimWork, PromoteDue, ReclaimLeases, WorkItem, apart, shelf

FIELDS = WorkItem.__struct_fields__
TENANT, ID, PRIORITY, READY_AT, KEY = (
    FIELDS.index(name) for name in ("tenant_id", "id", "priority", "ready_at", "concurrency_key")
)
BUSY = "concurrency_key"
"""Marks, among what was taken in this batch, a concurrency key: (`BUSY`, tenant, key)."""
LOOKS = 8


def alike(command: ClaimWork, who: Principal) -> Any:
    """Claims of one tenant for the same queues with the same capabilities and rights choose together."""
    asked = command.namespace, tuple(sorted(command.queues)), tuple(sorted(command.capabilities))
    return who.tenant_id, asked, who.queues


async def choose_ready(
    tx: Tx, commands: Sequence[ClaimWork], whos: Sequence[Principal], taken: set[Key]
) -> list[list[Row]]:
    """The best items over all shelves, dealt to the claims in the order in which they came."""
    who, want = whos[0], sum(command.max_items for command in commands)
    asked = await shelves(tx, who, commands[0])
    busy = {key[2] for key in taken if key[0] == BUSY and key[1] == who.tenant_id}
    best: dict[str, Row] = {}
    for _ in range(LOOKS):
        rows = await heads(tx, who.tenant_id, asked, busy, want + len(taken))
        found = [row for row in rows if key_of(row) not in taken]
        fresh = one_a_key(sorted(found, key=order))
        best |= {row[ID]: row for row in fresh}
        busy |= {row[KEY] for row in fresh if row[KEY] is not None}
        if len(fresh) == len(found) or len(best) >= want:
            break
    chosen = sorted(best.values(), key=order)[:want]
    taken |= {(BUSY, who.tenant_id, row[KEY]) for row in chosen if row[KEY] is not None}
    return dealt(chosen, commands)


def dealt(rows: Sequence[Row], commands: Sequence[ClaimWork]) -> list[list[Row]]:
    """To each claim as many as it asked for, in order."""
    hands, start = [], 0
    for command in commands:
        hands.append(list(rows[start : start + command.max_items]))
        start += command.max_items
    return hands


async def heads(tx: Tx, tenant_id: str, asked: Sequence[tuple[str, str]], busy: set[str], limit: int) -> list[Row]:
    """The head of each shelf, without items whose concurrency key is busy, in the store or in this batch."""
    found: list[Row] = []
    skip = list(busy)
    for queue, requires in asked:
        found += await tx.all(
            "ready_on_shelf", tenant_id=tenant_id, queue=queue, requires=requires, now=tx.now, busy=skip, limit=limit
        )
    return found


def one_a_key(rows: Sequence[Row]) -> list[Row]:
    """The rows without those that come after another one with the same concurrency key."""
    first: dict[str, str] = {}
    for row in rows:
        if row[KEY] is not None:
            first.setdefault(row[KEY], row[ID])
    return [row for row in rows if row[KEY] is None or first[row[KEY]] == row[ID]]


def key_of(row: Row) -> Key:
    """The key of an item's row."""
    return row[TENANT], row[ID]


def order(row: Row) -> tuple[int, int, str]:
    """Priority first, then the time at which it became ready, then the id."""
    return -row[PRIORITY], row[READY_AT], row[ID]


async def shelves(tx: Tx, who: Principal, command: ClaimWork) -> list[tuple[str, str]]:
    """The shelves of the asked queues that are not paused, that need nothing that is not offered, and that the token
    may use: `a*` may be asked for by a token for `a?`, which gets no more than that."""
    tenant_id = who.tenant_id
    plain = [shelf(command.namespace, name) for name in command.queues if not is_glob(name)]
    rows = await tx.all("shelves_of_queues", tenant_id=tenant_id, names=plain) if plain else []
    if len(plain) < len(command.queues):
        every = await tx.all("shelves_of_tenant", tenant_id=tenant_id)
        rows = [*rows, *(row for row in every if asks_for(command, row[0]))]
    offered = frozenset(command.capabilities)
    return sorted({(row[0], row[1]) for row in rows if fits(row[1], offered) and who.may_use(row[0])})


def fits(requires: str, offered: frozenset[str]) -> bool:
    """Whether a shelf needs nothing that is not offered."""
    return not requires or offered.issuperset(requires.split(","))


def asks_for(command: ClaimWork, queue: str) -> bool:
    """Whether a claim asks for a queue, by name or by a pattern; no pattern leads out of the claim's namespace."""
    namespace, name = apart(queue)
    return any(
        namespace == command.namespace and fnmatchcase(name, asked)
        if is_glob(asked)
        else queue == shelf(command.namespace, asked)
        for asked in command.queues
    )


def is_glob(name: str) -> bool:
    """Whether a queue is asked for by pattern."""
    return "*" in name or "?" in name


def whose(_command: Any, who: Principal) -> Any:
    """Sweeps of one tenant, or of all, choose together."""
    return who.tenant_id


async def choose_expired(
    tx: Tx, commands: Sequence[ReclaimLeases], whos: Sequence[Principal], _taken: set[Key]
) -> list[list[Row]]:
    """Leases that ran out, the longest first; the first command gets them all."""
    return await first_gets_all(tx, ("expired_leases", "expired_leases_of_tenant"), commands, whos[0].tenant_id)


async def choose_due(
    tx: Tx, commands: Sequence[PromoteDue], whos: Sequence[Principal], _taken: set[Key]
) -> list[list[Row]]:
    """Items whose time has come, the most overdue first."""
    return await first_gets_all(tx, ("due_items", "due_items_of_tenant"), commands, whos[0].tenant_id)


async def first_gets_all(
    tx: Tx, statements: tuple[str, str], commands: Sequence[ReclaimLeases | PromoteDue], tenant_id: str
) -> list[list[Row]]:
    """What is due of every tenant if the system asks, else of the one that does."""
    of_all, of_tenant = statements
    limit = max(command.limit for command in commands)
    if tenant_id == SYSTEM:
        rows = await tx.all(of_all, now=tx.now, limit=limit)
    else:
        rows = await tx.all(of_tenant, tenant_id=tenant_id, now=tx.now, limit=limit)
    return [rows, *([] for _ in commands[1:])]


def item_and_execution(values: Row) -> list[Wanted]:
    """The chosen item, its execution and, if that will end with it, what is open in it."""
    tenant, item, execution, ending = values
    wanted: list[Wanted] = [(WorkItem, (tenant, item))]
    wanted += [] if execution is None else [(Execution, (tenant, execution))]
    return wanted if ending is None else [*wanted, (OPEN_ITEMS, (tenant, ending))]


READY = Chooser(WorkItem, alike, choose_ready)
EXPIRED = Chooser(WorkItem, whose, choose_expired, item_and_execution)
DUE = Chooser(WorkItem, whose, choose_due, lambda values: [(WorkItem, (values[0], values[1]))])
