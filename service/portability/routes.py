"""A tenant's export and import over HTTP."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec
from litestar.types import Receive, Scope, Send

from service.errors import StateError, not_found
from service.http.answer import encode
from service.http.endpoint import Call, Endpoint, decode
from service.http.stream import LINES, NDJSON, Stream, nothing
from service.kernel.principal import Principal
from service.portability.exports import Spool, exported, parts_of, room, there
from service.portability.imports import refuse_unfit, write_part
from service.portability.model import (
    AbandonImport,
    BeginImport,
    FinishImport,
    ImportPart,
    Manifest,
    ShownImport,
    TellExport,
)
from service.tenants.model import ShownTenant

MANIFEST, PART = msgspec.json.Decoder(Manifest), msgspec.json.Decoder(ImportPart)


async def export(call: Call) -> Stream:
    """Everything that the tenant has but its tokens, as of one moment: the manifest, then a line for each row.

    An administrator names the tenant and a reason in `Holdfast-Tenant` and `Holdfast-Reason`, as for every read of a
    tenant. The answer has a `Content-Length`: what is shorter was cut off.
    """
    tenant_id = call.path["id"]
    if tenant_id != call.who.tenant_id:
        raise not_found("tenant", tenant_id)
    refuse_queues(call.who)
    if call.scope["method"] == "HEAD":
        await call.services.backend.read(partial(there, tenant_id=tenant_id), tenants=call.who.reach)
        return Stream(nothing())
    spool, stands = room(call.services.extra, tenant_id), partial(call.services.tokens.stands, call.who)
    try:
        await call.run(TellExport())
        head = encode(await exported(call.services.backend, tenant_id, spool)) + b"\n"
        await stands()  # it takes its time to be made, and to be sent
    except BaseException:
        spool.file.close()
        raise
    return Export(head, spool, stands)


def refuse_queues(who: Principal) -> None:
    """403 for a token that is limited to queues."""
    if who.queues:
        said = f"An export holds the items of all queues; the token may use {', '.join(who.queues)}."
        raise StateError("auth/queue", said, queues=list(who.queues))


class Export(Stream):
    """An export that is sent. However that ends, its place is free then."""

    def __init__(self, head: bytes, spool: Spool, stands: Callable[[], Awaitable[Any]]) -> None:
        self.spool = spool
        length = (b"content-length", b"%d" % (len(head) + spool.file.tell()))
        super().__init__(parts_of(head, spool, stands), (*LINES, length))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.spool.file:
            await super().__call__(scope, receive, send)


async def begin(call: Call) -> ShownImport:
    """Begin an import with the manifest of an export; nobody can use the tenant until it is finished."""
    manifest: Manifest = decode(MANIFEST, call.body)
    refuse_unfit(manifest)
    return await call.run(BeginImport(manifest))  # type: ignore[no-any-return]


async def write(call: Call) -> ShownImport:
    """Write the next part; the same part again changes nothing. An import waits a quarter of an hour for its next."""
    return await write_part(call.services.backend, call.who, call.path["id"], decode(PART, call.body))


async def finish(call: Call) -> ShownTenant:
    """Open the tenant as it was exported, if all of it has come and is what the manifest says."""
    return await call.run(FinishImport(call.path["id"]))  # type: ignore[no-any-return]


async def abandon(call: Call) -> ShownImport:
    """Give an import up: the tenant's rows go, and its id is free again."""
    return await call.run(AbandonImport(call.path["id"]))  # type: ignore[no-any-return]


ENDPOINTS = [
    Endpoint(
        "GET",
        "/v1/tenants/{id}/export",
        "exportTenant",
        "tenant.export",
        "A tenant as lines of JSON",
        export,
        reply=dict[str, list[Any]],
        writes=False,
        errors=("not-found", "auth/queue", "tenant/archived", "store/full"),
        media=NDJSON,
    ),
    Endpoint(
        "POST",
        "/v1/imports",
        "beginImport",
        "tenant.manage",
        "Begin to import a tenant",
        begin,
        reply=ShownImport,
        body=Manifest,
        created=True,
        errors=("tenant/exists", "import/unfit"),
    ),
    Endpoint(
        "POST",
        "/v1/imports/{id}/parts",
        "writeImportPart",
        "tenant.manage",
        "Write the next part of an import",
        write,
        reply=ShownImport,
        body=ImportPart,
        writes=False,
        errors=("not-found", "import/part", "import/ended", "import/unfit", "store/outcome-unknown", "store/full"),
    ),
    Endpoint(
        "POST",
        "/v1/imports/{id}/finish",
        "finishImport",
        "tenant.manage",
        "Open an imported tenant",
        finish,
        reply=ShownTenant,
        errors=("not-found", "import/ended", "import/unfit"),
    ),
    Endpoint(
        "DELETE",
        "/v1/imports/{id}",
        "abandonImport",
        "tenant.manage",
        "Give an import up",
        abandon,
        reply=ShownImport,
        status=202,
        errors=("not-found",),
    ),
]
