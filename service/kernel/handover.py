"""Handed over: who waits for what a lone command brings has the request decided in the same transaction.

A worker that a commit wakes looks again, and a second commit leases what it finds. Taken along, it is answered by the
first. Nothing else is different: it is decided once the batch is written, as if it had come next; what it is not given,
wake-ups tell of as ever; and if anything goes wrong, the batch is tried again without company.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

from backends.protocol import Tenants
from service.errors import StateError
from service.kernel.command import PutOff, Request
from service.kernel.wake import Parked, Wakes
from service.kernel.working_set import WorkingSet

ALONG_MAX = 64
"""How many go along: who sent the command waits with them."""


class Along:
    """Who goes along with one batch: held back from other wake-ups until `serve`, or until the `with` ends, which wakes
    those who were given nothing."""

    def __init__(self, wakes: Wakes, tenants: Tenants) -> None:
        self._wakes, self._tenants = wakes, tenants
        self._held: list[tuple[Parked, str]] = []
        self._outcomes: Sequence[Any] = ()

    def called(self, channels: Sequence[str]) -> list[Request]:
        """The requests of those whom a batch will wake. When the batch is run again, the same go along."""
        if channels and not self._held:
            self._held = self._wakes.hold(Counter(channels), ALONG_MAX, self._may)
        return [parked.request for parked, _ in self._held if parked.request is not None]

    def _may(self, request: Request) -> bool:
        """Whether the transaction may see what a request is of."""
        who = request.who
        return self._tenants is None or {who.tenant_id, who.token_tenant}.issubset(self._tenants)

    def decided(self, outcomes: Sequence[Any]) -> None:
        """What came of the requests, if only it is committed."""
        self._outcomes = outcomes

    def serve(self) -> None:
        """It is committed: answer those who were given something. What was refused is for a look of their own."""
        for (parked, _), outcome in zip(self._held, self._outcomes, strict=True):
            if not isinstance(outcome, StateError | PutOff) and not getattr(outcome, "nothing_happened", False):
                parked.serve(outcome)

    def __bool__(self) -> bool:
        return bool(self._held)

    def __enter__(self) -> "Along":
        return self

    def __exit__(self, *_: object) -> None:
        for parked, channel in self._held:
            self._wakes.let_go(parked, channel)


def told_of(sets: Sequence[WorkingSet]) -> Iterable[str]:
    """The wake-ups that are needed once what some of them would tell of is taken. For what was given up and is taken
    again nobody is woken."""
    first, *others = sets
    if not others and not first.heirs:
        return first.wakes
    left = Counter(channel for one in sets for channel in one.wakes)
    heirs = {key: channels for one in sets for key, channels in one.heirs.items()}
    for channel, key in (spared for one in others for spared in one.spared):
        if key is None or heirs.pop(key, None) is None:
            left[channel] -= 1
    return chain(left.elements(), *heirs.values())
