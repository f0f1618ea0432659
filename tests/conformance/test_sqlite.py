"""What holds on SQLite alone: one writer, one process, a disk that may be full."""

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest

from backends import connect
from backends.errors import Full, StoreError, Unavailable
from backends.protocol import Tx
from backends.sqlite import SqliteBackend
from backends.sqlite_file import open_to_read
from tests.conformance.jobs import adding, exists, job
from tests.conftest import serving


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[SqliteBackend]:
    """A migrated file of one's own."""
    backend = await connect(f"sqlite:///{tmp_path / 'own.db'}")
    assert isinstance(backend, SqliteBackend)
    await backend.migrate()
    yield backend
    await backend.close()


def cap(backend: SqliteBackend, more_pages: int | None) -> None:
    """Let the file grow by so many pages and no more; None lifts the cap."""
    [pages] = backend._db.execute("PRAGMA page_count").fetchone()
    backend._db.execute(f"PRAGMA max_page_count = {2**30 if more_pages is None else pages + more_pages}")


@pytest.mark.parametrize("gone", [False, True], ids=["who waits", "who has gone away"])
async def test_a_commit_that_fails_is_undone_and_the_next_writer_goes_on(
    gone: bool, sqlite: SqliteBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise apsw.exception_for(apsw.SQLITE_FULL)

    with monkeypatch.context() as broken:
        broken.setattr(sqlite, "_commit", fails)
        writer = asyncio.create_task(sqlite.write(adding(job("t", "a"))))
        await asyncio.sleep(0)
        if gone:
            writer.cancel()
        with pytest.raises(asyncio.CancelledError if gone else Full):
            await writer
    await sqlite.write(adding(job("t", "b")))
    assert await exists(sqlite, "t", "b") and not await exists(sqlite, "t", "a")


async def test_a_handler_that_awaits_anything_but_its_transaction_is_refused_and_undone(sqlite: SqliteBackend) -> None:
    async def work(tx: Tx) -> None:
        await tx.many("insert_jobs", [job("t", "a")])
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="other than its transaction"):
        await sqlite.write(work)
    with pytest.raises(RuntimeError, match="other than its transaction"):
        await sqlite.read(lambda _tx: asyncio.sleep(0))
    assert not await exists(sqlite, "t", "a")
    await sqlite.write(adding(job("t", "b")))
    assert await exists(sqlite, "t", "b")


async def test_a_second_store_on_the_same_file_is_refused_until_the_first_is_closed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'one.db'}"
    first = await connect(url)
    with pytest.raises(Unavailable, match="another process"):
        await connect(url)
    await first.close()
    second = await connect(url)
    await second.close()


async def test_a_file_that_is_no_database_is_refused_in_our_words(tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("this is not a database, but it is long enough to look at" * 20)
    url = f"sqlite:///{tmp_path / 'notes.db'}"
    for _ in range(2):  # the second time too: a refusal does not keep the lock
        with pytest.raises(StoreError, match="cannot be opened"):
            await connect(url)


@pytest.mark.parametrize("table", ["places (id INTEGER)", "schema_migrations (version TEXT)"])
async def test_another_programs_file_is_refused_and_left_as_it_is(tmp_path: Path, table: str) -> None:
    """Also where somebody only looks: the journal is not another one afterwards, and there are no tables of ours."""
    other = tmp_path / "other.db"
    with contextlib.closing(apsw.Connection(str(other))) as db:
        db.execute(f"CREATE TABLE {table}")
    before = other.read_bytes()
    for _ in range(2):
        with pytest.raises(Unavailable, match="is no store of Holdfast's"):
            await connect(f"sqlite:///{other}")
    assert other.read_bytes() == before


async def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="does not exist"):
        await connect(f"sqlite:///{tmp_path / 'nowhere' / 'a.db'}")


@pytest.mark.parametrize("path", ["", ".", "folder", "a%00b.db", "a\udcffb.db"])
async def test_what_cannot_be_a_file_is_refused_and_leaves_nothing_behind(tmp_path: Path, path: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(Unavailable, match=r"is a folder; name a file in it|cannot be the name of a file"):
        await connect(f"sqlite:///{tmp_path}/{path}")
    assert os.listdir(tmp_path) == ["folder"] and os.listdir(tmp_path / "folder") == []


async def test_a_store_that_may_not_be_written_says_so_and_is_read(sqlite: SqliteBackend) -> None:
    await sqlite.write(adding(job("t", "before")))
    sqlite._db.execute("PRAGMA query_only = ON")
    with pytest.raises(Unavailable, match="is read-only; let this user write"):
        await sqlite.write(adding(job("t", "after")))
    assert await exists(sqlite, "t", "before")
    sqlite._db.execute("PRAGMA query_only = OFF")
    await sqlite.write(adding(job("t", "after")))


async def test_a_store_that_may_not_be_written_is_not_served_but_is_looked_at(
    sqlite: SqliteBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite opens such a file without a word; whoever runs these tests may be allowed to write to any."""
    path = Path(sqlite._db.filename)
    await sqlite.close()
    monkeypatch.setattr("backends.sqlite.open_to_write", open_to_read)
    looking = await connect(f"sqlite:///{path}")
    try:
        await looking.check()
        with pytest.raises(Unavailable, match="is read-only; let this user write"):
            await looking.migrate()
    finally:
        await looking.close()


async def test_the_loop_goes_on_while_a_store_that_closes_waits_for_a_scan(sqlite: SqliteBackend) -> None:
    async def first(tx: Tx) -> object:
        return await tx.one("ping")

    await sqlite.read(first, scan=True)
    held, freed = threading.Event(), threading.Event()
    scan = sqlite._scanners[0]._thread.submit(lambda: (held.set(), freed.wait(10)))
    held.wait(10)
    closing = asyncio.ensure_future(sqlite.close())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not (scan.done() or closing.done())
    freed.set()
    await closing
    assert scan.result() == (None, True)


async def test_a_full_disk_undoes_the_write_leaves_reads_and_is_survived(sqlite: SqliteBackend) -> None:
    await sqlite.write(adding(job("t", "before")))
    cap(sqlite, 2)
    with pytest.raises(Full):
        await sqlite.write(adding(*(job("t", f"big{n}", detail=bytes(8192)) for n in range(50))))
    assert await exists(sqlite, "t", "before")
    assert not await exists(sqlite, "t", "big0")
    cap(sqlite, None)
    await sqlite.write(adding(*(job("t", f"big{n}", detail=bytes(8192)) for n in range(50))))
    assert await exists(sqlite, "t", "big49")


async def test_over_http_a_full_disk_is_507_and_the_server_goes_on(tmp_path: Path) -> None:
    async with serving(f"sqlite:///{tmp_path / 'full.db'}") as service:
        api = await service.tenant()
        backend = service.services.backend
        body = {"workflow_id": "wf", "execution_id": "big", "input": "x" * 200_000}
        cap(backend, 3)
        await api.refused("POST", "/v1/executions", "store/full", json=body)
        await api.refused("GET", "/v1/executions/big", "not-found")
        cap(backend, None)
        assert (await api.http.post("/v1/executions", json=body)).status_code == 201


async def test_every_commit_is_synced_unless_the_settings_say_otherwise(tmp_path: Path) -> None:
    for word, number in (("FULL", 2), ("NORMAL", 1)):
        backend = await connect(f"sqlite:///{tmp_path / word}.db", synchronous=word)
        assert isinstance(backend, SqliteBackend)
        assert backend._db.execute("PRAGMA synchronous").fetchone() == (number,)
        assert backend._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert backend._db.execute("PRAGMA foreign_keys").fetchone() == (1,)
        await backend.close()
