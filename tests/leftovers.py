"""Folders of Postgres servers for tests, and what runs that were killed have left: servers that serve nobody, their
folders, their shared memory. The next run that wants a folder clears away what no living process owns.

Whoever has a folder holds a lock on it, which goes with the process, however it ends.
"""

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

PREFIX, MEMORY = "holdfast-pg-", Path("/dev/shm")
YOUNG_SECONDS = 3_600
"""A folder that was touched since then may be on its way to its lock."""
PATIENCE_SECONDS, IPC_RMID = 10, 0


@contextlib.contextmanager
def own_folder(where: Path | None = None) -> Iterator[Path]:
    """A new folder, removed at the end, in `where` or among the temporary files."""
    clear(Path(tempfile.gettempdir()), MEMORY)
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=where, ignore_cleanup_errors=True) as name, held(Path(name)):
        yield Path(name)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[bool]:
    """Hold a folder; False where somebody else does."""
    at = os.open(folder, os.O_RDONLY)
    try:
        yield locked(at)
    finally:
        os.close(at)


def locked(at: int) -> bool:
    """Lock an open folder, if nobody has."""
    try:
        fcntl.flock(at, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def clear(*places: Path) -> None:
    """Remove the folders in `places` that nobody holds, and end the servers in them."""
    for folder in [found for place in places for found in place.glob(f"{PREFIX}*")]:
        with contextlib.suppress(OSError):  # another run clears it too, or it is another user's
            if time.time() - folder.stat().st_mtime > YOUNG_SECONDS:
                with held(folder) as ours:
                    if ours:
                        remove(folder)


def remove(folder: Path) -> None:
    """End the servers whose data a folder holds, give back their shared memory, and remove it."""
    for told in [*folder.glob("postmaster.pid"), *folder.glob("*/postmaster.pid")]:
        lines = told.read_text().splitlines()
        end(int(lines[0]), folder)
        if len(lines) > 6 and lines[6].split() in detached():
            ctypes.CDLL(None).shmctl(int(lines[6].split()[1]), IPC_RMID, None)
    shutil.rmtree(folder, ignore_errors=True)


def end(pid: int, folder: Path) -> None:
    """End a process at once, if it is a server on `folder`: numbers are used again."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        if any(word.startswith(str(folder)) for word in process.cmdline()):
            process.send_signal(signal.SIGQUIT)
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(PATIENCE_SECONDS)


def detached() -> list[list[str]]:
    """Key and id of each piece of System V shared memory that no process has."""
    table = Path("/proc/sysvipc/shm")
    rows = [line.split() for line in table.read_text().splitlines()[1:]] if table.exists() else []
    return [row[:2] for row in rows if row[6] == "0"]
