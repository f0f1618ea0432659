"""Who a request comes from: from the Authorization header to a `Principal`.

The order of work: shape and CRC (no I/O) → the row by its public id → reject tag → match cache or argon2 → kind, end,
beginning, network, role → tenant. A token's tenant, role, limits and secret never change, so a proven header is
remembered (under a key of this process) as the principal it proved; whether it is revoked, expired or its tenant
suspended is never remembered: writes read it in their own transaction, other requests just before they are served.

A flood of tokens that are not ours meets cheap steps only, and none that a right token would be kept from: look-ups of
all callers share one read at a time (those of a source that floods wait for each other a little), a wrong secret ends
at the tag, and the limit of failures per source decides between 401 and 429 when the refusal is certain. So nobody's
guesses lock anybody out.
"""

import asyncio
import contextlib
import hashlib
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec
import structlog

from backends.protocol import EVERY, Row, StateBackend, Tx
from service.errors import StateError, not_found
from service.kernel.command import Origin, Request
from service.kernel.gcra import Rate, rate_of
from service.kernel.principal import (
    PERMITS,
    SYSTEM,
    SYSTEM_ROLES,
    TENANT_ROLES,
    Principal,
    Standing,
    internal,
    network_of,
)
from service.kernel.rate import Limiter
from service.kernel.run import Kernel, refuse_if_out
from service.kernel.standing import NOBODY, kept_at, standings_of
from service.kernel.together import Together
from service.tokens.model import DAY_MS, NoteSupport, Token, UpgradeVerifier
from service.tokens.secret import Presented, mask, parse
from service.tokens.sources import Sources
from service.tokens.uses import Uses
from service.tokens.verify import Verifier, needs_rehash

log = structlog.get_logger()
PROVEN_MAX = 10_000
PROVEN_IDLE_S = 300.0
LIMITS_MAX, LIMITS_MS = 10_000, 1_000
ENDS_MAX, ENDS_MS = 10_000, 60_000
STANDING_LANES = 1_000
FLOOD_REST_S = 0.025
"""How long the look-ups of sources that flood wait for each other, so that a read serves many."""
BUSY = "auth/busy", "Too many tokens wait to be looked up; try again."
SUPPORT_MAX, SUPPORT_MS = 10_000, 60_000
ELSEWHERE_MAX, ELSEWHERE_MS = 10_000, 60_000
REASON_MAX = 512
EXPIRES = b"holdfast-token-expires"
"""The header of answers to a token that ends soon: when (UTC)."""
TENANT_ID = re.compile(rb"[a-z0-9-]{1,63}")
SUPPORT = "support"
"""The role of a system administrator who names a tenant: it only reads."""


class Proven(msgspec.Struct):
    """A header that was proven, and when it was last seen (monotonic seconds)."""

    who: Principal
    seen: float


class Directory:
    """Authenticates requests. `authenticate` is what the server calls."""

    def __init__(
        self,
        backend: StateBackend,
        kernel: Kernel,
        verifier: Verifier,
        sources: Sources,
        rates: Limiter,
        warning_days: int,
    ) -> None:
        self.backend, self.kernel, self.verifier, self.sources = backend, kernel, verifier, sources
        self.rates = rates
        self.uses = Uses(kernel, sources)
        self._key = secrets.token_bytes(32)
        self._proven: OrderedDict[bytes, Proven] = OrderedDict()
        self._limits: dict[str, tuple[Rate | None, int]] = {}
        self._warning_ms = warning_days * DAY_MS
        self._ends: dict[str, tuple[int | None, int]] = {}
        self._standings = Together(self._read_standings, lanes=STANDING_LANES, busy=BUSY)
        self._rows = Together(self._read_rows, lanes=1, busy=BUSY)
        self._rows_of_floods = Together(self._read_rows, lanes=1, rest=partial(asyncio.sleep, FLOOD_REST_S), busy=BUSY)
        self._upgrading: set[str] = set()
        self._elsewhere: dict[str, int] = {}
        self._told: dict[tuple[str | None, str, str | None], tuple[int, asyncio.Future[Any]]] = {}

    async def authenticate(self, scope: Any, headers: Mapping[bytes, bytes], endpoint: Any) -> Principal:
        """The caller, proven and permitted; raises the 401, 403, 429 or 503 that says why not."""
        given = headers.get(b"authorization")
        if given is None:
            raise StateError("auth/missing", "Send a token: `Authorization: Bearer hold…`.")
        digest = hashlib.blake2b(given, key=self._key, digest_size=16).digest()
        proven = self._proven.get(digest)
        now = time.monotonic()
        if proven is not None and now - proven.seen < PROVEN_IDLE_S:
            proven.seen = now
            who = proven.who
            if (who.networks or who.not_before is not None) and (refusal := self._outside(who, scope)) is not None:
                await self.stands(who)  # whose token has ended learns that first
                raise refusal
        else:
            who = await self._prove(scope, given, headers)
            self._remember(digest, Proven(who, now))
        who = named_tenant(who, headers)
        if not who.may(endpoint.permit):
            await self.check(who)  # whose token has ended, or who asks too often, learns that first
            raise forbidden(who, endpoint.permit)
        await (self._count(who) if endpoint.writes else self.check(who))
        if who.role == SUPPORT:
            await self._tell_of_support(who, endpoint.operation, scope)
        self.uses.note(who, self.backend.now(), scope, headers)
        return who

    def _remember(self, digest: bytes, proven: Proven) -> None:
        self._proven[digest] = proven
        self._proven.move_to_end(digest)
        if len(self._proven) > PROVEN_MAX:
            self._proven.popitem(last=False)

    async def check(self, who: Principal) -> Standing:
        """The caller's standing as of now; refuses a token that has ended and a tenant past its rate."""
        standing = await self.stands(who)
        if (rate := self._limits[who.tenant_id][0]) is not None:
            await self.rates.take(who.tenant_id, rate, self.backend.now())
        return standing

    async def stands(self, who: Principal) -> Standing:
        """The caller's standing as of now, not counted as a request; refuses a token that has ended."""
        standing, now = await self._standing(who), self.backend.now()
        if standing is NOBODY and who.role == SUPPORT:
            raise not_found("tenant", who.tenant_id)
        refuse_if_out(who, standing, now)
        self._learn(who, standing, now)
        return standing

    def _learn(self, who: Principal, standing: Standing, now: int) -> None:
        """Keep what the next requests may go by for a while: the tenant's rate, and when the token ends."""
        if len(self._limits) > LIMITS_MAX:
            self._limits.clear()
        self._limits[who.tenant_id] = rate_of(standing), now
        if who.token_id is not None:
            if len(self._ends) > ENDS_MAX:
                self._ends.clear()
            self._ends[who.token_id] = standing.expires_at, now

    async def _count(self, who: Principal) -> None:
        """Count a request whose standing its own transaction will read, by a limit that is at most a second old."""
        now = self.backend.now()
        known, ends = self._limits.get(who.tenant_id), self._ends.get(who.token_id or "")
        if known is None or ends is None or old(now, known[1], LIMITS_MS) or old(now, ends[1], ENDS_MS):
            await self.stands(who)
            known = self._limits[who.tenant_id]
        if known[0] is not None:
            await self.rates.take(who.tenant_id, known[0], now)

    def warning(self, who: Principal) -> tuple[bytes, bytes] | None:
        """The header that tells the holder of a token that it ends soon, as known a minute ago at the latest."""
        ends = self._ends.get(who.token_id or "")
        if ends is None or ends[0] is None or ends[0] - self.backend.now() >= self._warning_ms:
            return None
        return EXPIRES, written(ends[0]).encode()

    async def _standing(self, who: Principal) -> Standing:
        return await self._standings.ask(who)

    async def _read_standings(self, whos: list[Principal]) -> list[Standing]:
        async def read(tx: Tx) -> list[Standing]:
            return await standings_of(tx, whos)

        return await self.backend.read(read, tenants=kept_at(whos))

    async def _prove(self, scope: Any, given: bytes, headers: Mapping[bytes, bytes]) -> Principal:
        """The slow way, for a header that was not seen lately."""
        presented = bearer(given)
        source = self.sources.of(scope)
        token = await self._proven_token(presented, source)
        if token is None:
            self.sources.fail(source, self.backend.now())
            raise StateError("auth/invalid", "The token is not one of ours; check that it was copied whole.")
        who = principal_of(token)
        await self.stands(who)
        if (refusal := self._outside(who, scope)) is not None:
            raise refusal
        if token.replaces is not None and token.last_used_at is None:
            await self.kernel.run(who, self.uses.use(token.tenant_id, token.id, self.backend.now(), scope, headers))
        await self._upgrade(presented, token)
        return who

    def _outside(self, who: Principal, scope: Any) -> StateError | None:
        """The refusal of a token before its time, or from where it may not be used: perhaps by a thief, who is not told
        from where it may."""
        if who.not_before is not None and self.backend.now() < who.not_before:
            said = f"The token works from {written(who.not_before)} on; wait, or use another one."
            return StateError("auth/not-yet", said, not_before=who.not_before)
        if who.may_come_from(self.sources.address(scope)):
            return None
        source = self.sources.of(scope)
        self._warn_of(who, source)
        said = f"The token may not be used from {source}; its networks are others."
        return StateError("auth/network", said, source=source)

    def _warn_of(self, who: Principal, source: str) -> None:
        """A line in the log of a token that was used from elsewhere; of each, one a minute."""
        token_id, now = who.token_id or "", self.backend.now()
        if old(now, self._elsewhere.get(token_id, -ELSEWHERE_MS), ELSEWHERE_MS):
            if len(self._elsewhere) >= ELSEWHERE_MAX:
                self._elsewhere.clear()
            self._elsewhere[token_id] = now
            tenant = who.token_tenant or "system"
            log.warning("a token was used from elsewhere", token=token_id, tenant=tenant, source=source)

    async def _upgrade(self, presented: Presented, token: Token) -> None:
        """Store a verifier of today's cost for a secret that was just proven; if it cannot be now, a later proof does.

        One at a time for each token: whoever comes meanwhile goes on with the old verifier.
        """
        if token.id in self._upgrading or not needs_rehash(token.verifier, self.verifier.parameters):
            return
        self._upgrading.add(token.id)
        try:
            with contextlib.suppress(StateError):  # too much to do, or the store is away: the caller is proven anyway
                new = await self.verifier.derive(presented.secret, [f"tenant {token.tenant_id}"])
                made = UpgradeVerifier(token.tenant_id, token.id, token.verifier, new)
                await self.kernel.run(internal(token.tenant_id), made)
        finally:
            self._upgrading.discard(token.id)

    async def _tell_of_support(self, who: Principal, operation: str, scope: Any) -> None:
        """Have a support read in the tenant's audit log before it is answered; one that cannot be told is refused.

        A line stands for a minute of reads of one token, tenant and reason in this process; those that come while it
        is being written wait for it.
        """
        key, now = (who.token_id, who.tenant_id, who.reason), self.backend.now()
        at, told = self._told.get(key, (0, None))
        if told is None or old(now, at, SUPPORT_MS) or failed(told):
            note, origin = NoteSupport(operation, who.reason or ""), Origin(lambda: self.sources.of(scope))
            told = self.kernel.submit(Request(who, note, origin=origin))
            if len(self._told) >= SUPPORT_MAX:
                self._told.clear()
            self._told[key] = now, told
        await asyncio.shield(told)

    async def _proven_token(self, presented: Presented, source: str) -> Token | None:
        """The token that is presented, if there is one and the secret is its own; None otherwise, not saying why."""
        rows = self._rows_of_floods if self.sources.floods(source, self.backend.now()) else self._rows
        row = await rows.ask(presented.id)
        token = None if row is None else Token(*row)
        if token is None or presented.kind != ("system" if token.tenant_id == SYSTEM else "tenant"):
            self.verifier.refuse(presented)
            return None
        whom = source, f"tenant {token.tenant_id}"
        return token if await self.verifier.matches(presented, token.reject_tag, token.verifier, whom) else None

    async def _read_rows(self, token_ids: list[str]) -> list[Row | None]:
        async def read(tx: Tx) -> list[Row]:
            return await tx.all("read_tokens_by_id", ids=sorted(set(token_ids)))

        found = {row[1]: row for row in await self.backend.read(read, tenants=EVERY)}
        return [found.get(token_id) for token_id in token_ids]

    async def exposed(self, scope: Any, text: str) -> tuple[str, str] | None:
        """(tenant, id) of a token that somebody reports; None when it is not one of ours, which counts as a failure."""
        presented, source = parse(text), self.sources.of(scope)
        token = None if presented is None else await self._proven_token(presented, source)
        if token is None:
            self.sources.fail(source, self.backend.now())
            return None
        return token.tenant_id, token.id

    async def close(self) -> None:
        """Write down the last uses, and prove nothing more."""
        await self.uses.close()
        self.verifier.close()


def old(now: int, then: int, after_ms: int) -> bool:
    """Whether what was learnt at `then` is too old to go by; what comes from the future is: the clock was set back."""
    return not 0 <= now - then < after_ms


def written(at: int) -> str:
    """A time in milliseconds as people and headers write it, to the second (UTC)."""
    return datetime.fromtimestamp(at // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def failed(future: asyncio.Future[Any]) -> bool:
    """Whether it ended without a result."""
    return future.done() and (future.cancelled() or future.exception() is not None)


def forbidden(who: Principal, permit: str) -> StateError:
    """403 for a role, with those that would do; an administrator is told how to read a tenant."""
    held = [role for role in (*TENANT_ROLES, *SYSTEM_ROLES) if role in PERMITS[permit]]
    said = f"The role {who.role!r} does not hold the permission {permit!r} that this operation needs"
    said += f"; it is held by: {', '.join(held)}."
    if who.role == "admin" and SUPPORT in PERMITS[permit]:
        said += " An administrator names the tenant in Holdfast-Tenant, and in Holdfast-Reason why."
    return StateError("auth/forbidden", said, permission=permit, role=who.role)


def bearer(given: bytes) -> Presented:
    """The token of an Authorization header; 400 for one that cannot be read, 401 for one that is not a token."""
    scheme, _, text = given.decode("latin-1").partition(" ")
    if scheme.lower() != "bearer" or not text.strip(" "):
        raise StateError("auth/malformed", "The Authorization header must read `Bearer hold…`.")
    presented = parse(text.strip(" "))
    if presented is None:
        raise StateError("auth/invalid", "The token is not one of ours; check that it was copied whole.")
    return presented


def principal_of(token: Token) -> Principal:
    """The principal that a token stands for."""
    queues = tuple(msgspec.json.decode(token.queues, type=list[str]))
    networks = tuple(map(network_of, msgspec.json.decode(token.networks, type=list[str])))
    return Principal(
        token.tenant_id, token.role, token.id, token.tenant_id, queues, token.expires_at, None, networks,
        token.not_before,
    )  # fmt: skip


def named_tenant(who: Principal, headers: Mapping[bytes, bytes]) -> Principal:
    """A system administrator who names a tenant and a reason reads it as `support`; nobody else may name one."""
    named = headers.get(b"holdfast-tenant")
    if named is None:
        return who
    reason = headers.get(b"holdfast-reason", b"").decode("latin-1").strip()
    readable = reason.isprintable() and 0 < len(reason) <= REASON_MAX
    if who.tenant_id != SYSTEM or who.role != "admin" or not readable:
        raise StateError(
            "auth/forbidden",
            "Only a system administrator may name a tenant, in Holdfast-Tenant, and must say why in Holdfast-Reason.",
        )
    if not TENANT_ID.fullmatch(named):
        raise StateError("request/malformed", "Holdfast-Tenant must be a tenant's id: 1–63 of a–z 0–9 -.")
    return Principal(named.decode(), SUPPORT, who.token_id, SYSTEM, who.queues, who.expires_at, mask(reason))
