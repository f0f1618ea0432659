"""What msgspec says of a value that does not fit, where it would show a regular expression: what a text may hold."""

import re

SHOWN = re.compile(r"Expected `str` matching regex (['\"])\^(.*?)\$\(\?!\\\\n\)\1")
RUN = re.compile(r"(?:\(([^\[]+))?\[([^\]]+)\](?:\{([0-9]+)(?:,([0-9]+))?\})?")
"""One run of characters: of which, from how many to how many; after `(`, what stands before a run that may be missing.
Patterns of this service are such runs from end to end."""


def in_words(message: str) -> str:
    """msgspec's message without a pattern of ours: `[a-z0-9-]{1,63}` is `1–63 characters: a–z 0–9 -`."""
    return SHOWN.sub(lambda found: f"Expected a text of {runs(found[2])}", message)


def runs(pattern: str) -> str:
    """A pattern in words. A first run of one character tells what the text begins with."""
    found = [(before, each(letters), int(low or 1), int(high or low or 1))
             for before, letters, low, high in RUN.findall(pattern)]  # fmt: skip
    (_, letters, low, high), *rest = found
    if (low, high) == (1, 1) and rest:
        begin, (_, letters, low, high), *rest = letters, *rest
        said = f"{count(low + 1, high + 1)}: {letters}; the first one of {begin}"
    else:
        said = f"{count(low, high)}: {letters}"
    return said + "".join(f"; then, if at all, {before} and {count(*most)}: {more}" for before, more, *most in rest)


def count(low: int, high: int) -> str:
    """How many characters."""
    return f"{low} character{'s' if low > 1 else ''}" if low == high else f"{low}–{high} characters"


def each(letters: str) -> str:
    """The inside of a class of characters, its ranges and the rest of them apart: `A-Za-z_.-` is `A–Z a–z _ . -`."""
    return " ".join(f"{one[0]}–{one[2]}" if len(one) == 3 else one for one in re.findall(r".-.|.", letters))
