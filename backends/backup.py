"""A safe copy of a SQLite store, served or not.

A copy of the file and then of its WAL is not one: a checkpoint between the two moves pages from the one into the other
and begins the WAL anew, so the copy is old pages under new ones. SQLite's own backup reads one snapshot.
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import apsw

from backends.errors import Corrupt, Full, Unavailable
from backends.new_file import new_file
from backends.sqlite_file import lacks_room, open_to_read, open_to_write, refuse_other

PAGES = 2_048
"""Pages copied, and thousands of instructions checked, before whoever wants to stop it is heard."""


def back_up(source: Path, target: Path) -> int:
    """Copy the state as of now into the new file `target`, and check every page of it; its size in bytes.

    The server goes on meanwhile; its WAL grows until the copy is read. `target` is there whole or not at all. Raises
    `Unavailable`, `Full`, or `Corrupt` when the copy, and so the store, is damaged.
    """
    if not source.exists():
        raise Unavailable(f"there is no file {source}; check database_url")
    try:
        with new_file(target) as part:
            copy(source, part)
    except FileExistsError:
        raise Unavailable(f"{target} exists already; give another path") from None
    except apsw.FullError:
        raise Full(f"there is no room for a copy of {source} at {target}") from None
    except (apsw.Error, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        todo = "see that the one can be read and the other written"
        raise Unavailable(f"{source} cannot be copied to {target}: {why}; {todo}") from error
    return target.stat().st_size


@contextlib.contextmanager
def within_room(part: Path) -> Iterator[None]:
    """Raise `FullError` also where a quota or a limit, and no disk, leaves no room for what is written to `part`."""
    try:
        yield
    except apsw.IOError as error:
        raise (apsw.FullError() if lacks_room(error, part) else error) from None


def copy(source: Path, part: Path) -> None:
    """One snapshot of `source` into `part`, which SQLite then reads from end to end."""
    with (
        contextlib.closing(open_to_read(source)) as theirs,
        contextlib.closing(open_to_write(part)) as ours,
    ):
        shutil.copymode(source, part)
        theirs.execute("BEGIN")
        # This reading begins a snapshot, so that no commit makes the copy begin again.
        refuse_other(source, theirs)
        with ours.backup("main", theirs, "main") as whole, within_room(part):
            while not whole.done:
                whole.step(PAGES)
        ours.set_progress_handler(lambda: False, PAGES * 1_000)
        found = [str(row[0]) for row in ours.execute("PRAGMA integrity_check(1)")]
    if found != ["ok"]:
        raise Corrupt(f"{source} is damaged ({' '.join(found[0].split())}); keep the backups that you have")
