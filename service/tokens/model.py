"""Rows, commands and replies of tokens."""

from typing import Annotated, Literal

import msgspec

from service.kernel.ids import Glob
from service.tenants.model import TenantId

Role = Literal["owner", "operator", "developer", "worker", "reviewer", "viewer", "auditor", "admin", "scheduler"]
DAYS_MAX, NAME_MAX = 3_650, 128
Days = Annotated[int, msgspec.Meta(ge=1, le=DAYS_MAX)]
DAY_MS = 86_400_000
MINTED_BY = "tokens_minted_by"
Cidr = Annotated[
    str,
    msgspec.Meta(
        max_length=49,
        pattern=r"^[0-9A-Fa-f:.]{2,45}(/[0-9]{1,3})?$(?!\n)",
        description="A network as CIDR writes it, or one address: 10.0.0.0/8, 2001:db8::/32",
    ),
]
Moment = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799_999)]
"""Milliseconds since the epoch, to the end of the year 9999: what can be written as a date."""


class Token(msgspec.Struct, frozen=True):
    """A token without its secret: the verifier (argon2id), the reject tag, and its life."""

    tenant_id: str
    id: str
    name: str
    role: str
    queues: str
    verifier: str
    reject_tag: bytes
    created_at: int
    created_by: str | None
    expires_at: int | None
    last_used_at: int | None
    revoked_at: int | None
    revoked_by: str | None
    replaces: str | None
    replaced_by: str | None
    last_used_from: str | None = None
    last_used_agent: str | None = None
    networks: str = "[]"
    not_before: int | None = None


class MintBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to mint. `tenant_id` only for a system administrator; `never_expires` must be said."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_MAX)]
    role: Role
    tenant_id: TenantId | None = None
    queues: Annotated[list[Glob], msgspec.Meta(max_length=64)] = []
    expires_in_days: Days | None = None
    never_expires: bool = False
    networks: Annotated[list[Cidr], msgspec.Meta(max_length=64)] = []
    not_before: Moment | None = None


class RotateBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long the old token may still be used if the new one is not (seconds)."""

    grace_seconds: Annotated[int, msgspec.Meta(ge=0, le=604_800)] = 86_400
    expires_in_days: Days | None = None


class ExposedBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A token that was found where it should not be: having it is the proof."""

    token: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class MintToken(msgspec.Struct, frozen=True):
    """Mint a token whose secret was drawn and hashed at the edge."""

    tenant_id: str
    id: str
    name: str
    role: str
    queues: tuple[str, ...]
    verifier: str
    reject_tag: bytes
    days: int | None
    secret: str = ""
    networks: tuple[str, ...] = ()
    not_before: int | None = None


class RotateToken(msgspec.Struct, frozen=True):
    """Replace a token: the old one ends when the new one is first used, or after the grace time. The new one lives
    `most` days at most."""

    tenant_id: str
    id: str
    new_id: str
    verifier: str
    reject_tag: bytes
    grace_ms: int
    days: int | None
    secret: str = ""
    most: int | None = None


class RevokeToken(msgspec.Struct, frozen=True):
    """End a token now. `exposed`: whoever has it may end it. `descendants`: end also what it minted, and what that
    minted."""

    tenant_id: str
    id: str
    exposed: bool = False
    descendants: bool = False


class UseToken(msgspec.Struct, frozen=True):
    """Note that a token was used, from which source and by which program; the first use of a rotated one ends the old
    one."""

    tenant_id: str
    id: str
    at: int
    source: str | None = None
    agent: str | None = None


class UpgradeVerifier(msgspec.Struct, frozen=True):
    """Put a verifier of the same secret, derived at today's cost, in place of `old`; nothing if another came first."""

    tenant_id: str
    id: str
    old: str
    new: str


class NoteSupport(msgspec.Struct, frozen=True):
    """Tell a tenant that the system's administrator reads it, by which operation and why."""

    operation: str
    reason: str


class ShownToken(msgspec.Struct, frozen=True):
    """A token as it is answered: never its secret, never its verifier."""

    id: str
    tenant_id: str | None
    name: str
    role: str
    queues: list[str]
    created_at: int
    created_by: str | None
    expires_at: int | None
    last_used_at: int | None
    revoked_at: int | None
    revoked_by: str | None
    replaces: str | None
    replaced_by: str | None
    last_used_from: str | None = None
    last_used_agent: str | None = None
    networks: list[str] = []
    not_before: int | None = None


class Minted(msgspec.Struct, frozen=True):
    """A new token with its secret, shown this once."""

    token: ShownToken
    secret: str | None

    def for_storage(self) -> "Minted":
        """What may be kept: everything but the secret."""
        return Minted(self.token, None)
