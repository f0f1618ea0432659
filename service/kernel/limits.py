"""A tenant's limits, held inside the transaction that would pass them.

A tenant without a limit pays nothing. With one, the transaction first takes the tenant's row, then counts: two
processes at the last free place wait for each other, and one of them is refused. Executions are counted by their
tallies, ready work items no further than one past the limit.
"""

from collections.abc import Iterable

import msgspec

from service.errors import StateError
from service.kernel.principal import Standing
from service.kernel.tables import Table, Wanted
from service.kernel.view import View

CODES = {
    "running_executions": "limit/running-executions",
    "definitions": "limit/definitions",
    "ready_work_items": "limit/ready-work-items",
    "tokens": "limit/tokens",
    "namespaces": "limit/namespaces",
    "workers": "limit/workers",
    "payload_bytes": "limit/payload-bytes",
    "state_bytes": "limit/state-bytes",
}
COUNTED = ("running_executions", "definitions", "ready_work_items", "tokens", "namespaces", "workers")


class TenantTurn(msgspec.Struct, frozen=True):
    """The right to count: the tenant's row, locked."""

    tenant_id: str


class Usage(msgspec.Struct, frozen=True):
    """How many of something a tenant has, this batch's included. `most` is the limit that it is counted for: what is
    past it may be more than `count` says."""

    tenant_id: str
    name: str
    most: int
    count: int


TABLES = [
    Table(TenantTurn, ("tenant_id",), 0, "lock_tenants"),
    Table(Usage, ("tenant_id", "name", "most"), 1, "count_usage", timed=True),
]


def usage_keys(tenant_id: str, standing: Standing, name: str) -> Iterable[Wanted]:
    """What must be loaded to hold the limit `name`; nothing when there is no limit."""
    if (most := standing.limit(name)) is not None:
        yield TenantTurn, (tenant_id,)
        yield Usage, (tenant_id, name, most)


def use(view: View, name: str, count: int = 1) -> None:
    """Count `count` more (or fewer) of `name`; refuses past the limit."""
    most = view.standing.limit(name)
    if most is None or (count < 0 and not known(view, name, most)):
        return
    usage = counted(view, name, most)
    if count > 0 and usage.count + count > most:
        before = view.before(usage)
        raise past(name, most, 0 if before is None else before.count)
    if count > 0 or usage.count <= most:  # past the limit nobody knows how far, so nothing brings it back in this batch
        view.put(msgspec.structs.replace(usage, count=usage.count + count))


def came_back(view: View, name: str) -> None:
    """Count one that is there again (a retry), which no limit refuses: what was accepted is not dropped."""
    most = view.standing.limit(name)
    if most is not None and known(view, name, most):
        usage = counted(view, name, most)
        view.put(msgspec.structs.replace(usage, count=usage.count + 1))


def counted(view: View, name: str, most: int) -> Usage:
    """How many of `name` the tenant has. Whoever did not see the limit coming asks for the turn as well: it is loaded
    first."""
    view.expect((TenantTurn, (view.tenant_id,)), (Usage, (view.tenant_id, name, most)))
    return view.get(Usage, view.tenant_id, name, most) or Usage(view.tenant_id, name, most, 0)


def known(view: View, name: str, most: int) -> bool:
    """Whether this batch has counted `name`; a release need not be counted if nobody asks."""
    return view.has(Usage, view.tenant_id, name, most)


def refuse_past(view: View, name: str, size: int) -> None:
    """Refuse a size past the limit `name`."""
    most = view.standing.limit(name)
    if most is not None and size > most:
        raise past(name, most, size)


def past(name: str, most: int, current: int) -> StateError:
    """409 for a limit, with its value and where the tenant stands, or the size of what was sent."""
    if name not in COUNTED:
        said = f"this has {current}"
    elif current < most:
        said = f"it stands at {current}, and this asks for more than is left"
    else:
        said = f"it stands at {current} or more" if current > most else f"it stands at {current}"
    text = f"The tenant's limit of {name.replace('_', ' ')} is {most}; {said}."
    return StateError(CODES[name], text, limit=most, current=current)
