"""Whose requests found no room (`server/busy`): lines of the log for whoever looks for the tenant that floods.

Room is shared so that the tenant with most in it is refused first; the one in the log is therefore likely the one.
"""

import structlog

from service.kernel.seldom import Seldom

log = structlog.get_logger()
EVERY_MS = 60_000


class Crowded:
    """Counts what is refused, and tells of each tenant at most once a minute."""

    def __init__(self) -> None:
        self._seldom = Seldom(EVERY_MS)

    def refuse(self, tenant: str, why: str, now: int) -> None:
        """One more request of `tenant` is refused at `now` (ms); `why` says what is full."""
        if refused := self._seldom.count(tenant, now):
            log.warning("a tenant's requests found no room", tenant=tenant, refused=refused, why=why)
