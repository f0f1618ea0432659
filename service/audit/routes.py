"""The audit log over HTTP: a list, an export, a verification. Always the caller's own chain, the system's for it."""

from collections.abc import AsyncIterator
from typing import Annotated

import msgspec

from backends.protocol import Tx
from service.audit.model import FORMAT, Manifest, Place, ShownEntry, VerifiedChain, show
from service.errors import StateError
from service.http.answer import encode
from service.http.endpoint import CURSOR, LIMIT, Call, Endpoint, Query
from service.http.lists import Page, listed
from service.http.stream import NDJSON, Stream
from service.kernel.audit import AuditEntry, Chain
from service.kernel.chain import ends_of, followed, page_of


async def list_all(call: Call) -> Page:
    """The caller's tenant's chain, in order (the system's, for the system), from where its kept part begins."""
    return await listed(
        call,
        "list_audit",
        (0,),
        ("after",),
        lambda row: show(AuditEntry(*row)),
        lambda row: (row[1],),
        tenant_id=call.who.tenant_id,
    )


async def export(call: Call) -> Stream:
    """The caller's chain as lines of JSON, the manifest first; `after` continues an export that ended there.

    An export that ends before the line that its manifest names in `through` was cut off.
    """
    tenant_id, after = call.who.tenant_id, call.query["after"]

    async def read(tx: Tx) -> Manifest:
        ends = await ends_of(tx, tenant_id)
        through = Place(*(ends.head or (ends.start.sequence, ends.start.hash)))
        start = Place(ends.start.sequence, ends.start.hash)
        if after > start.sequence:
            found = await tx.all("load_audit", rows=[(tenant_id, after)])
            start = Place(after, AuditEntry(*found[0]).hash) if found else through
        return Manifest(FORMAT, tenant_id or None, start, through, tx.now)

    return Stream(lines(call, await call.services.backend.read(read, tenants=call.who.reach)))


async def lines(call: Call, manifest: Manifest) -> AsyncIterator[bytes]:
    """The manifest and the lines that it announces, page by page: lines never change, so no snapshot is held. To a
    token that has ended meanwhile no further page is sent."""
    tenant_id, at = call.who.tenant_id, manifest.after.sequence
    yield encode(manifest) + b"\n"
    while at < manifest.through.sequence:

        async def read(tx: Tx, after: int = at) -> list[AuditEntry]:
            return await page_of(tx, tenant_id, after)

        found = await call.services.backend.read(read, tenants=call.who.reach)
        page = [one for one in found if one.sequence <= manifest.through.sequence]
        if not page or page[0].sequence != at + 1:
            raise StateError("not-found", f"The line {at + 1} of the audit log is gone; export again.")
        at = page[-1].sequence
        await call.services.tokens.stands(call.who)
        yield b"".join(encode(show(one)) + b"\n" for one in page)


async def verify(call: Call) -> VerifiedChain:
    """Follow the caller's chain from where its kept part begins to its head, in one snapshot."""

    async def read(tx: Tx) -> tuple[Place, Chain]:
        start = (await ends_of(tx, call.who.tenant_id)).start
        return Place(start.sequence, start.hash), await followed(tx, call.who.tenant_id)

    start, chain = await call.scan(read)
    place = Place(chain.sequence, chain.hash)
    return VerifiedChain(chain.fault is None, chain.lines, start, place, chain.fault)


AFTER = Query("after", Annotated[int, msgspec.Meta(ge=0, le=2**62)], 0, "Only lines after this sequence.")
ENDPOINTS = [
    Endpoint(
        "GET",
        "/v1/audit",
        "listAudit",
        "audit.read",
        "The audit log",
        list_all,
        reply=Page,
        item=ShownEntry,
        writes=False,
        query=(LIMIT, CURSOR),
    ),
    Endpoint(
        "GET",
        "/v1/audit:export",
        "exportAudit",
        "audit.read",
        "The whole audit log, as lines of JSON",
        export,
        reply=ShownEntry,
        writes=False,
        query=(AFTER,),
        media=NDJSON,
    ),
    Endpoint(
        "POST",
        "/v1/audit:verify",
        "verifyAudit",
        "audit.read",
        "Is the audit log whole?",
        verify,
        reply=VerifiedChain,
        writes=False,
    ),
]
