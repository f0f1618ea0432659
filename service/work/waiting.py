"""Claims over HTTP: now, or as soon as a commit brings something to claim."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any

import msgspec

from service.errors import invalid
from service.http.endpoint import Call
from service.kernel.command import Replayed
from service.kernel.principal import Principal
from service.work.claims import asked, fits, is_glob
from service.work.model import Claims, ClaimWork, queue_in
from service.work.rules_queues import not_yours

PATTERNS_MAX = 16
"""Queues of a claim that may be patterns: each is held against every queue of the tenant, and against whatever is
enqueued as long as the claim waits."""


async def claimed(call: Call, made: ClaimWork) -> Claims:
    """Claim; with `wait_ms`, wait for something to claim. Refuses queues that the token may not use, and too many
    patterns."""
    if (patterns := sum(map(is_glob, made.queues))) > PATTERNS_MAX:
        raise invalid([("/queues", f"{PATTERNS_MAX} of them may be patterns, and {patterns} are; name the queues")])
    for queue in (queue_in(made.namespace, name) for name in made.queues):
        if not call.who.may_use(queue):
            raise not_yours(call.who, queue)
    if not made.wait_ms:
        return await call.run(made)  # type: ignore[no-any-return]
    return await claim_waiting(call, made)


async def claimed_as(call: Call, made: ClaimWork, show: Callable[[Claims], Awaitable[Any]]) -> Any:
    """Claim, and answer as `show` has it; a request that is repeated has the same leases shown again."""
    found: Any = await claimed(call, made)
    if isinstance(found, Replayed):
        claims = msgspec.json.decode(found.body, type=Claims)
        return Replayed(found.status, msgspec.json.encode(await show(claims)))
    return await show(found)


async def claim_waiting(call: Call, made: ClaimWork) -> Claims:
    """Look, park until a commit puts something on one of the queues, look again, unless that commit has served the
    claim; until the time is up or the caller gone: nothing is leased to a worker that no longer listens."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + min(made.wait_ms, call.services.settings.wait_ms_max) / 1000
    request, gone = call.request(made), asyncio.ensure_future(call.gone())
    try:
        with call.services.wakes.park(
            f"work/{call.who.tenant_id}", waits_for(made, call.who), alike(made, call.who), request, made.max_items
        ) as place:
            while True:
                found: Claims = await call.services.kernel.submit(request)
                left = deadline - loop.time()
                if not isinstance(found, Claims) or found.items or left <= 0:
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
