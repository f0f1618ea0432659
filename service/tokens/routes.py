"""Tokens over HTTP."""

from collections.abc import Sequence
from typing import Annotated

import msgspec

from backends.protocol import Row, Tx
from service.errors import StateError, invalid, not_found
from service.http.endpoint import CURSOR, LIMIT, PUBLIC, Call, Endpoint, Query, decode
from service.http.lists import ALL, Page, listed
from service.kernel.command import Origin, Request
from service.kernel.principal import SYSTEM, SYSTEM_ROLES, Principal, internal, network_of
from service.tokens.model import (
    DAY_MS,
    ExposedBody,
    MintBody,
    Minted,
    MintToken,
    RevokeToken,
    RotateBody,
    RotateToken,
    ShownToken,
    Token,
)
from service.tokens.rules import answer, earlier
from service.tokens.secret import mint, reject_tag

MINT, ROTATE, EXPOSED = (msgspec.json.Decoder(kind) for kind in (MintBody, RotateBody, ExposedBody))


async def mint_token(call: Call) -> Minted:
    """Mint a token downwards: one's own tenant, a role not above one's own."""
    body: MintBody = decode(MINT, call.body)
    tenant = target(call.who, body)
    if body.never_expires and body.expires_in_days is not None:
        raise invalid([("/expires_in_days", "a token that never expires has none; leave one of the two out")])
    refuse_longer(call, body.expires_in_days, body.never_expires)
    usual = earlier(call.services.settings.token_days_default, longest(call))
    days = None if body.never_expires else body.expires_in_days or usual
    networks = kept(body.networks)
    text, new_id, verifier, tag = await drawn(call, tenant)
    made = MintToken(
        tenant, new_id, body.name, body.role, tuple(body.queues), verifier, tag, days, text, networks, body.not_before
    )
    return await call.run(made)  # type: ignore[no-any-return]


def kept(asked: Sequence[str]) -> tuple[str, ...]:
    """Networks as they are kept, each once; 422 with every one that is none."""
    found, errors = [], []
    for index, text in enumerate(asked):
        try:
            found.append(str(network_of(text)))
        except ValueError:
            said = f"{text!r} is no network: write an address, or a network by its first one, such as 10.0.0.0/8"
            errors.append((f"/networks/{index}", said))
    if errors:
        raise invalid(errors)
    return tuple(dict.fromkeys(found))


def longest(call: Call) -> int | None:
    """How many days a token may live here; None where there is no bound."""
    return call.services.settings.token_days_max or None


def refuse_longer(call: Call, days: int | None, never: bool = False) -> None:
    """422 for a life beyond what the settings allow."""
    most = longest(call)
    if most is not None and (never or (days or 0) > most):
        asked = "one that never ends" if never else f"{days} days"
        place = "/never_expires" if never else "/expires_in_days"
        refusal = invalid([(place, f"a token may live {most} days here, and {asked} was asked for; ask for less")])
        refusal.facts["limit"] = most
        raise refusal


async def drawn(call: Call, tenant: str) -> tuple[str, str, str, bytes]:
    """A new secret for a caller in good standing: the full text, the id, the verifier and the reject tag."""
    await call.services.tokens.stands(call.who)
    text, parts = mint("system" if tenant == SYSTEM else "tenant")
    verifier = await call.services.tokens.verifier.derive(parts.secret, [f"tenant {call.who.tenant_id}"])
    return text, parts.id, verifier, reject_tag(parts.id, parts.secret)


def target(who: Principal, body: MintBody) -> str:
    """The tenant that the new token is of; 403 for minting sideways or upwards."""
    if who.tenant_id == SYSTEM:
        if body.role in SYSTEM_ROLES:
            if body.tenant_id is not None:
                raise StateError("auth/forbidden", f"The role {body.role!r} is the system's; it belongs to no tenant.")
            return SYSTEM
        return body.tenant_id or "default"
    if body.tenant_id not in (None, who.tenant_id) or body.role in SYSTEM_ROLES:
        raise StateError("auth/forbidden", "A tenant's token mints tokens of its own tenant, with a tenant's role.")
    return who.tenant_id


def owner_of(call: Call) -> str:
    """The tenant whose tokens the caller manages; the system names one with `?tenant_id=`."""
    asked = call.query.get("tenant_id")
    if call.who.tenant_id == SYSTEM:
        return SYSTEM if asked in (None, "system") else str(asked)
    if asked not in (None, call.who.tenant_id):
        raise StateError("auth/forbidden", "Only the system's administrator may name another tenant.")
    return call.who.tenant_id


async def rotate(call: Call) -> Minted:
    """A new token beside the old one."""
    body: RotateBody = decode(ROTATE, call.body or b"{}")
    refuse_longer(call, body.expires_in_days)
    tenant = owner_of(call)
    text, new_id, verifier, tag = await drawn(call, tenant)
    made = RotateToken(
        tenant, call.path["id"], new_id, verifier, tag, body.grace_seconds * 1000, body.expires_in_days, text,
        longest(call),
    )  # fmt: skip
    return await call.run(made)  # type: ignore[no-any-return]


async def list_all(call: Call) -> Page:
    """The tenant's tokens."""
    within = call.query["expiring_within"]
    condition = ALL
    if within is not None:
        now = call.services.backend.now()
        ends = {"now": now, "ends": now + within * DAY_MS}
        condition = ("(k.revoked_at IS NULL AND k.expires_at > :now AND k.expires_at <= :ends)", ends)
    return await listed(
        call,
        "list_tokens",
        (-1, ""),
        ("at", "id"),
        lambda row: answer(Token(*row)),
        lambda row: (row[7], row[1]),
        where=condition,
        tenant_id=owner_of(call),
    )


async def find(call: Call, tenant: str, token_id: str) -> ShownToken:
    """One token, or 404."""

    async def read(tx: Tx) -> Row | None:
        return await tx.one("read_token", tenant_id=tenant, id=token_id)

    row = await call.services.backend.read(read, tenants=call.who.reach)
    if row is None:
        raise not_found("token", token_id)
    return answer(Token(*row))


async def get(call: Call) -> ShownToken:
    """One token."""
    return await find(call, owner_of(call), call.path["id"])


async def get_self(call: Call) -> ShownToken:
    """The caller's own token, as it stands."""
    return await find(call, call.who.token_tenant, call.who.token_id or "")


async def revoke(call: Call) -> ShownToken:
    """End a token, and what it minted if that is asked."""
    made = RevokeToken(owner_of(call), call.path["id"], descendants=call.query["descendants"])
    return await call.run(made)  # type: ignore[no-any-return]


async def revoke_self(call: Call) -> ShownToken:
    """End the caller's own token."""
    made = RevokeToken(call.who.token_tenant, call.who.token_id or "")
    return await call.run(made)  # type: ignore[no-any-return]


class Exposed(msgspec.Struct, frozen=True):
    """The answer to a report: the same whether or not the token was one of ours."""

    accepted: bool = True


async def revoke_exposed(call: Call) -> Exposed:
    """End a token that was found in the open; having it is the proof."""
    body: ExposedBody = decode(EXPOSED, call.body)
    found = await call.services.tokens.exposed(call.scope, body.token)
    if found is not None:
        made = RevokeToken(found[0], found[1], True)
        await call.services.kernel.submit(Request(internal(found[0]), made, origin=Origin(call.source)))
    return Exposed()


OF_TENANT = Query(
    "tenant_id", str, None, "For the system's administrator: whose tokens; `system` for the system's own."
)
DESCENDANTS = Query(
    "descendants", bool, False, "End also the tokens of the same tenant that it minted, and those that these minted."
)
WITHIN = Query(
    "expiring_within", Annotated[int, msgspec.Meta(ge=0, le=3650)], None, "Only those that end within so many days."
)

ENDPOINTS = [
    Endpoint(
        "POST",
        "/v1/tokens",
        "mintToken",
        "token.manage",
        "Mint a token; the secret is shown once",
        mint_token,
        reply=Minted,
        body=MintBody,
        created=True,
        errors=("not-found", "auth/forbidden", "auth/queue", "limit/tokens", "auth/busy"),
    ),
    Endpoint(
        "GET",
        "/v1/tokens",
        "listTokens",
        "token.manage",
        "List tokens",
        list_all,
        reply=Page,
        item=ShownToken,
        writes=False,
        query=(LIMIT, CURSOR, OF_TENANT, WITHIN),
    ),
    Endpoint(
        "GET",
        "/v1/tokens/self",
        "getOwnToken",
        "token.self",
        "The token of this request",
        get_self,
        reply=ShownToken,
        writes=False,
    ),
    Endpoint(
        "DELETE",
        "/v1/tokens/self",
        "revokeOwnToken",
        "token.self",
        "End the token of this request",
        revoke_self,
        reply=ShownToken,
    ),
    Endpoint(
        "POST",
        "/v1/tokens:revoke-exposed",
        "revokeExposedToken",
        PUBLIC,
        "End a token that was found in the open",
        revoke_exposed,
        reply=Exposed,
        body=ExposedBody,
        errors=("auth/throttled", "auth/busy", "store/outcome-unknown", "store/full"),
    ),
    Endpoint(
        "GET",
        "/v1/tokens/{id}",
        "getToken",
        "token.manage",
        "One token",
        get,
        reply=ShownToken,
        writes=False,
        query=(OF_TENANT,),
        errors=("not-found",),
    ),
    Endpoint(
        "POST",
        "/v1/tokens/{id}/rotate",
        "rotateToken",
        "token.manage",
        "Replace a token in two phases",
        rotate,
        reply=Minted,
        body=RotateBody,
        bare=True,
        created=True,
        query=(OF_TENANT,),
        errors=("not-found", "auth/queue", "token/conflict", "limit/tokens", "auth/busy"),
    ),
    Endpoint(
        "DELETE",
        "/v1/tokens/{id}",
        "revokeToken",
        "token.manage",
        "End a token",
        revoke,
        reply=ShownToken,
        query=(OF_TENANT, DESCENDANTS),
        errors=("not-found",),
    ),
]
