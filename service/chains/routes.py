"""Chains over HTTP."""

from backends.protocol import Row, Tx
from service.chains.model import ContinueRun, ListedRun, Next, ResetRun
from service.errors import not_found
from service.http.endpoint import CURSOR, LIMIT, Call, Endpoint, command
from service.http.lists import Page, listed

ERRORS = (
    "not-found", "auth/queue", "execution/terminal", "execution/conflict", "execution/transition",
    "limit/payload-bytes", "limit/running-executions", "limit/events-per-execution",
)  # fmt: skip
EVER = 2**62


async def list_all(call: Call) -> Page:
    """The runs of the chain that a run belongs to, in their order."""
    tenant, id = call.who.tenant_id, call.path["id"]

    async def read(tx: Tx) -> Row | None:
        return await tx.one("read_chain", tenant_id=tenant, execution_id=id)

    row = await call.services.backend.read(read, tenants=call.who.reach)
    if row is None:
        raise not_found("workflow run", id)
    first_id, began, namesake = row
    return await listed(
        call, "list_chain", (0,), ("place",), lambda row: ListedRun(*row), lambda row: (row[0],),
        tenant_id=tenant, first_id=first_id, since=0 if namesake else began or 0, until=began if namesake else EVER,
    )  # fmt: skip


ENDPOINTS = [
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
