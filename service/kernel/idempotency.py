"""Idempotency keys: the answer to a request is stored with what the request did, in the same transaction.

Promises: the same key with the same request answers as the first time and does nothing; with another request it is
refused. Refusals and failures are not stored: nothing happened, so the request may be made again.
"""

import msgspec

from service.errors import StateError
from service.kernel.command import Replayed, Request
from service.kernel.tables import Table
from service.kernel.view import View


class IdempotencyKey(msgspec.Struct, frozen=True):
    """A key that was used: the fingerprint of its request, and the answer."""

    tenant_id: str
    key: str
    fingerprint: str
    status: int
    body: bytes
    created_at: int


TABLE = Table(IdempotencyKey, ("tenant_id", "key"), 10, "load_idempotency_keys", "insert_idempotency_keys")


def recall(view: View, request: Request) -> Replayed | None:
    """The stored answer, or None when the key is new; raises for a key that was used for something else."""
    if request.idempotency_key is None:
        return None
    found = view.get(IdempotencyKey, view.tenant_id, request.idempotency_key)
    if found is None:
        return None
    if found.fingerprint != request.fingerprint:
        raise mismatch(request.idempotency_key)
    return Replayed(found.status, found.body)


def mismatch(key: str) -> StateError:
    """422 for a key that was used for something else."""
    return StateError(
        "idempotency/mismatch", f"The Idempotency-Key {key!r} was used for another request; use a new key for this one."
    )


def remember(view: View, request: Request, reply: object) -> None:
    """Store the answer. A reply may offer `for_storage()`, without what must never be stored; one that says
    `nothing_happened` (an empty claim) is not stored, so that the same request may look again."""
    if request.idempotency_key is None or getattr(reply, "nothing_happened", False):
        return
    kept = getattr(reply, "for_storage", lambda: reply)()
    status = request.status_of(reply) if request.status_of else 200
    body = msgspec.json.encode(kept)
    view.add(IdempotencyKey(view.tenant_id, request.idempotency_key, request.fingerprint, status, body, view.now))
