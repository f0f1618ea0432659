"""Who goes apart: tenants of which a command met a row that somebody holds.

For some seconds their commands share no batch with those of others, wait for a lock for a moment only, and take one
lane at a time. So whoever does not need such a row is done beside it.
"""

from collections.abc import Iterable, Sequence

from backends.protocol import StateBackend
from service.kernel.command import Request

APART_MS = 10_000
"""How long a tenant goes apart after it met such a row the last time."""
MOST = 32
"""Commands of a batch that goes apart: it may come to be tried one by one."""
EACH_MS, ALL_MS, LEAST_MS = 100, 500, 10
"""How long each that is tried apart waits for a lock, since somebody who is just committing is not in the way; how long
they all wait in vain; and how long each does once that is over."""


class Apart:
    """The tenants that go apart now, by the store's clock."""

    def __init__(self, backend: StateBackend) -> None:
        self._backend = backend
        self._met: dict[str, int] = {}

    def met(self, tenant_id: str) -> None:
        """Note that a command of the tenant, alone in its transaction, met a row that somebody holds."""
        now = self._backend.now()
        self._met = {one: at for one, at in self._met.items() if lately(at, now)} | {tenant_id: now}

    def __bool__(self) -> bool:
        return bool(self._met)

    def __contains__(self, tenant_id: str) -> bool:
        at = self._met.get(tenant_id)
        if at is None:
            return False
        if not lately(at, self._backend.now()):
            del self._met[tenant_id]
            return False
        return True

    def among(self, tenants: Iterable[str]) -> list[str]:
        """Those of the tenants that go apart, in order."""
        return [one for one in tenants if one in self] if self._met else []


class Haste:
    """How long those who are tried apart, one after another, wait for a lock."""

    def __init__(self) -> None:
        self._left = ALL_MS

    @property
    def lock_ms(self) -> int:
        """How long the next one waits."""
        return max(LEAST_MS, min(EACH_MS, self._left))

    def waited(self) -> None:
        """One waited so long, in vain."""
        self._left -= self.lock_ms


def lately(at: int, now: int) -> bool:
    """Whether it is not long ago. What is still to come is not of this clock: it was set back."""
    return 0 <= now - at < APART_MS


def parts(batch: Sequence[Request]) -> list[list[int]]:
    """What is tried apart of a batch: the commands of each tenant, or, where it is of one, each command. In order."""
    found: dict[str, list[int]] = {}
    for index, request in enumerate(batch):
        found.setdefault(request.who.tenant_id, []).append(index)
    return list(found.values()) if len(found) > 1 else [[index] for index in range(len(batch))]
