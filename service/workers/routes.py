"""Workers over HTTP."""

import re
from typing import Any, Literal

import msgspec

from backends.protocol import Row, Tx, Where
from service.errors import StateError, not_found
from service.http.endpoint import CURSOR, LIMIT, Call, Endpoint, Query, decode, fill
from service.http.lists import ALL, Page, listed
from service.workers.model import (
    ID_PATTERN,
    LEASES_SHOWN,
    BeatWorker,
    Heard,
    HeldLease,
    ListedWorker,
    RegisterWorker,
    ShownWorker,
)
from service.workers.rules import served

REGISTER = msgspec.json.Decoder(RegisterWorker)
SERVES = "EXISTS (SELECT 1 FROM worker_queues q WHERE q.tenant_id = k.tenant_id AND q.worker_id = k.id AND {condition})"
Statuses = Literal["alive", "lost"]


async def register(call: Call) -> Any:
    """Say who works; the body takes the place of what was said before."""
    if re.fullmatch(ID_PATTERN, call.path["id"]) is None:
        raise StateError(
            "request/malformed", "A worker's id is 1–128 of A–Z a–z 0–9 _ . : @ ~ -; a letter, digit or _ first."
        )
    made = decode(REGISTER, call.body)
    fill(made, "id", call.path["id"])
    return await call.run(made)


async def beat(call: Call) -> Any:
    """A sign of life."""
    return await call.run(BeatWorker(call.path["id"]))


async def get(call: Call) -> ShownWorker:
    """One worker and what it holds, as far as the token's queues reach."""
    tenant, id = call.who.tenant_id, call.path["id"]

    async def read(tx: Tx) -> tuple[Row | None, list[Row], int]:
        row = await tx.one("read_worker", tenant_id=tenant, id=id)
        where = await within(tx, call, "leased_queues", "w.queue", worker_id=id)
        limit = LEASES_SHOWN + 1
        return row, await tx.all("leases_of_worker", where=where, tenant_id=tenant, worker_id=id, limit=limit), tx.now

    row, leases, now = await call.scan(read)
    if row is None or not any(call.who.may_use(queue) for queue in queues_of(row)):
        raise not_found("worker", id)
    held = [HeldLease(*lease) for lease in leases[:LEASES_SHOWN]]
    return ShownWorker(*msgspec.structs.astuple(show(row, now)), held, len(leases) > LEASES_SHOWN)  # type: ignore[call-arg]  # the same, and these


def queues_of(row: Row) -> set[str]:
    """The queues of a worker's row, as work items know them."""
    return served(row[1], msgspec.json.decode(row[3], type=list[str]))


def show(row: Row, now: int) -> ListedWorker:
    """A stored row as it is answered."""
    status = "alive" if row[11] > now else "lost"
    texts = [msgspec.Raw(text.encode()) for text in row[3:7]]
    return ListedWorker(*row[:3], *texts, row[7], status, *row[8:12])  # type: ignore[call-arg]  # as selected


async def within(tx: Tx, call: Call, statement: str, column: str, **of: Any) -> Where:
    """That `column` is a queue that the token may use, of those that `statement` lists; nothing for a token without
    globs. The queues are matched here, as everywhere else."""
    if not call.who.queues:
        return ALL
    rows = await tx.all(statement, tenant_id=call.who.tenant_id, **of)
    return f"({column} IN :reached[])", {"reached": [row[0] for row in rows if call.who.may_use(row[0])]}


async def list_all(call: Call) -> Page:
    """Workers by id, filtered."""
    now, query = call.services.backend.now(), call.query

    async def read(tx: Tx) -> Where:
        return await within(tx, call, "queues_served", "q.queue")

    conditions, params = ["(1 = 1)"], dict[str, Any]()
    for name in ("namespace", "build_id"):
        if query[name] is not None:
            conditions.append(f"k.{name} = :w_{name}")
            params[f"w_{name}"] = query[name]
    if query["status"] is not None:
        conditions.append("k.expires_at > :w_now" if query["status"] == "alive" else "k.expires_at <= :w_now")
        params["w_now"] = now
    if query["queue"] is not None:
        conditions.append(SERVES.format(condition="q.queue = :w_queue"))
        [params["w_queue"]] = served(query["namespace"] or "main", [query["queue"]])
    if call.who.queues:
        condition, more = await call.services.backend.read(read, tenants=call.who.reach)
        conditions.append(SERVES.format(condition=condition))
        params |= more
    return await listed(
        call,
        "list_workers",
        ("",),
        ("after",),
        lambda row: show(row, now),
        lambda row: (row[0],),
        where=(f"({' AND '.join(conditions)})", params),
        tenant_id=call.who.tenant_id,
    )


ENDPOINTS = [
    Endpoint(
        "PUT",
        "/v1/workers/{id}",
        "registerWorker",
        "work.claim",
        "Say who works, on what",
        register,
        reply=Heard,
        body=RegisterWorker,
        created=True,
        errors=("auth/queue", "namespace/unknown", "namespace/deleting", "limit/workers"),
    ),
    Endpoint(
        "POST",
        "/v1/workers/{id}/heartbeat",
        "heartbeatWorker",
        "work.claim",
        "Be heard of",
        beat,
        reply=Heard,
        errors=("not-found",),
    ),
    Endpoint(
        "GET",
        "/v1/workers",
        "listWorkers",
        "read",
        "List workers",
        list_all,
        reply=Page,
        item=ListedWorker,
        writes=False,
        query=(
            LIMIT,
            CURSOR,
            Query("namespace", str, None, "Only this namespace."),
            Query("queue", str, None, "Only those that serve this queue of the namespace, or of `main`."),
            Query("build_id", str, None, "Only this build."),
            Query("status", Statuses, None, "Only those that are heard of, or only those that are not."),
        ),
    ),
    Endpoint(
        "GET",
        "/v1/workers/{id}",
        "getWorker",
        "work.read",
        "A worker and what it holds",
        get,
        reply=ShownWorker,
        writes=False,
        errors=("not-found",),
    ),
]
