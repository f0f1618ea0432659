"""The tables that travel, as the migrations of this program make them: `COLUMNS` by table, each after those that it
points at."""

from backends import migrate, portable

COLUMNS = portable.tables()
Column = portable.Column
order_of = portable.order_of
execution_of = portable.execution_of


def names_of(table: str) -> list[str]:
    """The names of a table's columns."""
    return [column.name for column in COLUMNS[table]]


def schema() -> int:
    """The number of the last migration that this program knows."""
    return migrate.known()[-1].number
