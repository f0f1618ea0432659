"""Tables for the terminal; wide ones stay whole when the output is a file or a pipe."""

import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from service.cli.output import fits

FEW = 3
"""Columns that can be folded and still be read."""


def print_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under their head; null is a dash. Where many columns do not fit into a terminal each row is a list."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    cells = [[nothing() if value is None else plain(str(value)) for value in row] for row in rows]
    console = Console(width=None if sys.stdout.isatty() else 400, markup=False, highlight=False)
    if len(head) > FEW and width_of(head, cells) > console.width:
        print("\n".join(listed(head, row) for row in cells), end="")
        return
    style = "" if os.environ.get("NO_COLOR") else "bold"
    table = Table(*head, box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style=style)
    for column in table.columns:
        column.overflow = "fold"
    for row in cells:
        table.add_row(*row)
    console.print(table, markup=False)


def nothing() -> str:
    """What stands where there is nothing."""
    return "–" if fits("–") else "-"


def width_of(head: Sequence[str], rows: Iterable[Sequence[str]]) -> int:
    """How many columns of a terminal the table takes if nothing is folded."""
    return sum(max(map(len, column)) + 3 for column in zip(head, *rows, strict=True))


def listed(head: Sequence[str], row: Sequence[str]) -> str:
    """A row as lines, without what it does not have."""
    width = max(map(len, head))
    return "".join(
        f"{name:<{width}}  {value}\n" for name, value in zip(head, row, strict=True) if value not in ("", nothing())
    )


def plain(text: str) -> str:
    """A text that others chose, as a terminal may have it: what it would obey instead of showing is `�`."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def moment(ms: int | None) -> str | None:
    """A time as people read it, UTC; None for none, and for the beginning of time."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S") if ms else None
