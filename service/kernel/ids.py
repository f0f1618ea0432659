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
NAMES = "1–128 of A–Z a–z 0–9 _ . : -, the first one of A–Z a–z 0–9 _"
"""The same in words."""
Name = Annotated[str, msgspec.Meta(pattern=NAME_PATTERN, description=NAMES)]
QueueGlob = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_*?][A-Za-z0-9_.:*?-]{0,127}$(?!\n)")]
"""Queues of one namespace; those that a token may use are a `Glob`, which can name the namespace: `billing|*`."""
Glob = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_*?][A-Za-z0-9_.:*?|-]{0,127}$(?!\n)")]


generator = random.Random()  # seeds itself from the system
COUNT_MAX = 0xFFF


class Last:
    """The millisecond of the last id, and how many were made in it."""

    now = 0
    count = 0


def uuid7(now: int) -> str:
    """A UUIDv7 of the millisecond `now`: 48 bits of time, a count of 12 bits, 62 random ones.

    The count keeps the ids of one process in the order in which they were made. Past 4,096 in a millisecond, or when
    the clock was set back, they go on from the last one's time. An id is a name, not a secret, so the bits come from a
    generator seeded by the system, not from the system each time.
    """
    if now > Last.now:
        Last.now, Last.count = now, 0
    elif Last.count < COUNT_MAX:
        Last.count += 1
    else:
        Last.now, Last.count = Last.now + 1, 0
    value = (Last.now & 0xFFFFFFFFFFFF) << 80 | 0x7 << 76 | Last.count << 64 | 0b10 << 62 | generator.getrandbits(62)
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
