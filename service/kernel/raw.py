"""Opaque JSON: bytes from the socket to the disk and back, never decoded on the way.

An absent field is `ABSENT` (empty bytes); JSON null is a value and stays `b"null"`.
"""

import msgspec

ABSENT, NULL = msgspec.Raw(b""), msgspec.Raw(b"null")


def stored(raw: msgspec.Raw) -> bytes | None:
    """What to store for a field: its bytes, or None when it was absent."""
    return bytes(raw) or None


def shown(stored_bytes: bytes | None) -> msgspec.Raw | None:
    """What to answer for a stored column."""
    return None if stored_bytes is None else msgspec.Raw(stored_bytes)


def said(stored_bytes: bytes | None) -> msgspec.Raw:
    """The same for what is read again out of a stored answer: msgspec reads no `Raw | None`."""
    return NULL if stored_bytes is None else msgspec.Raw(stored_bytes)


def encoded(value: object) -> bytes:
    """A value of ours as JSON bytes."""
    return msgspec.json.encode(value)
