"""The first token of a store: minted by the service itself, shown once, to whoever has the store in hand."""

import uuid
from typing import Any

from backends.protocol import Row, Tx
from service.kernel.principal import SYSTEM, internal
from service.tokens.model import MintToken
from service.tokens.rules import earlier
from service.tokens.secret import Presented, mint, reject_tag

TURN = "bootstrap"
TURN_MS = 10_000


async def has_admin(services: Any) -> bool:
    """Whether a system administrator's token was ever minted."""

    async def read(tx: Tx) -> Row | None:
        return await tx.one("count_bootstrap")

    row = await services.backend.read(read, tenants=[SYSTEM])
    return bool(row and row[0])


async def first_admin(services: Any, given: tuple[str, Presented] | None = None) -> str | None:
    """The full text of the first system administrator's token, minted now (or stored, if it was `given`).

    None where there is one already. Of several processes that start at once on one store, one gets the token.
    """
    if await has_admin(services) or not await take_turn(services) or await has_admin(services):
        return None
    return await bootstrap(services, given=given)


async def take_turn(services: Any) -> bool:
    """Whether this process is the one to mint the first token; the turn passes on if it dies over it."""

    async def take(tx: Tx) -> int:
        holder, end = uuid.uuid4().hex, tx.now + TURN_MS
        row = await tx.one("read_sweep", tenant_id=SYSTEM, name=TURN)
        before = 0 if row is None else row[1]
        return await tx.run(
            "take_sweep", tenant_id=SYSTEM, name=TURN, holder=holder, epoch=before + 1, was_epoch=before, now=tx.now,
            expires_at=end,
        )  # fmt: skip

    return bool(await services.backend.write(take, tenants=[SYSTEM]) == 1)


async def bootstrap(
    services: Any,
    *,
    tenant_id: str = SYSTEM,
    role: str = "admin",
    name: str = "bootstrap",
    days: int | None = 90,
    given: tuple[str, Presented] | None = None,
) -> str:
    """Mint a token without a caller (or store the one that was `given`); its full text.

    Needs the store in hand, no token. It lives no longer than tokens may here.
    """
    days = earlier(days, services.settings.token_days_max or None)
    text, parts = given or mint("system" if tenant_id == SYSTEM else "tenant")
    verifier = await services.tokens.verifier.derive(parts.secret)
    tag = reject_tag(parts.id, parts.secret)
    made = MintToken(tenant_id, parts.id, name, role, (), verifier, tag, days, text)
    await services.kernel.run(internal(tenant_id), made)
    return text
