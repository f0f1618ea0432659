"""How a problem in a document is told: where (a JSON pointer, RFC 6901) and what (a sentence)."""

from collections.abc import Iterable, Sequence
from typing import Any

Problem = tuple[str, str]

MOST_PROBLEMS = 1_000
MOST_CHARACTERS = 1 << 20
MOST_SHOWN = 80


def pointer(*steps: str | int) -> str:
    """The JSON pointer of the value under `steps`; no steps is the document itself."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


def shown(value: Any) -> str:
    """`value` as a sentence can hold it: strings quoted and cut short, objects and arrays only named."""
    if isinstance(value, str):
        return repr(value) if len(value) <= MOST_SHOWN else repr(value[:MOST_SHOWN]) + "…"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, bool) or value is None:
        return {None: "null", True: "true", False: "false"}[value]
    return "a number beyond 64 bits" if isinstance(value, int) and value.bit_length() > 64 else repr(value)


def capped(found: Iterable[Problem]) -> list[Problem]:
    """The first problems, at most 1,000 and about 1 MiB of text: long keys repeated in pointers must not add up."""
    kept: list[Problem] = []
    room = MOST_CHARACTERS
    for where, what in found:
        kept.append((where, what))
        room -= len(where) + len(what)
        if len(kept) == MOST_PROBLEMS or room <= 0:
            break
    return kept


def full(found: Sequence[Problem]) -> bool:
    """Whether these are as many as are told, so that there may be more."""
    return len(found) >= MOST_PROBLEMS or sum(len(where) + len(what) for where, what in found) >= MOST_CHARACTERS
