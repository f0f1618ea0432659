"""SQLite files as tests look at them: through the library of the service, since another copy of SQLite in the same
process would take the locks of the file from it."""

from typing import Any

import apsw


def named(cursor: apsw.Cursor, row: tuple[Any, ...]) -> dict[str, Any]:
    """A row by the names of its columns, for `Connection.row_trace`."""
    return {column[0]: value for column, value in zip(cursor.get_description(), row, strict=True)}
