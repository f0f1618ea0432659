"""Ways to take a server's room away and to give it back, while it runs."""

import contextlib
import ctypes
import os
import random
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from tests.races.server import Server

PAGE = 4096
libc = ctypes.CDLL(None, use_errno=True)


class Room(Protocol):
    """The room of one server. Between `take` and `give` its files cannot grow."""

    folder: Path
    way: str

    def take(self, server: Server, chance: random.Random) -> None:
        """Leave the server a little room, or none."""

    def give(self, server: Server) -> None:
        """Give it all back."""


class Limit:
    """The most bytes a file of the server's process may have (RLIMIT_FSIZE): writes behind it fail with EFBIG."""

    way = "a limit of file sizes"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def take(self, server: Server, chance: random.Random) -> None:
        """The limit lies somewhere in what the files are, or shortly behind."""
        largest = max(path.stat().st_size for path in self.folder.glob("holdfast.db*"))
        self._set(server, chance.randrange(8, largest // PAGE + 16) * PAGE + chance.choice([0, 1, 24, 2000]))

    def give(self, server: Server) -> None:
        """No limit."""
        self._set(server, resource.RLIM_INFINITY)

    @staticmethod
    def _set(server: Server, size: int) -> None:
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


class Disk:
    """A small file system in memory, in which somebody else's file takes all the room: writes fail with ENOSPC.

    The server's log lies there, too.
    """

    way = "a small file system"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def take(self, server: Server, chance: random.Random) -> None:
        """All but a few pages."""
        with (self.folder / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(PAGE))
        size = (self.folder / "ballast").stat().st_size
        os.truncate(self.folder / "ballast", max(0, size - chance.randrange(8) * PAGE))

    def give(self, server: Server) -> None:
        """The other file goes."""
        (self.folder / "ballast").unlink()


def mount(folder: Path, size: int) -> bool:
    """Put a file system of `size` bytes over a folder; False where that is not permitted."""
    return libc.mount(b"holdfast", os.fsencode(folder), b"tmpfs", 0, b"size=%d" % size) == 0


@contextlib.contextmanager
def rooms(folder: Path, size: int) -> Iterator[list[Room]]:
    """Every way that this machine permits, each with a folder of its own."""
    limit, disk = folder / "limit", folder / "disk"
    limit.mkdir()
    disk.mkdir()
    mounted = mount(disk, size)
    try:
        yield [Limit(limit), Disk(disk)] if mounted else [Limit(limit)]
    finally:
        if mounted:
            libc.umount2(os.fsencode(disk), 2)  # MNT_DETACH: whatever still has a file open there
