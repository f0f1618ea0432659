"""Bytes that flip and pages that are torn in a SQLite store: the server refuses to start, or answers 5xx, or what it
serves is right, but for what plain SQLite cannot know: a value whose own bytes were changed where it lies."""

import contextlib
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import httpx
import pytest

from backends import connect, sqlite
from backends.damage import Wal
from backends.errors import Corrupt, OutcomeUnknown, StoreError
from service.cli.doctor import examined
from service.main import running
from tests.conftest import Clock, Service, serving, settings_for
from tests.faults import sqlite_copy
from tests.faults.evidence import record
from tests.faults.sqlite_copy import read_only

RUNS = 24
PAGE = 4096
FILES = ("holdfast.db", "holdfast.db-wal")
LAST = 2
"""The most events of the last commit."""
TABLES = ("executions", "events", "work_items", "states", "tokens", "tenants", "audit", "audit_heads")


class Stock(NamedTuple):
    """A store as it was left, `killed` with a WAL and `closed` without: its files, and what each path answered."""

    killed: Path
    closed: Path
    token: str
    answers: dict[str, Any]


async def stock(folder: Path) -> Stock:
    """A store with some of everything, the last of it in the WAL alone, as a server leaves it that is killed."""
    live, killed, closed = folder / "live", folder / "killed", folder / "closed"
    live.mkdir()
    async with serving(f"sqlite:///{live / 'holdfast.db'}") as service:
        api = await service.tenant()
        for n in range(RUNS):
            text = f"text of {n} " * (1 + n % 40)
            await api.start(execution_id=f"e{n}", input={"n": n, "text": text}, start={"queue": "q", "id": f"i{n}"})
        for n, item in enumerate(await api.claim("q", max_items=RUNS)):
            if n == RUNS - 4:
                service.services.backend._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            await api.ok("POST", f"/v1/work-items/{item['id']}/complete", json={"epoch": 1, "result": item["id"]})
        answers = await asked(api.http)
        shutil.copytree(live, killed)
        token = api.owner_token
    shutil.copytree(live, closed)
    return Stock(killed, closed, token, answers)


def paths() -> list[str]:
    """What is read of a store: points, logs and lists."""
    each = [path for n in range(RUNS) for path in (f"/v1/executions/e{n}", f"/v1/executions/e{n}/events?limit=1000",
                                                     f"/v1/work-items/i{n}")]  # fmt: skip
    return [*each, "/v1/executions?limit=1000", "/v1/work-items?limit=1000", "/v1/events?limit=1000"]


async def asked(http: httpx.AsyncClient) -> dict[str, Any]:
    """Status and JSON of each path; its bytes where they are no JSON."""
    found: dict[str, Any] = {}
    for path in paths():
        answer = await http.get(path)
        try:
            told = answer.json()
            told.pop("next_cursor", None)
        except ValueError:
            told = answer.content
        found[path] = answer.status_code, told
    return found


def damage(folder: Path, chance: random.Random) -> str:
    """Flip bytes, or tear or blank a page, of the file or its WAL; what was done."""
    path = chance.choice([file for name in FILES if (file := folder / name).exists() and file.stat().st_size])
    size = path.stat().st_size
    how = chance.choice(["flip", "flip", "flip", "blank", "tear", "cut"])
    with path.open("r+b") as file:
        if how == "flip":
            for _ in range(chance.randrange(1, 17)):
                at = chance.randrange(size)
                file.seek(at)
                old = file.read(1)[0]
                file.seek(at)
                file.write(bytes([old ^ chance.randrange(1, 256)]))
        elif how == "cut":
            file.truncate(chance.randrange(size))
        else:
            file.seek(chance.randrange(size // PAGE) * PAGE + (PAGE // 2 if how == "tear" else 0))
            file.write(bytes(PAGE // 2 if how == "tear" else PAGE))
    return f"{how} of {path.name}"


@contextlib.asynccontextmanager
async def serving_again(stock: Stock, path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A store served again, asked with the token that it had."""
    clock = Clock()
    async with running(settings_for(f"sqlite:///{path}"), clock) as services:
        service = Service(services, clock, "")
        try:
            yield service.client(stock.token)
        finally:
            await service.close()


def wrong(stock: Stock, answers: dict[str, Any]) -> list[str]:
    """The paths whose answer is neither what it was nor a 5xx."""
    return [path for path, told in answers.items() if told[0] < 500 and told != stock.answers[path]]


def scanned(path: Path) -> dict[str, dict[Any, Any]]:
    """Every row of the tables by its row id, read without an index."""
    with contextlib.closing(sqlite3.connect(read_only(path), uri=True)) as db:
        db.text_factory = bytes
        return {
            table: {row[0]: row[1:] for row in db.execute(f"SELECT rowid, * FROM {table} NOT INDEXED")}
            for table in TABLES
        }


def in_place(whole: Path, damaged: Path) -> bool:
    """Whether the tables have the same rows, some with another value: nothing of which plain SQLite could know."""
    left, right = scanned(whole), scanned(damaged)
    return all(left[table].keys() == right[table].keys() for table in TABLES)


def lost(whole: Path, damaged: Path) -> int | None:
    """How many events are missing at the end of the feed; None if it is not a beginning of what it was."""
    left, right = dict(sqlite_copy.digests(whole)), list(sqlite_copy.digests(damaged))
    count, digest = right[-1]
    return len(left) - 1 - count if left.get(count) == digest else None


async def judged(stock: Stock, whole: Path, folder: Path, how: str) -> str:
    """What a damaged store comes to; raises AssertionError where wrong data is served that SQLite could have known."""
    served, looked_at = folder / "served", folder / "looked-at"
    shutil.copytree(served, looked_at)
    try:
        async with serving_again(stock, served / "holdfast.db") as http:
            answers = await asked(http)
    except StoreError:
        return "the start was refused"
    failed = [told["code"] for status, told in answers.values() if status >= 500]
    assert set(failed) <= {"store/corrupt", "server/error"}, failed
    if not wrong(stock, answers):
        return "answered with 5xx or right" if failed else "all answers were right"
    if any(mark == "FAIL" for mark, _, _ in await examined(settings_for(f"sqlite:///{looked_at / 'holdfast.db'}"))):
        return "found by the doctor"
    gone = lost(whole / "holdfast.db", looked_at / "holdfast.db")
    if gone and "-wal" in how:
        assert how.startswith("cut") or gone <= LAST, f"{how}: {gone} events are gone"
        return "a cut of the log: an earlier moment" if how.startswith("cut") else "the last commit: as a power cut"
    assert in_place(whole / "holdfast.db", looked_at / "holdfast.db"), f"{how}: {wrong(stock, answers)[:3]}"
    return "a value changed where it lies"


async def damaged(folder: Path, count: int, seed: int) -> Counter[str]:
    """So many damaged stores; what each came to."""
    found = await stock(folder)
    seen: Counter[str] = Counter()
    for number in range(count):
        own, whole = folder / f"damaged{number}", (found.killed, found.closed)[number % 2]
        shutil.copytree(whole, own / "served")
        how = damage(own / "served", random.Random(f"{seed}/{number}"))
        try:
            seen[await judged(found, whole, own, how)] += 1
        except Exception as error:
            raise AssertionError(f"seed {seed}/{number}, {how}") from error
        shutil.rmtree(own)
    return seen


async def test_flipped_and_torn_bytes_are_told_or_do_no_harm_but_in_a_value_itself(tmp_path: Path) -> None:
    seen = await damaged(tmp_path, 20, seed=1)
    assert seen["the start was refused"], seen


def flipped(path: Path, index: int) -> None:
    """Flip a byte in the page of a frame of a WAL's present round."""
    wal = Wal.of(path)
    assert wal is not None
    frame = [one for one in wal.frames if one.round == wal.round][index]
    with path.open("r+b") as file:
        file.seek(32 + frame.number * (PAGE + 24) - PAGE + 100)
        old = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([old ^ 1]))


async def test_damage_within_the_log_is_told_and_left_until_an_operator_gives_it_up(tmp_path: Path) -> None:
    found = await stock(tmp_path)
    path, wal = found.killed / "holdfast.db", found.killed / "holdfast.db-wal"
    flipped(wal, 2)
    for _ in range(2):  # the second time too: to be refused changes nothing
        with pytest.raises(Corrupt, match="commits there cannot be read"):
            await connect(f"sqlite:///{path}")
    with contextlib.closing(apsw.Connection(str(path))) as db:  # as docs/backup.md says
        assert db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    async with serving_again(found, path) as http:
        assert (await http.get("/v1/executions")).status_code == 200
    assert lost(found.closed / "holdfast.db", path)


async def test_damage_in_the_last_commit_of_the_log_is_taken_for_a_power_cut(tmp_path: Path) -> None:
    found = await stock(tmp_path)
    flipped(found.killed / "holdfast.db-wal", -1)
    async with serving_again(found, found.killed / "holdfast.db") as http:
        assert (await http.get("/v1/executions")).status_code == 200
    assert lost(found.closed / "holdfast.db", found.killed / "holdfast.db") in range(1, LAST + 1)


async def test_a_file_that_is_older_than_a_log_just_begun_anew_is_told(tmp_path: Path) -> None:
    """The WAL has its new header and no frame of the new round yet: SQLite alone would open the old file as it is."""
    path, copy = tmp_path / "holdfast.db", tmp_path / "copy" / "holdfast.db"
    wal = path.with_name("holdfast.db-wal")
    copy.parent.mkdir()
    async with serving(f"sqlite:///{path}") as service:
        api, db = await service.tenant(), service.services.backend._db
        await api.start(execution_id="e1")
        db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        await api.start(execution_id="e2")  # begins a round
        older = path.read_bytes()
        await api.start(execution_id="e3")
        db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        newer, round_before = path.read_bytes(), wal.read_bytes()
        await api.start(execution_id="e4")  # begins the next
        begun = wal.read_bytes()[:32] + round_before[32:]
    for content in (newer, older):
        copy.write_bytes(content)
        copy.with_name("holdfast.db-wal").write_bytes(begun)
        with contextlib.closing(sqlite3.connect(read_only(copy), uri=True)) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        if content is newer:
            await (await connect(f"sqlite:///{copy}")).close()
            for left in copy.parent.glob("holdfast.db*"):
                left.unlink()
    with pytest.raises(Corrupt, match="older than its -wal"):
        await connect(f"sqlite:///{copy}")


@pytest.mark.parametrize("how", ["gone", "emptied"])
async def test_a_log_whose_file_is_gone_is_not_dropped_for_a_new_store(tmp_path: Path, how: str) -> None:
    found = await stock(tmp_path)
    file, log = found.killed / "holdfast.db", found.killed / "holdfast.db-wal"
    whole, before = file.read_bytes(), log.read_bytes()
    file.unlink() if how == "gone" else file.write_bytes(b"")
    for _ in range(2):
        with pytest.raises(Corrupt, match="holds commits of it"):
            await connect(f"sqlite:///{file}")
    assert log.read_bytes() == before
    file.write_bytes(whole)
    async with serving_again(found, file) as http:
        assert wrong(found, await asked(http)) == []


def test_a_commit_that_could_not_be_synced_is_an_unknown_outcome() -> None:
    error = apsw.exception_for(apsw.SQLITE_IOERR_FSYNC)
    assert isinstance(sqlite.translate(error), OutcomeUnknown)


async def test_a_store_that_was_seen_to_be_damaged_is_read_and_not_written(tmp_path: Path) -> None:
    async with serving(f"sqlite:///{tmp_path / 'holdfast.db'}") as service:
        api, backend = await service.tenant(), service.services.backend
        await api.start(execution_id="e1")
        backend._store_error(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"))  # as a read would
        problem = await api.refused("POST", "/v1/executions", "store/corrupt", json={"workflow_id": "wf"})
        assert problem["status"] == 503
        assert (await api.ok("GET", "/v1/executions/e1"))["execution_id"] == "e1"
        assert (await api.http.get("/readyz")).status_code == 503


@pytest.mark.slow
async def test_a_thousand_damaged_stores_are_told_or_do_no_harm_but_in_a_value_itself(tmp_path: Path) -> None:
    seen = await damaged(tmp_path, 1_000, seed=2)
    figures = {name.replace(" ", "_").replace(":", ""): count for name, count in sorted(seen.items())}
    record("Flipped, torn and blank bytes of file and WAL are told, or do no harm", "sqlite", damaged=1_000, **figures)
