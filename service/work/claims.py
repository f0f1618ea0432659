"""What only the database can choose: the next items of some queues, leases that ran out, items that became due.

A claim looks shelf by shelf. A shelf is a queue and one set of required capabilities, so its head is always something the
claimer can do, and the index gives it in order: the cost does not grow with what lies behind. Items put off for later stand
on an index of their own, so a thousand future items of high priority never hide a ready one.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from backends.protocol import Row, Tx
from service.executions.model import Execution
from service.kernel.command import Chooser
from service.kernel.principal import Principal
from service.kernel.tables import Key, Wanted
from service.work.model import ClaimWork, PromoteDue, ReclaimLeases, WorkItem

FIELDS = WorkItem.__struct_fields__
TENANT, ID, EXECUTION, PRIORITY, READY_AT = (
    FIELDS.index(name) for name in ("tenant_id", "id", "execution_id", "priority", "ready_at")
)


def alike(command: ClaimWork, who: Principal) -> Any:
    """Claims of one tenant for the same queues with the same capabilities and rights choose together."""
    return who.tenant_id, tuple(sorted(command.queues)), tuple(sorted(command.capabilities)), who.queues


async def choose_ready(
    tx: Tx, commands: Sequence[ClaimWork], whos: Sequence[Principal], taken: set[Key]
) -> list[list[Row]]:
    """The best items over all shelves, dealt to the claims in the order in which they came."""
    tenant, first = whos[0].tenant_id, commands[0]
    want = sum(command.max_items for command in commands)
    found: list[Row] = []
    for queue, requires in await shelves(tx, tenant, first):
        if not whos[0].may_use(queue):  # `a*` may be asked for by a token for `a?`; it gets no more than that
            continue
        found += await tx.all(
            "ready_on_shelf", tenant_id=tenant, queue=queue, requires=requires, now=tx.now, limit=want + len(taken)
        )
    best = sorted((row for row in found if (row[TENANT], row[ID]) not in taken), key=order)
    dealt, start = [], 0
    for command in commands:
        dealt.append(best[start : start + command.max_items])
        start += command.max_items
    return dealt


def order(row: Row) -> tuple[int, int, str]:
    """Priority first, then the time at which it became ready, then the id."""
    return -row[PRIORITY], row[READY_AT], row[ID]


async def shelves(tx: Tx, tenant_id: str, command: ClaimWork) -> list[tuple[str, str]]:
    """The shelves of the asked queues that are not paused and need nothing that is not offered."""
    plain = [name for name in command.queues if not is_glob(name)]
    globs = [name for name in command.queues if is_glob(name)]
    rows = await tx.all("shelves_of_queues", tenant_id=tenant_id, names=plain) if plain else []
    if globs:
        every = await tx.all("shelves_of_tenant", tenant_id=tenant_id)
        rows = [*rows, *(row for row in every if any(fnmatchcase(row[0], glob) for glob in globs))]
    offered = set(command.capabilities)
    fit = {(row[0], row[1]) for row in rows if not row[1] or set(row[1].split(",")) <= offered}
    return sorted(fit)


def is_glob(name: str) -> bool:
    """Whether a queue is asked for by pattern."""
    return "*" in name or "?" in name


def anywhere(_command: Any, _who: Principal) -> Any:
    """Sweeps of all tenants choose together."""
    return None


async def choose_expired(
    tx: Tx, commands: Sequence[ReclaimLeases], _whos: Sequence[Principal], _taken: set[Key]
) -> list[list[Row]]:
    """Leases that ran out, the longest first; the first command gets them all."""
    limit = max(command.limit for command in commands)
    return [await tx.all("expired_leases", now=tx.now, limit=limit), *([] for _ in commands[1:])]


async def choose_due(
    tx: Tx, commands: Sequence[PromoteDue], _whos: Sequence[Principal], _taken: set[Key]
) -> list[list[Row]]:
    """Items whose time has come, the most overdue first."""
    limit = max(command.limit for command in commands)
    return [await tx.all("due_items", now=tx.now, limit=limit), *([] for _ in commands[1:])]


def item_and_execution(values: Row) -> list[Wanted]:
    """The chosen item and its execution."""
    wanted: list[Wanted] = [(WorkItem, (values[0], values[1]))]
    return wanted if values[2] is None else [*wanted, (Execution, (values[0], values[2]))]


READY = Chooser(WorkItem, alike, choose_ready)
EXPIRED = Chooser(WorkItem, anywhere, choose_expired, item_and_execution)
DUE = Chooser(WorkItem, anywhere, choose_due, lambda values: [(WorkItem, (values[0], values[1]))])
