"""Who is asking, and what a role may do."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

import msgspec

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
TENANT_ROLES = ("owner", "operator", "developer", "worker", "reviewer", "viewer", "auditor")
SYSTEM_ROLES = ("admin", "scheduler")
MAPPED_BITS = 96
"""How long the prefix is that stands before an IPv4 address in IPv6 clothes."""
SYSTEM = ""
"""The tenant id under which system tokens and the system's audit log are kept; no tenant can be called so."""

PERMITS: dict[str, frozenset[str]] = {
    name: frozenset(roles.split())
    for name, roles in {
        "read": "owner operator developer reviewer viewer support",
        "work.read": "owner operator developer reviewer viewer worker support",
        "definition.write": "owner operator developer",
        "namespace.manage": "owner",
        "execution.write": "owner operator developer",
        "execution.transition": "owner operator developer worker",
        "execution.operate": "owner operator",
        "work.enqueue": "owner operator developer",
        "work.claim": "owner developer worker",
        "work.operate": "owner operator",
        "work.dead_letter": "owner operator developer worker",
        "job.read": "owner operator admin",
        "job.operate": "owner operator admin",
        "waitpoint.answer": "owner operator reviewer",
        "token.manage": "owner admin",
        "token.self": "owner operator developer worker reviewer viewer auditor admin scheduler",
        "audit.read": "owner auditor admin",
        "tenant.read": "owner admin",
        "tenant.export": "owner support",
        "tenant.manage": "admin",
        "sweep": "admin scheduler",
    }.items()
}
"""Permission → the roles that hold it. `support` is a system admin who names a tenant and a reason; it only reads."""


class Principal(msgspec.Struct, frozen=True):
    """The caller: its tenant (`""` for a system token), role and token id; `queues` are globs that limit a worker,
    `networks` and `not_before` (milliseconds) say from where and from when on the token may be used."""

    tenant_id: str
    role: str
    token_id: str | None = None
    token_tenant: str = ""
    queues: tuple[str, ...] = ()
    expires_at: int | None = None
    reason: str | None = None
    networks: tuple[Network, ...] = ()
    not_before: int | None = None

    def may(self, permit: str) -> bool:
        """Whether the role holds `permit`."""
        return self.role in PERMITS[permit]

    def may_use(self, queue: str) -> bool:
        """Whether the token may touch items of `queue`; a token without globs may touch all."""
        return not self.queues or any(fnmatchcase(queue, glob) for glob in self.queues)

    def may_grant(self, queues: Sequence[str]) -> bool:
        """Whether a token for `queues` (globs; none are all) can do nothing to a queue that this one cannot.

        Each glob must lie within one of this token's: its `?` stands for what is no `*`, its `*` for anything.
        """
        if not self.queues:
            return True
        own = [re.compile(wider(glob)) for glob in self.queues]
        return bool(queues) and all(any(one.fullmatch(glob) for one in own) for glob in queues)

    def may_come_from(self, address: Address | None) -> bool:
        """Whether the token may be used from `address`; without networks from everywhere, with them never from nowhere
        (None)."""
        return not self.networks or (address is not None and any(address in own for own in self.networks))

    def may_open_to(self, networks: Sequence[Network]) -> bool:
        """Whether a token for `networks` (none are all) works from nowhere where this one does not: each must lie
        within one of this token's."""
        if not self.networks:
            return True
        return bool(networks) and all(any(within(one, own) for own in self.networks) for one in networks)

    @property
    def reach(self) -> tuple[str, ...] | None:
        """The tenants whose rows the caller's reads may find; None, every one, for the system's."""
        return None if self.tenant_id == SYSTEM else (self.tenant_id,)

    @property
    def actor(self) -> str:
        """How the log names the caller."""
        return self.token_id or "system"


def wider(glob: str) -> str:
    """The expression of the globs that lie within `glob`. What a `*` has taken is not given back where a further one
    follows: globs are a tenant's, and none may be made that it takes for ever to look at."""
    first, *others = (re.escape(part).replace(r"\?", "[^*]") for part in glob.split("*"))
    if not others:
        return first
    return first + "".join(f"(?>.*?{part})" for part in others[:-1]) + ".*" + others[-1]


def network_of(text: str) -> Network:
    """A network as CIDR writes it, or one address; IPv4 in IPv6 clothes (`::ffff:10.0.0.0/104`) is IPv4, as addresses
    are. ValueError for what is none."""
    found = ip_network(text)
    first = found.network_address
    if isinstance(first, IPv6Address) and found.prefixlen >= MAPPED_BITS and first.ipv4_mapped is not None:
        return IPv4Network((int(first.ipv4_mapped), found.prefixlen - MAPPED_BITS))
    return found


def within(network: Network, other: Network) -> bool:
    """Whether all of `network` lies in `other`; IPv4 never lies in IPv6."""
    return network.network_address in other and network.prefixlen >= other.prefixlen


class Standing(msgspec.Struct, frozen=True):
    """What the store says of a caller as a transaction begins: the tenant's status and limits, the token's life."""

    status: str
    limits: dict[str, int | None]
    revoked_at: int | None = None
    expires_at: int | None = None

    def limit(self, name: str) -> int | None:
        """The tenant's limit `name`; None means no limit."""
        return self.limits.get(name)


def internal(tenant_id: str) -> Principal:
    """The service itself, acting for a tenant: sweeps and start-up."""
    return Principal(tenant_id, "system")
