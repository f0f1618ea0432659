"""Who a request comes from: from the Authorization header to a `Principal`.

The order of work: shape and CRC (no I/O) → the row by its public id → reject tag → match cache or argon2 → kind, end,
role → tenant. A token's tenant, role, queues and secret never change, so a proven header is remembered (under a key
of this process) as the principal it proved; whether it is revoked, expired or its tenant suspended is never remembered:
writes read it in their own transaction, other requests just before they are served.
"""

import asyncio
import contextlib
import hashlib
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import msgspec

from backends.protocol import Row, StateBackend, Tx
from service.errors import StateError, not_found
from service.kernel.command import Request
from service.kernel.principal import SYSTEM, Principal, Standing, internal
from service.kernel.rate import Rates
from service.kernel.run import Kernel, refuse_if_out
from service.kernel.standing import NOBODY, standings_of
from service.tokens.model import NoteSupport, Token, UpgradeVerifier, UseToken
from service.tokens.secret import Presented, parse
from service.tokens.verify import Verifier, needs_rehash

PROVEN_MAX = 10_000
PROVEN_IDLE_S = 300.0
USED_EVERY_MS = 300_000
LIMITS_MAX, LIMITS_MS = 10_000, 1_000
SUPPORT_MAX, SUPPORT_MS = 10_000, 60_000
TENANT_ID = re.compile(rb"[a-z0-9-]{1,63}")
SUPPORT = "support"
"""The role of a system administrator who names a tenant: it only reads."""


class Proven(msgspec.Struct):
    """A header that was proven, and when it was last seen (monotonic seconds)."""

    who: Principal
    seen: float


class Directory:
    """Authenticates requests. `authenticate` is what the server calls."""

    def __init__(self, backend: StateBackend, kernel: Kernel, verifier: Verifier, failures_per_minute: int) -> None:
        self.backend, self.kernel, self.verifier = backend, kernel, verifier
        self.rates = Rates()
        self._key = secrets.token_bytes(32)
        self._proven: OrderedDict[bytes, Proven] = OrderedDict()
        self._failures_per_minute = failures_per_minute
        self._failures: dict[str, tuple[int, int]] = {}
        self._limits: dict[str, tuple[int | None, int]] = {}
        self._asking: list[tuple[Principal, asyncio.Future[Standing]]] = []
        self._used: dict[tuple[str, str], int] = {}
        self._noted: dict[str, int] = {}
        self._upgrading: set[str] = set()
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
        else:
            who = await self._prove(scope, given)
            self._remember(digest, Proven(who, now))
        who = named_tenant(who, headers)
        if not who.may(endpoint.permit):
            raise StateError(
                "auth/forbidden",
                f"The role {who.role!r} does not hold the permission {endpoint.permit!r} that this operation needs.",
                permission=endpoint.permit,
                role=who.role,
            )
        await (self._count(who) if endpoint.writes else self.check(who))
        if who.role == SUPPORT:
            await self._tell_of_support(who, endpoint.operation)
        self._note_use(who)
        return who

    def _remember(self, digest: bytes, proven: Proven) -> None:
        self._proven[digest] = proven
        self._proven.move_to_end(digest)
        if len(self._proven) > PROVEN_MAX:
            self._proven.popitem(last=False)

    async def check(self, who: Principal) -> Standing:
        """The caller's standing as of now; refuses a token that has ended and a tenant past its rate."""
        standing = await self.stands(who)
        self.rates.take(who.tenant_id, self._limits[who.tenant_id][0], self.backend.now())
        return standing

    async def stands(self, who: Principal) -> Standing:
        """The caller's standing as of now, not counted as a request; refuses a token that has ended."""
        standing, now = await self._standing(who), self.backend.now()
        if standing is NOBODY and who.role == SUPPORT:
            raise not_found("tenant", who.tenant_id)
        refuse_if_out(who, standing, now)
        if len(self._limits) > LIMITS_MAX:
            self._limits.clear()
        self._limits[who.tenant_id] = standing.limit("requests_per_second"), now
        return standing

    async def _count(self, who: Principal) -> None:
        """Count a request whose standing its own transaction will read, by a limit that is at most a second old."""
        now = self.backend.now()
        known = self._limits.get(who.tenant_id)
        if known is None or now - known[1] >= LIMITS_MS:
            await self.stands(who)
            known = self._limits[who.tenant_id]
        self.rates.take(who.tenant_id, known[0], now)

    async def _standing(self, who: Principal) -> Standing:
        """Read it; callers that ask in the same turn of the loop share a statement."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Standing] = loop.create_future()
        self._asking.append((who, future))
        if len(self._asking) == 1:
            task = loop.create_task(self._answer())
            future.add_done_callback(lambda _, task=task: None)  # type: ignore[misc]
        return await future

    async def _answer(self) -> None:
        await asyncio.sleep(0)
        asking, self._asking = self._asking, []
        whos = [who for who, _ in asking]

        async def read(tx: Tx) -> list[Standing]:
            return await standings_of(tx, whos)

        try:
            standings = await self.backend.read(read)
        except Exception as error:
            for _, future in asking:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), standing in zip(asking, standings, strict=True):
            if not future.done():
                future.set_result(standing)

    async def _prove(self, scope: Any, given: bytes) -> Principal:
        """The slow way, for a header that was not seen lately."""
        source = (scope.get("client") or ("local",))[0]
        self._refuse_guessing(source)
        presented = bearer(given)
        row = await self._row(presented.id)
        token = None if row is None else Token(*row[:-1])
        kind = "system" if token is not None and token.tenant_id == SYSTEM else "tenant"
        if token is None or kind != presented.kind or not await self._matches(presented, token):
            self._count_failure(source)
            raise StateError("auth/invalid", "The token is not one of ours; check that it was copied whole.")
        who = principal_of(token)
        await self.stands(who)
        if token.replaces is not None and token.last_used_at is None:
            await self.kernel.run(who, UseToken(token.tenant_id, token.id, self.backend.now()))
        await self._upgrade(presented, token)
        return who

    async def _upgrade(self, presented: Presented, token: Token) -> None:
        """Store a verifier of today's cost for a secret that was just proven; if it cannot be now, a later proof does.

        One at a time for each token: whoever comes meanwhile goes on with the old verifier.
        """
        if token.id in self._upgrading or not needs_rehash(token.verifier, self.verifier.parameters):
            return
        self._upgrading.add(token.id)
        try:
            with contextlib.suppress(StateError):  # too much to do, or the store is away: the caller is proven anyway
                new = await self.verifier.derive(presented.secret)
                made = UpgradeVerifier(token.tenant_id, token.id, token.verifier, new)
                await self.kernel.run(internal(token.tenant_id), made)
        finally:
            self._upgrading.discard(token.id)

    async def _tell_of_support(self, who: Principal, operation: str) -> None:
        """Have a support read in the tenant's audit log before it is answered; one that cannot be told is refused.

        A line stands for a minute of reads of one token, tenant and reason in this process; those that come while it
        is being written wait for it.
        """
        key, now = (who.token_id, who.tenant_id, who.reason), self.backend.now()
        at, told = self._told.get(key, (0, None))
        if told is None or now - at >= SUPPORT_MS or failed(told):
            told = self.kernel.submit(Request(who, NoteSupport(operation, who.reason or "")))
            if len(self._told) >= SUPPORT_MAX:
                self._told.clear()
            self._told[key] = now, told
        await asyncio.shield(told)

    async def _matches(self, presented: Presented, token: Token) -> bool:
        return await self.verifier.matches(presented, token.reject_tag, token.verifier)

    async def _row(self, token_id: str) -> Row | None:
        async def read(tx: Tx) -> Row | None:
            return await tx.one("read_tokens_by_id", ids=[token_id])

        return await self.backend.read(read)

    async def revoke_proof(self, text: str) -> tuple[str, str] | None:
        """(tenant, id) of a token that is presented as found; None when it is not one of ours."""
        presented = parse(text)
        row = None if presented is None else await self._row(presented.id)
        if presented is None or row is None:
            return None
        token = Token(*row[:-1])
        return (token.tenant_id, token.id) if await self._matches(presented, token) else None

    def _refuse_guessing(self, source: str) -> None:
        minute, count = self._failures.get(source, (0, 0))
        now, passed = divmod(self.backend.now() // 1000, 60)
        if minute == now and count >= self._failures_per_minute:
            wait = 60 - passed
            raise StateError(
                "auth/throttled", "Too many tokens that are not ours came from here; wait.", retry_after=wait
            )

    def _count_failure(self, source: str) -> None:
        now = self.backend.now() // 60_000
        minute, count = self._failures.get(source, (now, 0))
        if len(self._failures) > 10_000:
            self._failures.clear()
        self._failures[source] = (now, count + 1 if minute == now else 1)

    def _note_use(self, who: Principal) -> None:
        """Remember that the token was used; written off the request path, at most every five minutes."""
        if who.token_id is None:
            return
        now = self.backend.now()
        if now - self._noted.get(who.token_id, 0) >= USED_EVERY_MS:
            self._noted[who.token_id] = now
            self._used[who.token_tenant, who.token_id] = now

    async def flush_uses(self) -> None:
        """Write the uses noted since the last time."""
        used, self._used = self._used, {}
        for (tenant_id, token_id), at in used.items():
            who = Principal(tenant_id, "system")
            with contextlib.suppress(StateError):  # the token went with its tenant; the others are still to be noted
                await self.kernel.run(who, UseToken(tenant_id, token_id, at))


def failed(future: asyncio.Future[Any]) -> bool:
    """Whether it ended without a result."""
    return future.done() and (future.cancelled() or future.exception() is not None)


def bearer(given: bytes) -> Presented:
    """The token of an Authorization header; 400 for one that cannot be read, 401 for one that is not a token."""
    scheme, _, text = given.decode("latin-1").partition(" ")
    if scheme.lower() != "bearer" or not text.strip():
        raise StateError("auth/malformed", "The Authorization header must read `Bearer hold…`.")
    presented = parse(text.strip())
    if presented is None:
        raise StateError("auth/invalid", "The token is not one of ours; check that it was copied whole.")
    return presented


def principal_of(token: Token) -> Principal:
    """The principal that a token stands for."""
    queues = tuple(msgspec.json.decode(token.queues, type=list[str]))
    return Principal(token.tenant_id, token.role, token.id, token.tenant_id, queues, token.expires_at)


def named_tenant(who: Principal, headers: Mapping[bytes, bytes]) -> Principal:
    """A system administrator who names a tenant and a reason reads it as `support`; nobody else may name one."""
    named = headers.get(b"holdfast-tenant")
    if named is None:
        return who
    reason = headers.get(b"holdfast-reason", b"").decode("latin-1").strip()
    if who.tenant_id != SYSTEM or who.role != "admin" or not reason or not reason.isprintable():
        raise StateError(
            "auth/forbidden",
            "Only a system administrator may name a tenant, in Holdfast-Tenant, and must say why in Holdfast-Reason.",
        )
    if not TENANT_ID.fullmatch(named):
        raise StateError("request/malformed", "Holdfast-Tenant must be a tenant's id: 1–63 of a–z 0–9 -.")
    return Principal(named.decode(), SUPPORT, who.token_id, SYSTEM, (), who.expires_at, reason)
