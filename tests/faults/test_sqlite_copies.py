"""Copies of a store that is being written: `holdfast backup` gives a moment of its history, whole. The file and then
its WAL, copied by hand, may not; where they do not, the doctor says so."""

import asyncio
import contextlib
import random
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from backends.backup import back_up
from tests.faults import sqlite_copy
from tests.faults.audit import audit
from tests.faults.evidence import record
from tests.faults.load import loaded
from tests.faults.resting import Restful
from tests.faults.sqlite_copy import Prefix, Told
from tests.races.server import http, new_tenant, prepared, serving_process

PATIENCE = 60.0
PER_STORE = 50
"""Copies of one store, before it has grown so much that each takes long."""


class Store(NamedTuple):
    """A store that is being written, and what its clients were told."""

    path: Path
    ledger: Restful
    token: str


@contextlib.asynccontextmanager
async def written(folder: Path) -> AsyncIterator[Store]:
    """A store under load; at the end the load has stopped, and the server too."""
    path, ledger = folder / "holdfast.db", Restful()
    admin = await prepared(f"sqlite:///{path}")
    async with serving_process(f"sqlite:///{path}", folder / "server.log", sweep=True) as server:
        async with http(server.base, admin) as client:
            token = await new_tenant(client, "acme")
        async with http(server.base, token) as client:
            tasks = loaded(client, ledger, 0)
            try:
                yield Store(path, ledger, token)
                ledger.resting = True
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)


async def safely(store: Store, target: Path, chance: random.Random) -> None:
    """As `holdfast backup` does it, from another process than the server's."""
    await asyncio.sleep(chance.uniform(0, 0.02))
    await asyncio.to_thread(back_up, store.path, target)


async def carelessly(store: Store, target: Path, chance: random.Random) -> None:
    """The file, then its WAL; now and then with a while between them in which the WAL begins anew."""
    await asyncio.sleep(chance.uniform(0, 0.02))
    wal = store.path.with_name("holdfast.db-wal")
    shutil.copy(store.path, target)
    if chance.random() < 0.5:
        await begun_anew(wal)
        await asyncio.sleep(chance.uniform(0, 0.05))
    if wal.exists():
        shutil.copy(wal, target.with_name(target.name + "-wal"))


async def begun_anew(wal: Path) -> None:
    """Wait until a checkpoint has emptied the WAL, and writing has begun at its head again."""
    before, end = head(wal), time.monotonic() + PATIENCE
    while head(wal) == before and time.monotonic() < end:
        await asyncio.sleep(0.005)


def head(wal: Path) -> bytes:
    """The header of a WAL: it changes when the WAL begins anew."""
    with wal.open("rb") as file:
        return file.read(32)


Copy = Callable[[Store, Path, random.Random], Awaitable[None]]


class Seen:
    """What became of copies: `whole`, or `told` to be damaged."""

    def __init__(self) -> None:
        self.whole = self.told = self.events = self.acknowledged = 0


async def copied(copy: Copy, folder: Path, count: int, seed: int) -> Seen:
    """Copies of stores under load, each examined: it is a prefix of its store's history, or said to be damaged."""
    chance, seen = random.Random(seed), Seen()
    for begin in range(0, count, PER_STORE):
        prefixes: list[Prefix] = []
        home = folder / f"store{begin}"
        home.mkdir()
        async with written(home) as store:
            for number in range(begin, min(begin + PER_STORE, count)):
                async with asyncio.timeout(PATIENCE):
                    await store.ledger.more(chance.randrange(1, 60))
                target, told = folder / f"copy{number}" / "holdfast.db", Told(store.ledger)
                target.parent.mkdir()
                await copy(store, target, chance)
                if await sqlite_copy.faults(target):
                    seen.told += 1
                else:
                    prefixes.append(sqlite_copy.prefix(target, told))
                shutil.rmtree(target.parent)
        history = dict(sqlite_copy.digests(store.path))
        assert [one for one in prefixes if history.get(one.count) != one.digest] == []
        seen.whole += len(prefixes)
        seen.events += sum(one.count for one in prefixes)
        seen.acknowledged += store.ledger.acknowledged
        if copy is safely:
            await served_again(store)
    return seen


async def served_again(store: Store) -> None:
    """A backup that is made once the load has ended holds all that was acknowledged, and serves it."""
    target = store.path.with_name("last.db")
    back_up(store.path, target)
    async with (
        serving_process(f"sqlite:///{target}", target.with_name("last.log")) as server,
        http(server.base, store.token) as client,
    ):
        await audit(client, store.ledger)


async def test_a_backup_of_a_store_under_load_is_a_prefix_of_its_history(tmp_path: Path) -> None:
    seen = await copied(safely, tmp_path, 10, seed=1)
    assert (seen.whole, seen.told) == (10, 0)


async def test_a_careless_copy_is_a_prefix_of_history_or_the_doctor_says_that_it_is_none(tmp_path: Path) -> None:
    seen = await copied(carelessly, tmp_path, 4, seed=2)
    assert seen.whole + seen.told == 4


@pytest.mark.slow
async def test_500_backups_under_load_are_prefixes_of_history(tmp_path: Path) -> None:
    seen = await copied(safely, tmp_path, 500, seed=3)
    assert (seen.whole, seen.told) == (500, 0)
    record(
        "A backup of a store under load is a prefix of its history", "sqlite",
        copies=500, whole=seen.whole, events_compared=seen.events, acknowledged=seen.acknowledged,
    )  # fmt: skip


@pytest.mark.slow
async def test_500_careless_copies_are_prefixes_or_found_out(tmp_path: Path) -> None:
    seen = await copied(carelessly, tmp_path, 500, seed=4)
    assert seen.whole + seen.told == 500
    record(
        "A careless copy (file, then WAL) is a prefix, or the doctor says that it is none", "sqlite",
        copies=500, whole=seen.whole, found_out=seen.told, served_silently=0,
    )  # fmt: skip
