"""Tenants over HTTP."""

import re
from typing import Literal

import msgspec

from backends.protocol import Row, Tx
from service.errors import StateError, invalid, not_found
from service.http.endpoint import CURSOR, LIMIT, Call, Endpoint, Query, command, decode, fill
from service.http.lists import Page, listed, where
from service.kernel.filters import Field, Vocabulary
from service.kernel.limits import COUNTED
from service.kernel.principal import SYSTEM
from service.tenants.model import CreateTenant, DeleteTenant, Limits, ShownTenant, Tenant, UpdateTenant
from service.tenants.rules import answer

VOCABULARY = Vocabulary(
    fields=(
        Field("status", "t.status", "text", frozenset({"active", "suspended", "archived", "deleting"})),
        Field("created_at", "t.created_at", "time"),
    )
)
UPDATE = msgspec.json.Decoder(UpdateTenant)
VERSION = re.compile(rb'("?)([0-9]{1,15})\1')


class Usage(msgspec.Struct, frozen=True):
    """What a tenant has, beside what it may have. `near` names the limits of which four fifths are used."""

    tenant_id: str
    running_executions: int
    definitions: int
    ready_work_items: int
    tokens: int
    namespaces: int
    workers: int
    limits: Limits
    near: list[str]


async def find(call: Call) -> Tenant:
    """The tenant of the path: one's own, or any for the system's administrator."""
    tenant_id = call.path["id"]

    async def read(tx: Tx) -> Row | None:
        return await tx.one("read_tenant", tenant_id=tenant_id)

    own = call.who.tenant_id == tenant_id or call.who.tenant_id == SYSTEM
    row = await call.services.backend.read(read, tenants=call.who.reach) if own and tenant_id != SYSTEM else None
    if row is None:
        raise not_found("tenant", tenant_id)
    return Tenant(*row)


async def get(call: Call) -> ShownTenant:
    """One tenant."""
    return answer(await find(call))


async def list_all(call: Call) -> Page:
    """All tenants."""
    return await listed(
        call,
        "list_tenants",
        ("",),
        ("after",),
        lambda row: answer(Tenant(*row)),
        lambda row: (row[0],),
        where=where(None, VOCABULARY, status=call.query["status"]),
    )


async def update(call: Call) -> ShownTenant:
    """Change a tenant; `If-Match` is the expected version."""
    made = decode(UPDATE, call.body)
    fill(made, "id", call.path["id"])
    match = call.headers.get(b"if-match")
    if match is not None:
        version = version_of(match)
        if made.expected_version not in (None, version):
            said = f"If-Match says {version}, the body {made.expected_version}; say it once"
            raise invalid([("/expected_version", said)])
        made = msgspec.structs.replace(made, expected_version=version)
    return await call.run(made)  # type: ignore[no-any-return]


def version_of(match: bytes) -> int:
    """The version that If-Match names."""
    found = VERSION.fullmatch(match.strip())
    if found is None:
        raise StateError("request/malformed", 'If-Match is the tenant\'s version, such as "3".')
    return int(found[2])


async def delete(call: Call) -> ShownTenant:
    """Close a tenant and have its rows taken away."""
    return await call.run(DeleteTenant(call.path["id"]))  # type: ignore[no-any-return]


async def usage(call: Call) -> Usage:
    """What the tenant has of everything that can be limited."""
    tenant = await find(call)

    async def read(tx: Tx) -> Row | None:
        return await tx.one("read_usage", tenant_id=tenant.tenant_id, now=tx.now)

    counts = await call.scan(read) or (0, 0, 0, 0, 0, 0)
    limits = msgspec.json.decode(tenant.limits, type=Limits)
    near = [name for name, count in zip(COUNTED, counts, strict=True) if is_near(count, getattr(limits, name))]
    return Usage(tenant.tenant_id, *counts, limits, near)  # type: ignore[call-arg]  # as selected


def is_near(count: int, most: int | None) -> bool:
    """Whether a limit is as good as reached; one of none that nothing is held against is not."""
    return most is not None and count > 0 and 5 * count >= 4 * most


Statuses = Literal["active", "suspended", "archived", "deleting"]
ENDPOINTS = [
    Endpoint(
        "POST",
        "/v1/tenants",
        "createTenant",
        "tenant.manage",
        "Make a tenant",
        command(CreateTenant),
        reply=ShownTenant,
        body=CreateTenant,
        created=True,
        errors=("tenant/exists",),
    ),
    Endpoint(
        "GET",
        "/v1/tenants/{id}",
        "getTenant",
        "tenant.read",
        "One tenant",
        get,
        reply=ShownTenant,
        writes=False,
        errors=("not-found",),
    ),
    Endpoint(
        "GET",
        "/v1/tenants",
        "listTenants",
        "tenant.manage",
        "All tenants",
        list_all,
        reply=Page,
        item=ShownTenant,
        writes=False,
        query=(LIMIT, CURSOR, Query("status", Statuses, None, "Only this status.")),
    ),
    Endpoint(
        "PATCH",
        "/v1/tenants/{id}",
        "updateTenant",
        "tenant.manage",
        "Change a tenant",
        update,
        reply=ShownTenant,
        body=UpdateTenant,
        errors=("not-found", "version/mismatch", "tenant/archived"),
    ),
    Endpoint(
        "DELETE",
        "/v1/tenants/{id}",
        "deleteTenant",
        "tenant.manage",
        "Close a tenant and take its rows away",
        delete,
        reply=ShownTenant,
        errors=("not-found",),
        status=202,
    ),
    Endpoint(
        "GET",
        "/v1/tenants/{id}/usage",
        "getUsage",
        "tenant.read",
        "What a tenant has",
        usage,
        reply=Usage,
        writes=False,
        errors=("not-found",),
    ),
]
