"""Keyset pages: `{"items": […], "next_cursor": …}`, with cursors that fit one tenant, one list and one filter."""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from typing import Any

import msgspec

from service.errors import StateError

LIMIT_MAX = 1000
LIMIT_DEFAULT = 100


class Cursors:
    """Seals positions into opaque text. The seal is keyed: a cursor that was edited, or is another's, is refused."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def seal(self, scope: Sequence[Any], position: Sequence[Any]) -> str:
        """A cursor for `position`, good only for the same `scope` (tenant, list, filter)."""
        body = msgspec.json.encode(position)
        return text_of(self._mac(scope, body) + body)

    def open(self, scope: Sequence[Any], cursor: str) -> list[Any]:
        """The position in a cursor; raises `request/cursor` for any that was not sealed for this scope."""
        try:
            raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        except ValueError:
            raw = b""
        mac, body = raw[:12], raw[12:]
        sealed = hmac.compare_digest(mac, self._mac(scope, body))
        if not sealed or cursor != text_of(raw):  # base64 reads what it never writes
            raise StateError(
                "request/cursor", "The cursor does not belong to this list with this filter; start without one."
            )
        return msgspec.json.decode(body, type=list[Any])

    def _mac(self, scope: Sequence[Any], body: bytes) -> bytes:
        return hmac.digest(self._key, msgspec.json.encode(scope) + b"\0" + body, hashlib.sha256)[:12]


def text_of(raw: bytes) -> str:
    """Bytes as a cursor writes them."""
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
