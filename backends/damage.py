"""What is wrong with a SQLite file before it is served, as far as the file and its write-ahead log (WAL) can tell.

SQLite checks a page when it reads it, and stops reading the WAL at the first frame whose checksum is wrong: what
follows is dropped without a word, because after a power cut that is as it should be. Two things that it does not look
at are told here. Commits behind that place: each was synced before the next began, so a power cut leaves one there at
most, and two are the work of something else. And what is left of the WAL's round before: its pages went into the file
before the WAL began anew, so a file that has others is older than its WAL, as when one was copied after the other.
"""

import contextlib
import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import apsw

from backends.errors import Corrupt
from backends.sqlite_file import open_to_read

SECONDS = 0.3
"""How long a start looks at the pages; `holdfast doctor` looks at all of them."""
HEADER, FRAME = struct.Struct(">8I"), struct.Struct(">6I")
MAGIC = (0x377F0682, 0x377F0683)
"""Of a WAL whose checksums read words as little, and as big endian."""


def refuse(path: Path, *, every_commit_synced: bool) -> None:
    """Raise `Corrupt` if the file or its WAL is seen to be damaged. Opens and closes it; nothing else may hold it yet.

    A file of any size costs at most `SECONDS`: pages that were not looked at by then count as whole.
    """
    if beside(path, "-journal").exists():  # a first commit cut short: the writer undoes it
        return
    if not path.exists() or not path.stat().st_size:
        refuse_remains(path)
        return
    with contextlib.closing(open_to_read(path)) as db:
        faults = faults_of(db)
    if faults:
        raise Corrupt(f"{path} is damaged ({faults[0]}); restore it from a backup")
    wal = Wal.of(beside(path, "-wal"))
    if wal is None:
        return
    read = frames_read(beside(path, "-shm"))
    lost = sum(frame.ends and frame.number > read for frame in wal.frames if frame.round == wal.round)
    if lost > 1 and every_commit_synced:
        raise Corrupt(
            f"{path}-wal is damaged behind frame {read}, {lost} commits there cannot be read; restore a backup, "
            "or go on without those commits as docs/backup.md says"
        )
    if lacks_pages(path, wal, read):
        raise Corrupt(
            f"{path} is damaged, or older than its -wal because they were copied one after the other; restore a backup"
        )


def refuse_remains(path: Path) -> None:
    """Raise `Corrupt` for the WAL of a file that is gone: SQLite would drop the commits in it without a word."""
    if Wal.of(beside(path, "-wal")) is not None:
        raise Corrupt(
            f"{path} is gone or empty, and {path}-wal holds commits of it; restore a backup, or move the -wal away to "
            "begin anew"
        )


def beside(path: Path, ending: str) -> Path:
    """The file that SQLite keeps next to the store."""
    return path.with_name(path.name + ending)


def faults_of(db: apsw.Connection) -> list[str]:
    """What `quick_check` says within `SECONDS`; empty when it found nothing, or got no further."""
    timer = threading.Timer(SECONDS, db.interrupt)
    timer.start()
    try:
        found = [" ".join(str(row[0]).split()) for row in db.execute("PRAGMA quick_check")]
    except apsw.InterruptError:
        return []
    finally:
        timer.cancel()
        timer.join()
    return [] if found == ["ok"] else found


class Frame(NamedTuple):
    """The head of a frame: its number, from 1; the page it holds; whether it ends a transaction; the WAL's round."""

    number: int
    page: int
    ends: bool
    round: int


class Wal(NamedTuple):
    """A WAL that has frames. Each time that it begins anew, `round` is one more; frames behind stay as they were."""

    path: Path
    page_size: int
    round: int
    frames: list[Frame]

    @classmethod
    def of(cls, path: Path) -> "Wal | None":
        """Read the heads of all frames; None where there are none. Raises `Corrupt` for a header that is none."""
        if not path.exists() or path.stat().st_size <= HEADER.size:
            return None
        with path.open("rb") as file:
            head = file.read(HEADER.size)
            magic, _, size, _, salt, _, *sums = HEADER.unpack(head)
            if magic not in MAGIC or checksum(head[:24], big=magic == MAGIC[1]) != tuple(sums):
                raise Corrupt(f"the header of {path} is damaged; restore the file from a backup")
            return cls(path, size, salt, list(frames_of(file, size)))

    def content(self, frame: Frame) -> bytes:
        """The page that a frame holds."""
        with self.path.open("rb") as file:
            file.seek(HEADER.size + frame.number * (FRAME.size + self.page_size) - self.page_size)
            return file.read(self.page_size)


def frames_of(file: BinaryIO, page_size: int) -> Iterator[Frame]:
    """The heads of the frames that are whole."""
    whole = (os.fstat(file.fileno()).st_size - HEADER.size) // (FRAME.size + page_size)
    for number in range(1, whole + 1):
        page, pages_then, salt, *_ = FRAME.unpack(file.read(FRAME.size))
        yield Frame(number, page, pages_then > 0, salt)
        file.seek(page_size, 1)


def lacks_pages(path: Path, wal: Wal, read: int) -> bool:
    """Whether a page of the WAL's round before, which has not been written since, is not in the file."""
    left = [frame for frame in wal.frames[read:] if frame.round == (wal.round - 1) & 0xFFFFFFFF]
    while left and not left[-1].ends:  # a transaction that was never committed
        left.pop()
    before = {frame.page: frame for frame in left}
    since = {frame.page for frame in wal.frames[:read]}
    with path.open("rb") as file:
        for page in before.keys() - since:
            file.seek((page - 1) * wal.page_size)
            if file.read(wal.page_size) != wal.content(before[page]):
                return True
    return False


def checksum(data: bytes, *, big: bool) -> tuple[int, int]:
    """SQLite's checksum of the WAL, over whole pairs of words."""
    one = two = 0
    words = struct.unpack(f"{'>' if big else '<'}{len(data) // 4}I", data)
    for first, second in zip(words[::2], words[1::2], strict=True):
        one = (one + first + two) & 0xFFFFFFFF
        two = (two + second + one) & 0xFFFFFFFF
    return one, two


def frames_read(index: Path) -> int:
    """How far SQLite reads the WAL: a number in the index that it made when the file was last opened.

    Reading another file of the store would drop this process's locks on it, so no connection may be open.
    """
    with index.open("rb") as file:
        return int(struct.unpack_from("=I", file.read(20), 16)[0])
