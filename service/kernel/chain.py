"""Audit chains with the store in hand: verify one, add a line to it, let its beginning go.

A chain that let lines go begins at a checkpoint: the sequence and hash of the last of them. The kept part tells of it
in a line of its own, `audit.trimmed`, so that taking lines out and writing a checkpoint is not enough to hide it.
"""

from itertools import takewhile
from typing import Any

import msgspec
from msgspec.structs import astuple, replace

from backends.protocol import Tx
from service.kernel.audit import FIRST, AuditEntry, Chain, link
from service.kernel.raw import encoded

PAGE = 1_000
TRIMMED = "audit.trimmed"


class Checkpoint(msgspec.Struct, frozen=True):
    """Where the kept part of a chain begins: after the line `sequence`, whose hash this is."""

    sequence: int = 0
    hash: str = FIRST


class Trimmed(msgspec.Struct, frozen=True):
    """Detail of `audit.trimmed`: the checkpoint, and how many lines went."""

    sequence: int
    hash: str
    lines: int


class Ends(msgspec.Struct, frozen=True):
    """Both ends of a chain; `head` is None when there is none."""

    head: tuple[int, str] | None
    start: Checkpoint


async def ends_of(tx: Tx, tenant_id: str) -> Ends:
    """Where a chain ends, and where its kept part begins."""
    [[sequence, hash, after, before]] = await tx.all("read_audit_ends", tenant_id=tenant_id)
    start = Checkpoint() if after is None else Checkpoint(after, before)
    return Ends(None if sequence is None else (sequence, hash), start)


async def page_of(tx: Tx, tenant_id: str, after: int) -> list[AuditEntry]:
    """A page of lines after a sequence, in order."""
    return [AuditEntry(*row) for row in await tx.all("list_audit", tenant_id=tenant_id, after=after, limit=PAGE)]


async def followed(tx: Tx, tenant_id: str) -> Chain:
    """A chain, verified from the beginning of its kept part to its head. Needs a snapshot."""
    ends = await ends_of(tx, tenant_id)
    chain, told = Chain(ends.start.sequence, ends.start.hash), Checkpoint()
    while chain.fault is None and (page := await page_of(tx, tenant_id, chain.sequence)):
        chain.follow(page)
        telling = [entry for entry in page if entry.action == TRIMMED]
        told = told_by(telling[-1]) if telling and chain.fault is None else told
    chain.end_at(*(ends.head or (None, None)))
    if chain.fault is None and told != ends.start:
        chain.fault = (
            f"begins after line {ends.start.sequence}, its lines say {told.sequence}: the beginning was altered"
        )
    strays = await tx.one("count_audit_before", tenant_id=tenant_id, sequence=ends.start.sequence)
    if chain.fault is None and strays and strays[0]:
        chain.fault = f"begins after line {ends.start.sequence}, and has {strays[0]} line(s) before that: slipped in"
    return chain


async def all_followed(tx: Tx) -> list[tuple[str, Chain]]:
    """Every chain but those of tenants that are being deleted, verified; the system's first. Needs a snapshot."""
    return [(name, await followed(tx, name)) for (name,) in await tx.all("list_audit_chains")]


def named(tenant_id: str) -> str:
    """Whose a chain is, in words."""
    return f"of the tenant {tenant_id!r}" if tenant_id else "of the system"


def told_by(entry: AuditEntry) -> Checkpoint:
    """The checkpoint that a line `audit.trimmed` tells of."""
    detail = msgspec.json.decode(entry.detail or b"", type=Trimmed)
    return Checkpoint(detail.sequence, detail.hash)


async def add(tx: Tx, tenant_id: str, action: str, target: str, detail: Any = None, actor: str = "system") -> None:
    """Add a line to a chain that has begun; holds its head until the commit."""
    [(_, sequence, before)] = await tx.all("load_audit_heads", rows=[(tenant_id,)])
    body = None if detail is None else encoded(detail)
    entry = AuditEntry(tenant_id, sequence + 1, tx.now, actor, action, target, body, "")
    entry = replace(entry, hash=link(before, entry))
    await tx.many("insert_audit", [astuple(entry)])
    await tx.many("update_audit_heads", [(tenant_id, entry.sequence, entry.hash, sequence)])


async def trim(tx: Tx, tenant_id: str, before: int) -> int:
    """Let a page of lines older than `before` go, and tell of it; how many went.

    A part that does not follow is kept, for whoever has to find out. Lines that only tell of a trimming go with others,
    not by themselves: else each trimming would sooner or later be the reason for another.
    """
    await tx.all("load_audit_heads", rows=[(tenant_id,)])
    start = (await ends_of(tx, tenant_id)).start
    old = list(takewhile(lambda entry: entry.at < before, await page_of(tx, tenant_id, start.sequence)))
    while 0 < len(old) < PAGE and old[-1].action == TRIMMED:
        old.pop()
    chain = Chain(start.sequence, start.hash)
    chain.follow(old)
    if not old or chain.fault is not None:
        return 0
    last = old[-1]
    await tx.run("drop_audit", tenant_id=tenant_id, sequence=last.sequence)
    await tx.run("put_audit_checkpoint", tenant_id=tenant_id, sequence=last.sequence, hash=last.hash, at=tx.now)
    await add(tx, tenant_id, TRIMMED, str(last.sequence), Trimmed(last.sequence, last.hash, len(old)))
    return len(old)
