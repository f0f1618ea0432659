"""Namespaces over HTTP."""

from collections.abc import Iterable
from typing import Any

from backends.protocol import Row, Tx
from service.errors import not_found
from service.http.endpoint import CURSOR, LIMIT, Call, Endpoint, command
from service.http.lists import Page, listed
from service.kernel.tallies import tallies_of
from service.namespaces.model import (
    COUNTED_MAX,
    CreateNamespace,
    DeleteNamespace,
    NamespaceStats,
    OpenWork,
    ShownNamespace,
)
from service.work.model import OPEN, apart

KINDS = ("workflow_tasks", "activities", "other_work")
STATUSES = (
    "pending", "running", "paused", "completed", "failed", "cancelled", "terminated", "timed_out", "limit_exceeded",
)  # fmt: skip


async def list_all(call: Call) -> Page:
    """The tenant's namespaces by name, `main` among them."""
    return await listed(
        call,
        "list_namespaces",
        ("",),
        ("after",),
        lambda row: ShownNamespace(*row),
        lambda row: (row[0],),
        tenant_id=call.who.tenant_id,
    )


async def get(call: Call) -> ShownNamespace:
    """One namespace."""

    async def read(tx: Tx) -> Row | None:
        return await tx.one("read_namespace", tenant_id=call.who.tenant_id, name=call.path["name"])

    row = await call.services.backend.read(read, tenants=call.who.reach)
    if row is None:
        raise not_found("namespace", call.path["name"])
    return ShownNamespace(*row)


async def delete(call: Call) -> ShownNamespace:
    """Close a namespace and have its rows taken away."""
    return await call.run(DeleteNamespace(call.path["name"]))  # type: ignore[no-any-return]


async def stats(call: Call) -> NamespaceStats:
    """How a namespace stands, from tallies and walks of indexes that end at a bound."""
    name, tenant = call.path["name"], call.who.tenant_id

    async def read(tx: Tx) -> NamespaceStats:
        if await tx.one("read_namespace", tenant_id=tenant, name=name) is None:
            raise not_found("namespace", name)
        found = await tallies_of(tx, tenant, name)
        looked_at: dict[str, int] = {}
        work = await work_of(tx, tenant, name, looked_at)
        schedules, workers = await others(tx, tenant, name, looked_at)
        return NamespaceStats(
            name=name,
            executions={status: max(0, found.get(status, 0)) for status in STATUSES},
            **work,
            schedules=schedules,
            workers=workers,
            at_least=[said for said, count in looked_at.items() if count > COUNTED_MAX],
        )

    return await call.scan(read)


async def work_of(tx: Tx, tenant_id: str, name: str, looked_at: dict[str, int]) -> dict[str, OpenWork]:
    """Open work of a namespace by kind; `looked_at` is told how many items each walk saw."""
    of: dict[str, Any] = {"tenant_id": tenant_id, "most": COUNTED_MAX + 1}
    queues = [row[0] for row in await tx.all("queue_names", tenant_id=tenant_id) if inside(name, row[0])]
    ready = await tx.all("ready_on_shelves", queues=queues, **of)
    delayed = await tx.all("delayed_on_shelves", queues=queues, **of)
    leased = await tx.all("leased_by_queue", **of)
    for status, rows in zip(OPEN, (ready, delayed, leased), strict=True):
        looked_at[status] = sum(row[-1] for row in rows)
    counts = [by_kind(rows) for rows in (ready, delayed, (row[1:] for row in leased if inside(name, row[0])))]
    return {kind: OpenWork(*(min(count[kind], COUNTED_MAX) for count in counts)) for kind in KINDS}


async def others(tx: Tx, tenant_id: str, name: str, looked_at: dict[str, int]) -> tuple[int, int]:
    """How many schedules a namespace has, and how many workers that are heard of."""
    of: dict[str, Any] = {"tenant_id": tenant_id, "namespace": name, "most": COUNTED_MAX + 1}
    [[schedules]] = await tx.all("count_schedules_of_namespace", **of)
    [[workers, looked_at["workers"]]] = await tx.all("count_workers_of_namespace", now=tx.now, **of)
    looked_at["schedules"] = schedules
    return min(schedules, COUNTED_MAX), min(int(workers), COUNTED_MAX)


def inside(namespace: str, queue: str) -> bool:
    """Whether a queue, as work items know it, belongs to a namespace."""
    return apart(queue)[0] == namespace


def by_kind(rows: Iterable[Any]) -> dict[str, int]:
    """Counts by what the items need, which says what kind of work they are."""
    found = dict.fromkeys(KINDS, 0)
    for requires, count in rows:
        kind = {"workflow": "workflow_tasks", "activity": "activities"}.get(requires.partition(":")[0], "other_work")
        found[kind] += count
    return found


ENDPOINTS = [
    Endpoint(
        "POST",
        "/v1/namespaces",
        "createNamespace",
        "namespace.manage",
        "Make a namespace",
        command(CreateNamespace),
        reply=ShownNamespace,
        body=CreateNamespace,
        created=True,
        errors=("namespace/exists", "namespace/deleting", "limit/namespaces"),
    ),
    Endpoint(
        "GET",
        "/v1/namespaces",
        "listNamespaces",
        "read",
        "List namespaces",
        list_all,
        reply=Page,
        item=ShownNamespace,
        writes=False,
        query=(LIMIT, CURSOR),
    ),
    Endpoint(
        "GET",
        "/v1/namespaces/{name}",
        "getNamespace",
        "read",
        "One namespace",
        get,
        reply=ShownNamespace,
        writes=False,
        errors=("not-found",),
    ),
    Endpoint(
        "GET",
        "/v1/namespaces/{name}/stats",
        "getNamespaceStats",
        "read",
        "How a namespace stands",
        stats,
        reply=NamespaceStats,
        writes=False,
        errors=("not-found",),
    ),
    Endpoint(
        "DELETE",
        "/v1/namespaces/{name}",
        "deleteNamespace",
        "namespace.manage",
        "Close a namespace in which nothing runs, and take its rows away",
        delete,
        reply=ShownNamespace,
        status=202,
        errors=("not-found", "namespace/in-use"),
    ),
]
