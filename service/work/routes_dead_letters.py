"""Dead letters over HTTP."""

from typing import Any

import msgspec

from service.errors import not_found
from service.http.endpoint import CURSOR, LIMIT, Call, Endpoint, Query, command, decode
from service.http.lists import Page, listed, where
from service.work.model import DiscardDead, Redrive, RedriveDead, Redriving, RequeueDead, Settled, StartRedrive
from service.work.reach import reached
from service.work.redrive import count
from service.work.routes_items import FILTER, OF_EXECUTION, OF_QUEUE, ShownItem, get, show
from service.work.rules_queues import not_yours
from service.work.vocabulary import VOCABULARY

LIMITS = ("limit/ready-work-items", "limit/payload-bytes")
REDRIVE = msgspec.json.Decoder(RedriveDead)


async def list_dead(call: Call) -> Page:
    """Dead letters, the oldest first."""
    query = call.query
    names = ("queue", "execution_id", "error_type")
    condition = where(query["filter"], VOCABULARY, **{name: query[name] for name in names})
    return await listed(
        call,
        "list_dead_letters",
        (0, ""),
        ("at", "after"),
        show,
        lambda row: (row[22], row[0]),
        where=await reached(call.services.backend, call.who, condition),
        scan=True,
        bulky=True,
        tenant_id=call.who.tenant_id,
    )


async def get_dead(call: Call) -> ShownItem:
    """One dead letter."""
    item = await get(call)
    if item.status != "dead":
        raise not_found("dead letter", call.path["id"])
    return item


async def redrive(call: Call) -> Any:
    """Count the dead letters that match and, unless it is a dry run, begin to requeue them."""
    asked = decode(REDRIVE, call.body)
    if not call.who.may_grant([asked.queue or "*"]):  # a job has no token: the queue that it is for bounds it
        raise not_yours(call.who, asked.queue or "*")
    detail = Redrive(asked.filter, asked.queue, asked.error_type, asked.rate_per_second)
    if asked.dry_run:
        await call.services.tokens.stands(call.who)
    async with call.services.scans.of(call.who.tenant_id):
        total = await count(call.services.backend, call.who.tenant_id, detail)
    if asked.dry_run:
        return Redriving(total, None, False)
    return await call.run(StartRedrive(detail, total))


async def discard(call: Call) -> Settled:
    """Put a dead letter away."""
    return await call.run(DiscardDead(call.path["id"]))  # type: ignore[no-any-return]


OF_TYPE = Query("error_type", str, None, "Only those whose last error has this type.")

DEAD_LETTERS = [
    Endpoint(
        "GET",
        "/v1/dead-letters",
        "listDeadLetters",
        "read",
        "List dead letters",
        list_dead,
        reply=Page,
        item=ShownItem,
        writes=False,
        query=(LIMIT, CURSOR, FILTER, OF_QUEUE, OF_EXECUTION, OF_TYPE),
    ),
    Endpoint(
        "GET",
        "/v1/dead-letters/{id}",
        "getDeadLetter",
        "read",
        "One dead letter",
        get_dead,
        reply=ShownItem,
        writes=False,
        errors=("not-found",),
    ),
    Endpoint(
        "POST",
        "/v1/dead-letters/{id}/requeue",
        "requeueDeadLetter",
        "work.operate",
        "Give a dead letter another life",
        command(RequeueDead, id="id"),
        reply=Settled,
        body=RequeueDead,
        bare=True,
        errors=("not-found", "dead-letter/settled", "execution/terminal", "work/conflict", *LIMITS),
    ),
    Endpoint(
        "POST",
        "/v1/dead-letters:redrive",
        "redriveDeadLetters",
        "work.operate",
        "Requeue all dead letters that match",
        redrive,
        reply=Redriving,
        body=RedriveDead,
        created=True,
        errors=("request/filter", "request/too-slow", "auth/queue"),
    ),
    Endpoint(
        "DELETE",
        "/v1/dead-letters/{id}",
        "discardDeadLetter",
        "work.operate",
        "Put a dead letter away",
        discard,
        reply=Settled,
        errors=("not-found", "dead-letter/settled"),
    ),
]
