"""What readers of the audit log are answered."""

from typing import Annotated

import msgspec

from service.kernel.audit import FIRST, AuditEntry
from service.kernel.raw import shown

FORMAT = "holdfast.audit"
Long = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""A number as a store holds it; no other can be in a chain."""


class ShownEntry(msgspec.Struct, frozen=True):
    """A line of the audit log."""

    sequence: int
    at: int
    actor: str
    action: str
    target: str
    detail: msgspec.Raw | None
    request_id: str | None
    source: str | None
    hash: str


class Line(msgspec.Struct, frozen=True):
    """The same, read back: `detail` is its very bytes."""

    sequence: Long
    at: Long
    actor: str
    action: str
    target: str
    detail: msgspec.Raw
    request_id: str | None
    source: str | None
    hash: str


class Place(msgspec.Struct, frozen=True):
    """A place in a chain: after the line `sequence`, whose hash this is; 0 and zeros before the first line."""

    sequence: int = 0
    hash: str = FIRST


class Manifest(msgspec.Struct, frozen=True):
    """The first line of an export: whose chain, and what lies between which places. `tenant_id` null is the system."""

    format: str
    tenant_id: str | None
    after: Place
    through: Place
    exported_at: int


class VerifiedChain(msgspec.Struct, frozen=True):
    """Whether the chain is whole, from where its kept part begins to its head, and, if not, what is wrong first."""

    whole: bool
    lines: int
    after: Place
    through: Place
    fault: str | None


def show(entry: AuditEntry) -> ShownEntry:
    """A stored line as it is answered."""
    return ShownEntry(
        entry.sequence, entry.at, entry.actor, entry.action, entry.target, shown(entry.detail), entry.request_id,
        entry.source, entry.hash,
    )  # fmt: skip


def entry_of(tenant_id: str, line: Line) -> AuditEntry:
    """A line that was answered, as it is stored."""
    detail = None if bytes(line.detail) == b"null" else bytes(line.detail)
    return AuditEntry(
        tenant_id, line.sequence, line.at, line.actor, line.action, line.target, detail, line.hash, line.request_id,
        line.source,
    )  # fmt: skip
