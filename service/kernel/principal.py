"""Who is asking, and what a role may do."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

import msgspec

TENANT_ROLES = ("owner", "operator", "developer", "worker", "reviewer", "viewer", "auditor")
SYSTEM_ROLES = ("admin", "scheduler")
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
    """The caller: its tenant (`""` for a system token), role and token id; `queues` are globs that limit a worker."""

    tenant_id: str
    role: str
    token_id: str | None = None
    token_tenant: str = ""
    queues: tuple[str, ...] = ()
    expires_at: int | None = None
    reason: str | None = None

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
        own = [re.compile(re.escape(glob).replace(r"\*", ".*").replace(r"\?", "[^*]")) for glob in self.queues]
        return bool(queues) and all(any(one.fullmatch(glob) for one in own) for glob in queues)

    @property
    def reach(self) -> tuple[str, ...] | None:
        """The tenants whose rows the caller's reads may find; None, every one, for the system's."""
        return None if self.tenant_id == SYSTEM else (self.tenant_id,)

    @property
    def actor(self) -> str:
        """How the log names the caller."""
        return self.token_id or "system"


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
