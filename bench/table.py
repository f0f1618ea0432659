"""Tables: for the terminal and for Markdown."""

from collections.abc import Iterable, Sequence

import msgspec


class Table(msgspec.Struct):
    """Cells as they are shown; the first column and those in `left` are words, the others figures."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: Sequence[str] = ("goal",)

    def wordy(self, at: int) -> bool:
        """Whether a column holds words."""
        return at == 0 or self.columns[at] in self.left


def text(table: Table) -> str:
    """For the terminal."""
    lines = [table.columns, *table.rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(table.columns))]
    return f"\n{table.title}\n" + "\n".join(aligned(table, line, widths) for line in lines)


def aligned(table: Table, line: Sequence[str], widths: Sequence[int]) -> str:
    """Words to the left, figures to the right."""
    cells = zip(line, widths, strict=True)
    placed = (cell.ljust(width) if table.wordy(at) else cell.rjust(width) for at, (cell, width) in enumerate(cells))
    return "  ".join(placed).rstrip()


def markdown(table: Table) -> str:
    """For the README."""
    marks = ["---" if table.wordy(at) else "---:" for at in range(len(table.columns))]
    return "\n".join([f"\n**{table.title}**\n", *(piped(line) for line in (table.columns, marks, *table.rows))])


def piped(cells: Iterable[str]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def verdict(said: str, reached: bool) -> str:
    """A goal and whether it was reached."""
    return f"{said} {'pass' if reached else 'MISS'}"
