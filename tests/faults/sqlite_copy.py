"""What a copy of a SQLite store holds, against what its server acknowledged and went on to write."""

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from service.cli.doctor import examined
from tests.conftest import settings_for
from tests.faults.ledger import Ledger

RANK = {"ready": 0, "leased": 1, "completed": 2}
FEED = "SELECT position, tenant_id, execution_id, sequence, kind, body, at, actor, work_item_id FROM events ORDER BY 1"


class Told:
    """What a ledger had been told by some moment."""

    def __init__(self, ledger: Ledger) -> None:
        self.executions = set(ledger.executions)
        self.said = {run: len(bodies) for run, bodies in ledger.logs.items()}
        self.items = dict(ledger.items)


class Prefix(NamedTuple):
    """How far a copy goes: so many events of the store's feed, which add up to `digest`."""

    count: int
    digest: str


def rows(path: Path, statement: str) -> Iterator[Any]:
    """The rows of a statement, whatever bytes their texts have; the file and its WAL stay as they are."""
    with contextlib.closing(sqlite3.connect(read_only(path), uri=True)) as db:
        db.text_factory = lambda text: text.decode(errors="surrogateescape")
        yield from db.execute(statement)


def read_only(path: Path) -> str:
    """The URI of a file that nobody else has open, for a connection that never writes it."""
    return f"{path.absolute().as_uri()}?mode=ro"


def digests(path: Path) -> Iterator[tuple[int, str]]:
    """After each event of the feed, from the first to the last: its position and a digest of all up to it."""
    said = hashlib.sha256()
    yield 0, said.hexdigest()
    for row in rows(path, FEED):
        said.update(repr(row).encode())
        yield row[0], said.hexdigest()


async def faults(path: Path) -> list[str]:
    """What `holdfast doctor` says is wrong with a copy."""
    found = await examined(settings_for(f"sqlite:///{path}"))
    return [f"{what}: {said}" for mark, what, said in found if mark == "FAIL"]


def prefix(path: Path, before: Told) -> Prefix:
    """How far a copy goes. It must hold all that was acknowledged before it was begun; AssertionError if not."""
    last, digest = 0, ""
    for count, (position, said) in enumerate(digests(path)):
        assert position == count, f"the feed has a gap before {position}"
        last, digest = position, said
    held = {run for (run,) in rows(path, "SELECT id FROM executions")}
    assert before.executions <= held, f"lost: {sorted(before.executions - held)[:3]}"
    counted = "SELECT execution_id, count(*) FROM events WHERE kind = 'said' GROUP BY 1"
    said_there = dict(rows(path, counted))
    short = {run: said_there.get(run, 0) for run, count in before.said.items() if said_there.get(run, 0) < count}
    assert not short, f"events are lost: {short}"
    items = dict(rows(path, "SELECT id, status FROM work_items"))
    behind = [item for item, status in before.items.items() if RANK[items.get(item, "ready")] < RANK[status]]
    assert before.items.keys() <= items.keys() and not behind, f"items are behind: {behind[:3]}"
    return Prefix(last, digest)
