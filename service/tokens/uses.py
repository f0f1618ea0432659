"""When tokens were last used, from where and by which program: noted as they pass, and written down later by a task of
this process.

What a caller says of its program is text of a stranger: control characters go, whatever has the shape of a token or is
as long as its secret is masked, and the rest is cut.
"""

import asyncio
import contextlib
import re
from collections.abc import Mapping
from typing import Any

from backends.errors import StoreError
from service.errors import StateError
from service.kernel.later import Later
from service.kernel.principal import Principal, internal
from service.kernel.run import Kernel
from service.tokens.model import UseToken
from service.tokens.secret import MASK, mask
from service.tokens.sources import Sources

EVERY_MS = 300_000
FLUSH_SECONDS = 15.0
NOTED_MAX = 100_000
PAGE = 64
AGENT_MAX = 200
LONG = re.compile(r"[\w-]{40,}")
"""Longer than any name, and as long as a secret."""


class Uses:
    """`note` costs a look into a dictionary; a token's use is written at most every five minutes."""

    def __init__(self, kernel: Kernel, sources: Sources) -> None:
        self.kernel, self.sources = kernel, sources
        self._noted: dict[str, int] = {}
        self._used: dict[tuple[str, str], UseToken] = {}
        self._later = Later(self.flush, FLUSH_SECONDS)

    def note(self, who: Principal, now: int, scope: Any, headers: Mapping[bytes, bytes]) -> None:
        """Remember that the token of `who` was used at `now` (milliseconds), by a request."""
        if who.token_id is None or abs(now - self._noted.get(who.token_id, 0)) < EVERY_MS:
            return
        if len(self._noted) >= NOTED_MAX:
            self._noted.clear()
        self._noted[who.token_id] = now
        if len(self._used) < NOTED_MAX:
            self._used[who.token_tenant, who.token_id] = self.use(who.token_tenant, who.token_id, now, scope, headers)
        self._later.soon()

    def use(self, tenant_id: str, token_id: str, now: int, scope: Any, headers: Mapping[bytes, bytes]) -> UseToken:
        """The command that writes a use down."""
        return UseToken(tenant_id, token_id, now, self.sources.of(scope), agent_of(headers.get(b"user-agent")))

    async def flush(self) -> None:
        """Write what was noted since the last time; what cannot be written now is lost: it is no more than a hint."""
        made, self._used = [*self._used.values()], {}
        for start in range(0, len(made), PAGE):  # a few at a time: requests stand in the same line
            await asyncio.gather(*(self._write(one) for one in made[start : start + PAGE]))

    async def _write(self, use: UseToken) -> None:
        with contextlib.suppress(StateError, StoreError):  # the token went with its tenant, or the store is away
            await self.kernel.run(internal(use.tenant_id), use)

    async def close(self) -> None:
        """Write what is left."""
        await self._later.close()


def agent_of(header: bytes | None) -> str | None:
    """The program that a User-Agent names, as it may be kept and shown; None when it says nothing."""
    if header is None:
        return None
    plain = "".join(letter for letter in header.decode("latin-1") if letter.isprintable())
    return LONG.sub(MASK, mask(plain)).strip()[:AGENT_MAX].rstrip() or None
