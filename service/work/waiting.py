"""Claims over HTTP: now, or as soon as a commit brings something to claim; perhaps with what the worker settles first.

A worker's loop is one request so: it hands in what it has done and is handed what comes next, by one commit.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from backends.errors import Unavailable
from service.errors import StateError, invalid
from service.http.answer import encode
from service.http.batch import all_of, entry, place, refuse_reused, requests, unnamed
from service.http.endpoint import Call
from service.kernel.command import Replayed, Request
from service.kernel.principal import Principal
from service.work.claims import asked, fits, is_glob
from service.work.model import Claims, ClaimWork, queue_in
from service.work.rules_queues import not_yours

PATTERNS_MAX = 16
"""Queues of a claim that may be patterns: each is held against every queue of the tenant, and against whatever is
enqueued as long as the claim waits."""
UNREAD = (
    "What was claimed is leased, and what was to be settled has been tried, but the store is away or busy and the "
    "answer cannot be read. Send the same again: under its Idempotency-Key it shows these leases, else they run out."
)
Show = Callable[[Claims, list[Any]], Awaitable[Any]]
"""Makes the answer of what was claimed, and of what came of the settling."""


def settlements(settle: Sequence[msgspec.Struct]) -> list[Any]:
    """The commands that a claim settles by: each entry says one of its fields. In the place of one that names no item
    stands why it is refused."""
    if not settle:
        return []
    made = [[one for name in said.__struct_fields__ if (one := getattr(said, name)) is not None] for said in settle]
    if wrong := [at for at, one in enumerate(made) if len(one) != 1]:
        names = ", ".join(f"`{name}`" for name in settle[0].__struct_fields__)
        raise invalid([(f"/settle/{at}", f"say one of {names}") for at in wrong])
    return [one if getattr(one, "id", one) else unnamed("id") for (one,) in made]


class Settling:
    """What a claim settles, in front of it and mostly in the same transaction: each for itself, as in a batch."""

    def __init__(self, call: Call, asked: Sequence[Request | StateError]) -> None:
        self._futures = [place(call, one) for one in asked]
        self._outcomes: list[Any] | None = None

    async def outcomes(self) -> list[Any]:
        """What came of each."""
        if self._outcomes is None:
            self._outcomes = await all_of(self._futures)
        return self._outcomes

    async def went_well(self) -> bool:
        """Whether nothing was refused: else the worker may still hold something, and had better hear of it at once."""
        return await self.done() == len(self._futures)

    async def done(self) -> int:
        """How many are settled."""
        return sum(not isinstance(outcome, BaseException) for outcome in await self.outcomes())

    async def beside(self, refusal: StateError) -> StateError:
        """A refusal of the claim, which tells if anything was settled all the same."""
        if not (done := await self.done()):
            return refusal
        said = f"This is of the claim alone: of what it settles {done} of {len(self._futures)} are done."
        return StateError(
            refusal.code, f"{refusal.detail} {said} Send the same again to hear of each.", **refusal.facts
        )

    def __enter__(self) -> "Settling":
        return self

    def __exit__(self, *_: object) -> None:
        for future in self._futures if self._outcomes is None else ():  # the caller went away: nobody asks any more
            future.cancel() or future.cancelled() or future.exception()


async def claimed(call: Call, made: ClaimWork, show: Show, settle: Sequence[Any] = ()) -> Any:
    """Settle what the worker has done, claim, and answer as `show` has it, given what was claimed and what came of the
    settling; a request that is repeated has the same leases shown again.

    With `wait_ms`, wait for something to claim, unless anything could not be settled. Of `settle` a `StateError` says
    why it was refused beforehand. Refuses queues that the token may not use, and too many patterns.
    """
    refuse_queues(call.who, made)
    request, settled = call.request(made), list[Any]()
    if settle:
        found, settled = await having_settled(call, made, request, settle)
    elif made.wait_ms:
        found = await claim_waiting(call, made, request)
    else:
        found = await call.services.kernel.submit(request)
    if isinstance(found, Replayed):
        claims = msgspec.json.decode(found.body, type=Claims)
        return Replayed(found.status, encode(await told(show, claims, settled)))
    return await told(show, found, settled)


async def having_settled(call: Call, made: ClaimWork, request: Request, settle: Sequence[Any]) -> tuple[Any, list[Any]]:
    """What was claimed behind the settling, and what came of that."""
    asked, behind = requests(call, settle), replace(request, behind=True)
    await refuse_reused(call, [*asked, request])
    with Settling(call, asked) as settling:
        try:
            if made.wait_ms:
                found = await claim_waiting(call, made, request, behind, settling)
            else:
                found = await call.services.kernel.submit(behind)
        except StateError as refusal:
            raise await settling.beside(refusal) from None
        return found, [entry(outcome) for outcome in await settling.outcomes()]


async def told(show: Show, found: Claims, settled: list[Any]) -> Any:
    """The answer. Where what it must show cannot be read, what was claimed is leased all the same."""
    try:
        return await show(found, settled)
    except Unavailable as error:
        raise StateError("store/unavailable", UNREAD, retry_after=1) from error


def refuse_queues(who: Principal, made: ClaimWork) -> None:
    """Refuse queues that the token may not use, and too many patterns."""
    if (patterns := sum(map(is_glob, made.queues))) > PATTERNS_MAX:
        raise invalid([("/queues", f"{PATTERNS_MAX} of them may be patterns, and {patterns} are; name the queues")])
    for queue in (queue_in(made.namespace, name) for name in made.queues):
        if not who.may_use(queue):
            raise not_yours(who, queue)


async def claim_waiting(
    call: Call, made: ClaimWork, request: Request, first: Request | None = None, settling: Settling | None = None
) -> Any:
    """Look, park until a commit puts something on one of the queues, look again, unless that commit has served the
    claim; until the time is up or the caller gone: nothing is leased to a worker that no longer listens. The `first`
    look may be behind what is being settled, of which nothing may be refused if it is to wait."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + min(made.wait_ms, call.services.settings.wait_ms_max) / 1000
    gone = asyncio.ensure_future(call.gone())
    try:
        with call.services.wakes.park(
            f"work/{call.who.tenant_id}", waits_for(made, call.who), alike(made, call.who), request, made.max_items
        ) as place:
            look = first or request
            while True:
                found: Claims = await call.services.kernel.submit(look)
                left, look = deadline - loop.time(), request
                if not isinstance(found, Claims) or found.items or left <= 0:
                    return found
                if settling is not None and not await settling.went_well():
                    return found
                goes_on = await place.rest(left, gone)
                if place.answer is not None or not goes_on:
                    return place.answer or found
    finally:
        gone.cancel()


def alike(made: ClaimWork, who: Principal) -> Hashable:
    """What claims have in common that wait for the same."""
    return made.namespace, tuple(sorted(made.queues)), tuple(sorted(made.capabilities)), who.queues


def waits_for(made: ClaimWork, who: Principal) -> Callable[[str], bool]:
    """Whether a wake-up is of a queue that the claim asks for, and of items that it can take."""
    offered, asks_for = frozenset(made.capabilities), asked(made)

    def accepts(told: str) -> bool:
        _, _, queue, requires = told.split("/", 3)
        return asks_for(queue) and fits(requires, offered) and who.may_use(queue)

    return accepts
