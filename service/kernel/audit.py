"""The audit log: who changed what, written by the change's own transaction, chained by hash.

Each tenant has a chain (the system's is the tenant `""`). An entry's hash covers the entry and the hash before it, so a
line that was altered, dropped or slipped in breaks the chain from there on; `verify` finds where.
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
    """One line: who did what to what, and its place in the chain."""

    tenant_id: str
    sequence: int
    at: int
    actor: str
    action: str
    target: str
    detail: bytes | None
    hash: str


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
    entry = AuditEntry(tenant, sequence, view.now, view.who.actor, action, target, body, "")
    entry = msgspec.structs.replace(entry, hash=link(before, entry))
    view.add(entry)
    new = AuditHead(tenant, sequence, entry.hash)
    if head is None:
        view.add(new)
    else:
        view.put(new)


def link(before: str, entry: AuditEntry) -> str:
    """The hash of an entry that follows `before`."""
    parts = [before, entry.tenant_id, entry.sequence, entry.at, entry.actor, entry.action, entry.target, entry.detail]
    return hashlib.sha256(msgspec.msgpack.encode(parts)).hexdigest()


def verify(entries: Iterable[AuditEntry], before: str = FIRST) -> int | None:
    """The sequence of the first entry that does not follow from those before it; None when the chain is whole."""
    for entry in entries:
        if link(before, entry) != entry.hash:
            return entry.sequence
        before = entry.hash
    return None
