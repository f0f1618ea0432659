"""Chains over HTTP, and how an execution ends, which of one that went on in others its last run tells."""

import asyncio
from typing import Annotated, Any

import msgspec

from backends.protocol import Row, Tx
from service.chains.model import ContinueRun, ListedRun, Next, Outcome, ResetRun
from service.errors import not_found
from service.executions.model import ENDED, channel_of_end
from service.http.endpoint import CURSOR, LIMIT, Call, Endpoint, Query, command
from service.http.lists import Page, listed
from service.kernel.raw import shown
from service.kernel.wake import Place, of_channel

ERRORS = (
    "not-found", "auth/queue", "execution/terminal", "execution/conflict", "execution/transition",
    "limit/payload-bytes", "limit/running-executions", "limit/events-per-execution",
)  # fmt: skip
EVER = 2**62


def runs_of(chain: Row) -> dict[str, Any]:
    """What tells the runs of a chain from those of another whose first run has the same id."""
    first_id, began, namesake = chain
    return {"first_id": first_id, "since": 0 if namesake else began or 0, "until": began if namesake else EVER}


async def list_all(call: Call) -> Page:
    """The runs of the chain that a run belongs to, in their order."""
    tenant, id = call.who.tenant_id, call.path["id"]

    async def read(tx: Tx) -> Row | None:
        return await tx.one("read_chain", tenant_id=tenant, execution_id=id)

    row = await call.services.backend.read(read, tenants=call.who.reach)
    if row is None:
        raise not_found("workflow run", id)
    return await listed(
        call, "list_chain", (0,), ("place",), lambda row: ListedRun(*row), lambda row: (row[0],),
        tenant_id=tenant, **runs_of(row),
    )  # fmt: skip


async def outcome(call: Call) -> Outcome:
    """How it ended, or stands when the time is up: the last of the runs that it went on in, whichever was asked for."""
    found = await last_run(call)
    if found.ended or not call.query["wait_ms"]:
        return found
    wakes, wait_ms = call.services.wakes, min(call.query["wait_ms"], call.services.settings.wait_ms_max)
    deadline, gone = asyncio.get_running_loop().time() + wait_ms / 1000, asyncio.ensure_future(call.gone())
    try:
        goes_on = True
        while goes_on and not found.ended:
            with wakes.park(*of_channel(channel_of_end(call.who.tenant_id, found.execution_id))) as place:
                found, goes_on = await watched(call, found.execution_id, place, deadline, gone)
    finally:
        gone.cancel()
    await call.services.tokens.stands(call.who)  # it may have ended meanwhile
    return found


async def watched(
    call: Call, id: str, place: Place, deadline: float, gone: "asyncio.Future[None]"
) -> tuple[Outcome, bool]:
    """The outcome once a run has ended, or goes on in another, or may not be waited for any longer; and whether it
    may."""
    while True:
        found = await last_run(call)
        left = deadline - asyncio.get_running_loop().time()
        if found.ended or found.execution_id != id:
            return found, True
        if left <= 0 or not await place.rest(left, gone):
            return found, False


async def last_run(call: Call) -> Outcome:
    """The last run of a chain as it stands; or the execution itself."""
    whose = {"tenant_id": call.who.tenant_id, "execution_id": call.path["id"]}

    async def read(tx: Tx) -> Row | None:
        chain = await tx.one("read_chain", **whose)
        if chain is None:
            return await tx.one("read_outcome", **whose)
        return await tx.one("read_outcome_of_chain", tenant_id=whose["tenant_id"], **runs_of(chain))

    row = await call.services.backend.read(read, tenants=call.who.reach)
    if row is None:
        raise not_found("execution", call.path["id"])
    id, status, result, error, sequence, completed_at = row
    return Outcome(id, status, status in ENDED, shown(result), shown(error), sequence, completed_at)


WAIT = Annotated[int, msgspec.Meta(ge=0, le=60_000)]
ENDPOINTS = [
    Endpoint(
        "GET",
        "/v1/executions/{id}/outcome",
        "getOutcome",
        "read",
        "How an execution ended, waiting for that if need be",
        outcome,
        reply=Outcome,
        writes=False,
        query=(Query("wait_ms", WAIT, 0, "How long the answer may wait for the end, in milliseconds."),),
        errors=("not-found",),
    ),
    Endpoint(
        "POST",
        "/v1/executions/{id}/continue-as-new",
        "continueExecution",
        "execution.write",
        "End a run and go on in a new one",
        command(ContinueRun, execution_id="id"),
        reply=Next,
        body=ContinueRun,
        bare=True,
        created=True,
        errors=(*ERRORS, "workflow/unseen"),
    ),
    Endpoint(
        "POST",
        "/v1/executions/{id}/reset",
        "resetExecution",
        "execution.operate",
        "Begin a new run from a prefix of the log",
        command(ResetRun, execution_id="id"),
        reply=Next,
        body=ResetRun,
        created=True,
        errors=(*ERRORS, "namespace/deleting", "limit/state-bytes"),
    ),
    Endpoint(
        "GET",
        "/v1/executions/{id}/chain",
        "listChain",
        "read",
        "The runs that a run is linked to, in their order",
        list_all,
        reply=Page,
        item=ListedRun,
        writes=False,
        query=(LIMIT, CURSOR),
        errors=("not-found",),
    ),
]
