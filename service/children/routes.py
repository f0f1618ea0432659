"""Children over HTTP."""

from backends.protocol import Row, Tx
from service.children.model import Child, ListedChild, StartChild
from service.errors import not_found
from service.http.endpoint import CURSOR, LIMIT, Call, Endpoint, command
from service.http.lists import Page, listed


async def list_all(call: Call) -> Page:
    """The children that a run has started, in the order of its counter."""
    tenant, parent = call.who.tenant_id, call.path["id"]

    async def read(tx: Tx) -> Row | None:
        return await tx.one("read_sequence", tenant_id=tenant, execution_id=parent)

    if await call.services.backend.read(read, tenants=call.who.reach) is None:
        raise not_found("execution", parent)
    return await listed(
        call, "list_children", (-1,), ("seq",), lambda row: ListedChild(*row), lambda row: (row[0],),
        tenant_id=tenant, execution_id=parent,
    )  # fmt: skip


ENDPOINTS = [
    Endpoint(
        "POST",
        "/v1/executions/{id}/children",
        "startChild",
        "execution.write",
        "Start a child of a run",
        command(StartChild, parent_id="id"),
        reply=Child,
        body=StartChild,
        created=True,
        errors=(
            "not-found", "auth/queue", "execution/terminal", "workflow/nondeterminism", "limit/running-executions",
            "limit/payload-bytes", "limit/events-per-execution",
        ),
    ),
    Endpoint(
        "GET",
        "/v1/executions/{id}/children",
        "listChildren",
        "read",
        "The children of a run",
        list_all,
        reply=Page,
        item=ListedChild,
        writes=False,
        query=(LIMIT, CURSOR),
        errors=("not-found",),
    ),
]  # fmt: skip
