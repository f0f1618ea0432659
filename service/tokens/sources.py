"""Where requests come from, and how many tokens that are not ours came from there lately.

The source is the peer's address; behind a proxy that the settings trust it is the right-most address of
X-Forwarded-For that is no such proxy, because all that stands left of it may be invented. Of an IPv6 address the
network (/64) counts: that is what one caller has.

The limiter turns a refusal into another refusal, a 401 into a 429 that says when to come back. A right token is never
refused for what others send from its address: it is looked up and proven first.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Any

from service.errors import StateError
from service.kernel.principal import Address, Network, network_of

SOURCES_MAX = 10_000
MINUTE_MS = 60_000


def networks(text: str) -> list[Network]:
    """The networks of a list like `10.0.0.0/8, ::1`; ValueError for what is none."""
    return [network_of(part.strip()) for part in text.split(",") if part.strip()]


class Sources:
    """Names the source of a request, and counts failures in the minute that passes by the store's clock."""

    def __init__(self, trusted: Sequence[Network], failures_per_minute: int) -> None:
        self._trusted = trusted
        self._most = failures_per_minute
        self._failures: dict[str, tuple[int, int]] = {}

    def of(self, scope: Any) -> str:
        """Whom the failures of a request count against."""
        found = self.address(scope)
        return peer(scope) if found is None else network(found)

    def address(self, scope: Any) -> Address | None:
        """The address that a request came from; None where there is none, as on a socket of this machine."""
        found = address(peer(scope))
        if found is None or not self._trusts(found):
            return found
        for text in reversed(forwarded(scope["headers"])):
            before = address(text)
            if before is None:
                break
            found = before
            if not self._trusts(found):
                break
        return found

    def _trusts(self, found: Address) -> bool:
        return any(found in trusted for trusted in self._trusted)

    def floods(self, source: str, now: int) -> bool:
        """Whether this minute has had too many from `source`."""
        counted, count = self._failures.get(source, (-1, 0))
        return counted == now // MINUTE_MS and count >= self._most

    def fail(self, source: str, now: int) -> None:
        """Count a token that is not ours; raises `auth/throttled` when this minute has had too many from `source`."""
        minute, passed = divmod(now, MINUTE_MS)
        counted, count = self._failures.get(source, (minute, 0))
        count = count + 1 if counted == minute else 1
        if source not in self._failures and len(self._failures) >= SOURCES_MAX:
            self._failures.clear()
        self._failures[source] = (minute, count)
        if count > self._most:
            wait = max(1, (MINUTE_MS - passed) // 1000)
            raise StateError(
                "auth/throttled", "Too many tokens that are not ours came from here; wait.", retry_after=wait
            )


def peer(scope: Any) -> str:
    """The other end of the connection."""
    return str((scope.get("client") or ("local",))[0])


def forwarded(headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
    """The addresses of X-Forwarded-For, the nearest last; several headers are one list."""
    said = [value.decode("latin-1") for name, value in headers if name == b"x-forwarded-for"]
    return [part.strip() for part in ",".join(said).split(",")] if said else []


def address(text: str) -> Address | None:
    """An address as a peer or a proxy writes it, with or without a port; None for anything else."""
    host = text[1:].partition("]")[0] if text.startswith("[") else text
    if host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def network(found: Address) -> str:
    """What counts as one source: an IPv4 address, an IPv6 network."""
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    return str(ipaddress.ip_network((int(found) >> 64 << 64, 64)))
