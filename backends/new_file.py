"""A new file that is there whole or not at all, and never in the place of another."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """An empty file beside `target` to write to, for the one who runs this alone; it becomes `target`, on disk, when
    the block ends well, and goes when it does not. Of two at once the first to end has the name.

    Raises `FileExistsError` when there is a `target`, before or at the end, and what the system says of its folder.
    """
    if os.path.lexists(target):
        raise taken(target)
    try:
        at, name = tempfile.mkstemp(".part", target.name + ".", target.parent)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(target)) from None
    part = Path(name)
    try:
        yield part
        os.fsync(at)
        give_name(part, target)
    finally:
        os.close(at)
        part.unlink(missing_ok=True)
    sync_folder(target.parent)


def taken(target: Path) -> FileExistsError:
    """There is a file already."""
    return FileExistsError(0, "exists already", str(target))


def give_name(part: Path, target: Path) -> None:
    """A second name that nothing has yet; a file system without second names leaves a moment between look and move."""
    try:
        os.link(part, target)
    except FileExistsError:
        raise taken(target) from None
    except OSError:
        if os.path.lexists(target):
            raise taken(target) from None
        part.rename(target)


def sync_folder(folder: Path) -> None:
    """Make a new name in a folder outlast a power cut."""
    at = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(at)
    finally:
        os.close(at)
