"""The token format: `holdt_<id16>_<secret43><crc6>` for a tenant, `holds_…` for the system; base62, 72 characters.

The id is public. The secret is 256 bits from the operating system. The CRC-32 covers everything before it; it finds
typing errors and spares secret scanners false alarms, and is never counted as security.
"""

import re
import secrets
from binascii import crc32
from hashlib import blake2b
from typing import Any, Literal

from msgspec import Struct

Kind = Literal["tenant", "system"]

PATTERN = "hold[ts]_[0-9A-Za-z]{16}_[0-9A-Za-z]{49}"
"""The published regular expression of a whole token. It has no anchors; a scanner adds its own word boundaries."""

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
PREFIXES: dict[Kind, str] = {"tenant": "holdt_", "system": "holds_"}
MASK = "[masked]"

_pairs = [high + low for high in ALPHABET for low in ALPHABET]
_whole = re.compile(PATTERN).fullmatch
# Wider than PATTERN on purpose: a token typed a little wrong, cut short or run into other text still holds its secret.
_leaky = re.compile(r"(hold[ts]_[\w-]{16})(?:_[\w-]+|[\w-]{16,})")


class Presented(Struct, frozen=True, gc=False):
    """A token as somebody presents it: well formed, and nothing more is known of it.

    `kind` is what the prefix claims; the stored row has the last word. Printing hides the secret; encoding does not.
    """

    kind: Kind
    id: str
    secret: str

    def __repr__(self) -> str:
        return f"Presented(kind={self.kind!r}, id={self.id!r}, secret={MASK!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Rich and its tracebacks would otherwise list every field."""
        return [("kind", self.kind), ("id", self.id), ("secret", MASK)]


def mint(kind: Kind) -> tuple[str, Presented]:
    """A new token of `kind`: the full text, to be shown once, and its parts."""
    id = "".join(secrets.choice(ALPHABET) for _ in range(16))
    secret = _base62(int.from_bytes(secrets.token_bytes(32), "big"), 43)
    body = f"{PREFIXES[kind]}{id}_{secret}"
    return body + _checksum(body), Presented(kind, id, secret)


def parse(text: str) -> Presented | None:
    """The parts of `text`, or None when its shape or its CRC is wrong. No I/O."""
    if _whole(text) is None or _checksum(text[:66]) != text[66:]:
        return None
    return Presented("tenant" if text[4] == "t" else "system", text[6:22], text[23:66])


def reject_tag(id: str, secret: str) -> bytes:
    """4 bytes that a wrong secret misses but once in 2³²; a thief of the store learns 32 of 256 bits from them."""
    return blake2b(secret.encode(), digest_size=4, key=id.encode()).digest()


def mask(text: str) -> str:
    """`text` with the secret of everything token-shaped hidden; prefix and id stay, to say which token it was."""
    return _leaky.sub(rf"\1_{MASK}", text)


def _checksum(body: str) -> str:
    """CRC-32 as 6 digits; two at a time, because every request pays for it."""
    rest, low = divmod(crc32(body.encode("ascii")), 3844)
    high, middle = divmod(rest, 3844)
    return _pairs[high] + _pairs[middle] + _pairs[low]


def _base62(number: int, width: int) -> str:
    """`number` in exactly `width` digits, zeros in front."""
    digits = ""
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits = ALPHABET[digit] + digits
    return digits
