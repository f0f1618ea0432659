"""The audit log: who changed what, written by the change's own transaction, chained by hash.

Each tenant has a chain (the system's is the tenant `""`). An entry's hash covers the entry and the hash before it, so a
line that was altered, dropped, moved or slipped in breaks the chain from there on; a `Chain` that follows finds where.
"""

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from service.kernel.raw import encoded
from service.kernel.tables import Table, Wanted
from service.kernel.view import View

FIRST = "0" * 64


class AuditHead(msgspec.Struct, frozen=True):
    """The end of a tenant's chain."""

    tenant_id: str
    sequence: int
    hash: str


class AuditEntry(msgspec.Struct, frozen=True):
    """One line: who did what to what, by which request from where, and its place in the chain."""

    tenant_id: str
    sequence: int
    at: int
    actor: str
    action: str
    target: str
    detail: bytes | None
    hash: str
    request_id: str | None = None
    source: str | None = None


TABLES = [
    Table(AuditHead, ("tenant_id",), 90, "load_audit_heads", "insert_audit_heads", "update_audit_heads"),
    Table(AuditEntry, ("tenant_id", "sequence"), 91, "load_audit", "insert_audit"),
]


def audit_keys(tenant_id: str) -> Iterable[Wanted]:
    """What an audited command needs loaded."""
    yield AuditHead, (tenant_id,)


def audit(view: View, action: str, target: str, detail: Any = None, tenant_id: str | None = None) -> None:
    """Add a line to the chain of `tenant_id` (default: the caller's)."""
    tenant = view.tenant_id if tenant_id is None else tenant_id
    head = view.get(AuditHead, tenant)
    sequence, before = (1, FIRST) if head is None else (head.sequence + 1, head.hash)
    body = None if detail is None else encoded(detail)
    came = () if view.origin is None else (view.origin.request_id, view.origin.source)
    entry = AuditEntry(tenant, sequence, view.now, view.who.actor, action, target, body, "", *came)
    entry = msgspec.structs.replace(entry, hash=link(before, entry))
    view.add(entry)
    new = AuditHead(tenant, sequence, entry.hash)
    if head is None:
        view.add(new)
    else:
        view.put(new)


def link(before: str, entry: AuditEntry) -> str:
    """The hash of an entry that follows `before`."""
    parts = [before, *msgspec.structs.astuple(msgspec.structs.replace(entry, hash=""))]
    return hashlib.sha256(msgspec.msgpack.encode(parts)).hexdigest()


class Chain:
    """A chain as far as it was followed: the `sequence` and `hash` it stands at, and the first thing wrong with it."""

    def __init__(self, sequence: int = 0, hash: str = FIRST) -> None:
        self.sequence, self.hash = sequence, hash
        self.lines = 0
        self.fault: str | None = None

    def follow(self, entries: Iterable[AuditEntry]) -> None:
        """Go on over the lines that come next; past a fault nothing is followed."""
        for entry in entries:
            if self.fault is not None:
                return
            if entry.sequence != self.sequence + 1 or link(self.hash, entry) != entry.hash:
                self.fault = f"breaks at line {entry.sequence}: it, or one before it, was changed or taken out"
                return
            self.sequence, self.hash = entry.sequence, entry.hash
            self.lines += 1

    def end_at(self, sequence: int | None, hash: str | None) -> None:
        """Say whether the chain ends where something else says that it does."""
        if self.fault is None and (self.sequence, self.hash) != (sequence or 0, hash or FIRST):
            said = "nothing" if sequence is None else sequence
            self.fault = f"ends at line {self.sequence}, its head says {said}: the end was altered"
