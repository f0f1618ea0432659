"""Opening a SQLite file, and what SQLite calls its errors.

The library is apsw, which brings its own SQLite. No other copy of SQLite may have the file open in this process: the
locks of a file belong to the process, and whoever closes it first takes them from all.
"""

import errno
import tempfile
from pathlib import Path

import apsw

from backends.errors import Unavailable

BUSY_MS = 5_000
"""How long a connection waits for another process's lock."""


WRITING = ("SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE")
WHOSE = """
SELECT count(*), (SELECT count(*) FROM pragma_table_info('schema_migrations') WHERE name = 'checksum')
  FROM sqlite_schema
"""
"""How much there is in a file, and whether our migrations have made it."""


def opened(path: str, flags: int = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE) -> apsw.Connection:
    """A connection whose statements keep their plans, whatever values they are given, and stay prepared."""
    db = apsw.Connection(path, flags=flags, statementcachesize=512)
    db.set_busy_timeout(BUSY_MS)
    db.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    return db


def open_to_write(path: Path) -> apsw.Connection:
    """A connection to the file, which is made where there is none."""
    return opened(str(path))


def open_to_read(path: Path) -> apsw.Connection:
    """A connection to the file that never writes it."""
    return opened(str(path), apsw.SQLITE_OPEN_READONLY)


def refuse_other(path: Path, db: apsw.Connection, *, empty: bool = False) -> None:
    """Raise `Unavailable` for a file that another program made: nothing is written to it, and a copy of it would be
    taken for a backup. `empty` lets a file pass in which there is nothing yet."""
    [(things, ours)] = db.execute(WHOSE)
    if not ours and (things or not empty):
        raise Unavailable(f"{path} is no store of Holdfast's; check database_url")


def code_of(error: Exception) -> str:
    """SQLite's own name for what it raised, such as `SQLITE_IOERR_WRITE`; else that of the error's type."""
    code = getattr(error, "extendedresult", 0)
    name = apsw.mapping_extended_result_codes.get(code) or apsw.mapping_result_codes.get(code & 0xFF)
    return str(name) if code and name else type(error).__name__


def lacks_room(error: Exception, path: Path) -> bool:
    """Whether a quota or a limit kept SQLite from writing the file: it calls nothing but a disk full."""
    return code_of(error) in WRITING and no_room(path)


def no_room(path: Path) -> bool:
    """Whether the system would refuse to let a file grow: SQLite calls only ENOSPC full, not a quota or a limit."""
    files = (path, path.with_name(path.name + "-wal"))
    grown = max((file.stat().st_size for file in files if file.exists()), default=0)
    try:
        with tempfile.TemporaryFile(dir=path.parent, buffering=0) as scratch:
            scratch.seek(grown)
            scratch.write(b"-")
    except OSError as error:
        return error.errno in (errno.EFBIG, errno.EDQUOT, errno.ENOSPC)
    return False
