"""A safe copy of a SQLite store, served or not.

A copy of the file and then of its WAL is not one: a checkpoint between the two moves pages from the one into the other
and begins the WAL anew, so the copy is old pages under new ones. SQLite's own backup reads one snapshot.
"""

import contextlib
import os
import shutil
from pathlib import Path

import apsw

from backends.errors import Corrupt, Unavailable
from backends.sqlite_file import open_to_read, open_to_write


def back_up(source: Path, target: Path) -> int:
    """Copy the state as of now into the new file `target`, and check every page of it; its size in bytes.

    The server goes on meanwhile; its WAL grows until the copy is read. `target` is there whole or not at all. Raises
    `Unavailable`, or `Corrupt` when the copy, and so the store, is damaged.
    """
    if not source.exists():
        raise Unavailable(f"there is no file {source}; check database_url")
    if target.exists():
        raise Unavailable(f"{target} exists already; give another path")
    part = target.with_name(target.name + ".part")
    part.unlink(missing_ok=True)
    try:
        copy(source, part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.rename(target)
    except apsw.Error as error:
        raise Unavailable(f"{source} cannot be copied to {target}: {error}") from error
    finally:
        part.unlink(missing_ok=True)
    sync_folder(target.parent)
    return target.stat().st_size


def copy(source: Path, part: Path) -> None:
    """One snapshot of `source` into `part`, which SQLite then reads from end to end."""
    with (
        contextlib.closing(open_to_read(source)) as theirs,
        contextlib.closing(open_to_write(part)) as ours,
    ):
        shutil.copymode(source, part)
        with ours.backup("main", theirs, "main") as whole:
            whole.step(-1)  # in one step, so that no commit makes it begin again
        found = [str(row[0]) for row in ours.execute("PRAGMA integrity_check(1)")]
    if found != ["ok"]:
        raise Corrupt(f"{source} is damaged ({' '.join(found[0].split())}); keep the backups that you have")


def sync_folder(folder: Path) -> None:
    """Make a new name in a folder outlast a power cut."""
    at = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(at)
    finally:
        os.close(at)
