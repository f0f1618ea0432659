"""How tokens are minted, rotated, used and revoked. Minting only goes downwards."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from service.errors import StateError, invalid, not_found
from service.kernel.audit import audit, audit_keys
from service.kernel.command import Rule
from service.kernel.limits import usage_keys, use
from service.kernel.principal import SYSTEM, SYSTEM_ROLES, TENANT_ROLES, Principal, Standing, network_of
from service.kernel.tables import Wanted
from service.kernel.view import View
from service.tenants.model import Tenant
from service.tokens.model import (
    DAY_MS,
    MINTED_BY,
    Minted,
    MintToken,
    NoteSupport,
    RevokeToken,
    RotateToken,
    ShownToken,
    Token,
    UpgradeVerifier,
    UseToken,
)


def mint_keys(command: MintToken, who: Principal, standing: Standing) -> Iterable[Wanted]:
    """The token that mints and the tenant (both must stand), the audit log, what the limit counts."""
    if who.token_id is not None:
        yield Token, (who.token_tenant, who.token_id)
    if who.tenant_id == command.tenant_id:
        yield from usage_keys(command.tenant_id, standing, "tokens")
    yield Tenant, (command.tenant_id,)
    yield from audit_keys(command.tenant_id)


def mint(view: View, command: MintToken) -> Minted:
    """A token of one's own tenant, with a role, queues and networks not beyond one's own, that does not outlive
    oneself. It does not begin before oneself either: whoever mints has begun."""
    refuse_wider(view.who, command.queues, command.networks)
    refuse_ended(view)
    tenant = view.get(Tenant, command.tenant_id)
    if tenant is None or tenant.status == "deleting":
        raise not_found("tenant", command.tenant_id)
    roles = SYSTEM_ROLES if command.tenant_id == SYSTEM else TENANT_ROLES
    if command.role not in roles:  # routes see to it, too: what a role permits, it permits whosever token it is
        kind = "system" if command.tenant_id == SYSTEM else "tenant"
        raise StateError(
            "auth/forbidden", f"A {kind} token has one of the roles {', '.join(roles)}; {command.role!r} is not."
        )
    if view.tenant_id == command.tenant_id:
        use(view, "tokens")
    token = Token(
        command.tenant_id, command.id, command.name, command.role, msgspec.json.encode(command.queues).decode(),
        command.verifier, command.reject_tag, view.now, view.who.token_id, end_of(view, command.days), None, None, None,
        None, None, None, None, msgspec.json.encode(command.networks).decode(), command.not_before,
    )  # fmt: skip
    refuse_lifeless(token)
    view.add(token)
    detail = {"role": token.role, "name": token.name, "expires_at": token.expires_at} | limited(token)
    audit(view, "token.minted", token.id, detail, token.tenant_id)
    return Minted(answer(token), command.secret)


def refuse_ended(view: View) -> None:
    """401 for a token that was ended while it waited to mint: it must leave none behind that nobody ends."""
    who = view.who
    parent = None if who.token_id is None else view.get(Token, who.token_tenant, who.token_id)
    if parent is not None and parent.revoked_at is not None:
        raise StateError("auth/revoked", "The token was revoked; use another one.")


def limited(token: Token) -> dict[str, Any]:
    """What limits a token, as the audit log tells it."""
    limits = {name: msgspec.json.decode(getattr(token, name)) for name in ("queues", "networks")}
    return {name: said for name, said in (limits | {"not_before": token.not_before}).items() if said}


def refuse_lifeless(token: Token) -> None:
    """422 for a token that would end before it begins."""
    if token.expires_at is not None and (token.not_before or 0) >= token.expires_at:
        raise invalid([("/not_before", f"the token would end before it begins: its end is {token.expires_at}")])


def refuse_wider(who: Principal, queues: Sequence[str], networks: Sequence[str]) -> None:
    """403 for a token that could touch queues that the caller's own cannot, or be used where it cannot."""
    if not who.may_grant(queues):
        said = ", ".join(who.queues)
        raise StateError(
            "auth/queue",
            f"A token for {', '.join(queues) or 'all queues'} would reach further than this one, which is for {said}.",
            queue=", ".join(queues),
            queues=list(who.queues),
        )
    if not who.may_open_to([*map(network_of, networks)]):
        own = [str(network) for network in who.networks]
        raise StateError(
            "auth/network",
            f"A token for {', '.join(networks) or 'all networks'} would work where this one does not; its networks are "
            f"{', '.join(own)}.",
            networks=own,
        )


def end_of(view: View, days: int | None) -> int | None:
    """When a new token ends: after `days`, and not after the one that mints it."""
    return earlier(None if days is None else view.now + days * DAY_MS, own_end(view))


def own_end(view: View) -> int | None:
    """When the caller's own token ends."""
    return None if view.who.token_id is None else view.standing.expires_at


def earlier(one: int | None, other: int | None) -> int | None:
    """The earlier of two ends; None is no end."""
    return one if other is None else other if one is None else min(one, other)


def token_keys(command: RotateToken | RevokeToken, who: Principal, standing: Standing) -> Iterable[Wanted]:
    """The token and its tenant's audit log; for a new one the token that asks for it as well, and what the limit
    counts."""
    if isinstance(command, RotateToken) and who.token_id is not None:
        yield Token, (who.token_tenant, who.token_id)
    if isinstance(command, RotateToken) and who.tenant_id == command.tenant_id:
        yield from usage_keys(command.tenant_id, standing, "tokens")
    yield Token, (command.tenant_id, command.id)
    yield from audit_keys(command.tenant_id)


def need(view: View, tenant_id: str, token_id: str) -> Token:
    """The token, or 404."""
    token = view.get(Token, tenant_id, token_id)
    if token is None:
        raise not_found("token", token_id)
    return token


def rotate(view: View, command: RotateToken) -> Minted:
    """A new token beside the old one; rotating again before it was used replaces it, so a lost answer harms nobody."""
    old = need(view, command.tenant_id, command.id)
    if old.revoked_at is not None:
        raise StateError("token/conflict", "The token was revoked; mint a new one.")
    refuse_ended(view)
    refuse_wider(view.who, *(msgspec.json.decode(globs, type=list[str]) for globs in (old.queues, old.networks)))
    # One more beside one that has its successor: a line of them would pass the limit. One that has ended has no place.
    lived, takes_place = old, over(view, old) or (old.replaces is not None and old.last_used_at is None)
    if old.replaced_by is not None:
        unused = view.get(Token, old.tenant_id, old.replaced_by)
        if unused is not None and unused.last_used_at is None:
            takes_place = takes_place and over(view, unused)
            # The old one's end was moved to its grace time and no longer says how long it was made for.
            lived = ended(view, msgspec.structs.replace(unused, replaces=None), {"rotated_to": command.new_id})
    asked = as_long_again(view, lived) if command.days is None else view.now + command.days * DAY_MS
    most = None if command.most is None else view.now + command.most * DAY_MS
    expires_at = earlier(earlier(asked, most), end_of_rotator(view, old, lived))
    new = msgspec.structs.replace(
        old, id=command.new_id, verifier=command.verifier, reject_tag=command.reject_tag, created_at=view.now,
        created_by=view.who.token_id, expires_at=expires_at, last_used_at=None, revoked_at=None, revoked_by=None,
        replaces=old.id, replaced_by=None, last_used_from=None, last_used_agent=None,
    )  # fmt: skip
    refuse_lifeless(new)
    if takes_place and view.tenant_id == old.tenant_id:
        use(view, "tokens")
    view.add(new)
    ends = view.now + command.grace_ms
    view.put(msgspec.structs.replace(old, replaced_by=new.id, expires_at=min(old.expires_at or ends, ends)))
    audit(view, "token.rotated", old.id, {"new": new.id, "grace_ms": command.grace_ms}, old.tenant_id)
    return Minted(answer(new), command.secret)


def over(view: View, token: Token) -> bool:
    """Whether a token has ended, by hand or by its time: then it takes none of the tenant's places."""
    return token.revoked_at is not None or (token.expires_at is not None and token.expires_at <= view.now)


def as_long_again(view: View, token: Token) -> int | None:
    """The end of a token that lives as long as `token` was made for."""
    return None if token.expires_at is None else view.now + token.expires_at - token.created_at


def end_of_rotator(view: View, old: Token, lived: Token) -> int | None:
    """The end that a rotated token must not pass: the caller's own.

    A token that rotates itself a second time has only its grace time left; its own end is then that of the token that
    it made the first time, which was held to it.
    """
    again = lived is not old and lived.created_by == old.id == view.who.token_id
    return lived.expires_at if again else own_end(view)


def revoke(view: View, command: RevokeToken) -> ShownToken:
    """End a token, and what descends from it where that is asked; one that has ended stays as it is."""
    token = need(view, command.tenant_id, command.id)
    for heir in descendants(view, token) if command.descendants else ():
        ended(view, heir, {"descends_from": token.id})
    return answer(ended(view, token, {"exposed": command.exposed}))


def ended(view: View, token: Token, detail: dict[str, Any]) -> Token:
    """The token, ended now if it was not yet."""
    if token.revoked_at is None:
        token = msgspec.structs.replace(token, revoked_at=view.now, revoked_by=view.who.actor)
        view.put(token)
        audit(view, "token.revoked", token.id, detail, token.tenant_id)
    return token


def descendants(view: View, token: Token) -> list[Token]:
    """The tokens of its tenant that it minted, that these minted, and so on, with those that replaced one of them."""
    found = {token.id: token}
    line = [token]
    while line:
        replaced = [heir.replaced_by for heir in line if heir is not token and heir.replaced_by is not None]
        minted = [(MINTED_BY, (token.tenant_id, parent.id)) for parent in line]
        view.expect(*minted, *((Token, (token.tenant_id, id)) for id in replaced))
        heirs = [heir for parent in line for heir in view.group(Token, MINTED_BY, token.tenant_id, parent.id)]
        heirs += [need(view, token.tenant_id, id) for id in replaced]
        new = {heir.id: heir for heir in heirs if heir.id not in found}
        found |= new
        line = list(new.values())
    return list(found.values())[1:]


def use_keys(command: UseToken | UpgradeVerifier, _who: Principal, _standing: Standing) -> Iterable[Wanted]:
    """The token."""
    yield Token, (command.tenant_id, command.id)


def used(view: View, command: UseToken) -> None:
    """Note the use; a rotated token's first use ends the one it replaces, in the same commit."""
    token = need(view, command.tenant_id, command.id)
    if token.replaces is not None and token.last_used_at is None:
        old = need(view, command.tenant_id, token.replaces)
        if old.revoked_at is None:
            view.put(msgspec.structs.replace(old, revoked_at=view.now, revoked_by=token.id))
            audit(view, "token.revoked", old.id, {"rotated_to": token.id}, old.tenant_id)
    if command.at > (token.last_used_at or 0):
        use = {"last_used_at": command.at, "last_used_from": command.source, "last_used_agent": command.agent}
        view.put(msgspec.structs.replace(token, **use))


def upgrade(view: View, command: UpgradeVerifier) -> None:
    """Another process may have been faster: what it stored stays."""
    token = need(view, command.tenant_id, command.id)
    if token.verifier == command.old:
        view.put(msgspec.structs.replace(token, verifier=command.new))


def support_log(who: Principal, standing: Standing) -> str:
    """Whose log tells of a support read: the tenant's own, or the system's while the tenant's rows are going."""
    return SYSTEM if standing.status == "deleting" else who.tenant_id


def support_keys(_command: NoteSupport, who: Principal, standing: Standing) -> Iterable[Wanted]:
    """The audit log that tells of it."""
    yield from audit_keys(support_log(who, standing))


def note_support(view: View, command: NoteSupport) -> None:
    """A line of the log, before anything is read."""
    detail = {"operation": command.operation, "reason": command.reason}
    audit(view, "support.read", view.tenant_id, detail, support_log(view.who, view.standing))


def answer(token: Token) -> ShownToken:
    """A token as it is answered."""
    return ShownToken(
        token.id, token.tenant_id or None, token.name, token.role, msgspec.json.decode(token.queues, type=list[str]),
        token.created_at, token.created_by, token.expires_at, token.last_used_at, token.revoked_at, token.revoked_by,
        token.replaces, token.replaced_by, token.last_used_from, token.last_used_agent,
        msgspec.json.decode(token.networks, type=list[str]), token.not_before,
    )  # fmt: skip


RULES = [
    Rule(MintToken, mint, mint_keys),
    Rule(RotateToken, rotate, token_keys),
    Rule(RevokeToken, revoke, token_keys, while_suspended=True),
    Rule(UseToken, used, use_keys, while_suspended=True),
    Rule(UpgradeVerifier, upgrade, use_keys, while_suspended=True),
    Rule(NoteSupport, note_support, support_keys, while_suspended=True),
]
