"""Status machines as tables: which status may follow which, checked complete when the program starts."""

from collections.abc import Mapping

from service.errors import StateError


class Machine:
    """A table `from → {to}`. Every status has a row; one with an empty row is terminal."""

    def __init__(self, name: str, table: Mapping[str, frozenset[str]]) -> None:
        unknown = {to for row in table.values() for to in row} - set(table)
        if unknown:
            raise ValueError(f"the {name} machine leads to statuses it does not define: {sorted(unknown)}")
        self.name, self.table = name, table
        self.statuses = frozenset(table)
        self.terminal = frozenset(status for status, row in table.items() if not row)

    def step(self, old: str, new: str) -> str:
        """`new`, if it may follow `old`."""
        if new not in self.table[old]:
            allowed = sorted(self.table[old])
            raise StateError(
                "execution/transition",
                f"The {self.name} is {old!r} and cannot become {new!r}; from here it can become "
                f"{', '.join(allowed) or 'nothing'}.",
                current_status=old,
                offered=new,
                allowed=allowed,
            )
        return new

    def drawn(self) -> str:
        """The table as Mermaid, for the docs."""
        lines = [f"    {old} --> {new}" for old, row in self.table.items() for new in sorted(row)]
        ends = [f"    {status} --> [*]" for status in sorted(self.terminal)]
        return "\n".join(["stateDiagram-v2", *lines, *ends])
