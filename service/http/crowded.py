"""Whose requests found no room (`server/busy`): lines of the log for whoever looks for the tenant that floods.

Room is shared so that the tenant with most in it is refused first; the one in the log is therefore likely the one.
"""

import structlog

log = structlog.get_logger()
EVERY_MS, TENANTS_MAX = 60_000, 1_000


class Crowded:
    """Counts what is refused, and tells of each tenant at most once a minute."""

    def __init__(self) -> None:
        self._told: dict[str, int] = {}
        self._refused: dict[str, int] = {}

    def refuse(self, tenant: str, why: str, now: int) -> None:
        """One more request of `tenant` is refused at `now` (ms); `why` says what is full."""
        if len(self._refused) >= TENANTS_MAX:
            self._told.clear()
            self._refused.clear()
        refused = self._refused[tenant] = self._refused.get(tenant, 0) + 1
        if not 0 <= now - self._told.get(tenant, -EVERY_MS) < EVERY_MS:
            self._told[tenant], self._refused[tenant] = now, 0
            log.warning("a tenant's requests found no room", tenant=tenant, refused=refused, why=why)
