"""Tables for the terminal; wide ones stay whole when the output is a file or a pipe."""

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime


def print_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under their head; null is a dash."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(*head, box=box.SIMPLE_HEAD, pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"
    for row in rows:
        table.add_row(*("–" if value is None else plain(str(value)) for value in row))
    console = Console(width=None if sys.stdout.isatty() else 400, markup=False, highlight=False)
    console.print(table, markup=False)


def plain(text: str) -> str:
    """A text that others chose, as a terminal may have it: what it would obey instead of showing is `�`."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def moment(ms: int | None) -> str | None:
    """A time as people read it, UTC; None for none, and for the beginning of time."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S") if ms else None
