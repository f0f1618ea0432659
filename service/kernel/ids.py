"""Identifiers: UUIDv7, so that ids made later sort later, and the shapes that callers may choose.

The patterns end in `$(?!\\n)` because Python's `$` alone lets a newline follow.
"""

import random
from typing import Annotated

import msgspec

ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._~-]{0,127}$(?!\n)"
Id = Annotated[
    str, msgspec.Meta(pattern=ID_PATTERN, description="1–128 of A–Z a–z 0–9 . _ ~ -, no leading punctuation")
]
NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}$(?!\n)"
Name = Annotated[str, msgspec.Meta(pattern=NAME_PATTERN, description="1–128 of A–Z a–z 0–9 _ . : -")]
Glob = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_*?][A-Za-z0-9_.:*?-]{0,127}$(?!\n)")]


generator = random.Random()  # seeds itself from the system


def uuid7(now: int) -> str:
    """A UUIDv7 of the millisecond `now`: 48 bits of time, 74 random ones.

    An id is a name, not a secret, so the bits come from a generator seeded by the system, not from the system each
    time.
    """
    bits = generator.getrandbits(74)
    value = (now & 0xFFFFFFFFFFFF) << 80 | 0x7 << 76 | (bits >> 62 & 0xFFF) << 64 | 0b10 << 62 | bits & (1 << 62) - 1
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
