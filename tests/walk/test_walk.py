"""The same random walk on both engines, side by side: the same answers, the same rows, nothing impossible in them.

A failure prints its seed and step; `WALK_SEEDS=7 WALK_STEPS=120` walks that way again.
"""

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from msgspec import to_builtins

from service.kernel import view
from service.kernel.principal import SYSTEM, internal
from service.work.model import PromoteDue
from tests.conftest import new_database, serving
from tests.walk.invariants import Invariants
from tests.walk.sides import TENANT, Ask, Side, Told, difference
from tests.walk.world import OPS, World

SEEDS = [int(seed) for seed in os.environ.get("WALK_SEEDS", "1 2").split()]
STEPS = int(os.environ.get("WALK_STEPS", "900"))
LOOK_EVERY = 25
LIMITS = {"running_executions": 25, "ready_work_items": 80, "definitions": 5, "state_bytes": 2_000}
TICKS = (1, 1, 1, 1, 3, 300, 1_100, 6_000, 40_000)
BY_TIME = "promote"
BEGIN = 1_800_000_000_000


@contextlib.asynccontextmanager
async def side(url: str) -> AsyncIterator[Side]:
    """A service over a fresh store, with the walk's tenant."""
    async with serving(url, sqlite_synchronous="NORMAL") as service:
        service.clock.now = BEGIN
        made = await service.client(service.admin).post("/v1/tenants", json={"id": TENANT, "limits": LIMITS})
        assert made.status_code == 201, made.text
        owner = await service.token(TENANT, "owner")
        found = Side(service, url, owner)
        await found.meet()
        yield found


class Walk:
    """Both sides, one world; takes a step on each, compares, and now and then looks at everything."""

    def __init__(self, sides: list[Side], seed: int, jitter: SimpleNamespace) -> None:
        self.sides, self.world, self.jitter = sides, World(seed), jitter
        self.invariants = Invariants()
        self.verified: dict[str, int] = {}
        self.done: Counter[str] = Counter()
        self.now = BEGIN

    async def step(self) -> Ask | None:
        """Let some time pass and make one request of both."""
        self.now += self.world.random.choice(TICKS)
        for one in self.sides:
            one.service.clock.now = self.now
        value = self.world.random.random()
        self.jitter.random = lambda: value
        if self.world.chance(0.05):
            await self.promote()
            return None
        ask = self.world.next_ask()
        left, right = await asyncio.gather(*(one.send(ask) for one in self.sides))
        if left != right:
            raise AssertionError(f"they differ {difference(to_builtins(left), to_builtins(right))}")
        assert left.status < 500, f"{ask}: {left}"
        self.done[ask.op] += succeeded(left)
        self.world.learn(ask, left)
        return ask

    async def promote(self) -> None:
        """The sweep that makes delayed items ready."""
        moved = [await one.service.services.kernel.run(internal(SYSTEM), PromoteDue(3)) for one in self.sides]
        assert moved[0] == moved[1], f"promoted {moved}"
        self.done[BY_TIME] += bool(moved[0])

    async def look(self) -> None:
        """Rows alike on both sides, invariants, replay."""
        left, right = [await one.rows() for one in self.sides]
        if left != right:
            raise AssertionError(f"the rows differ {difference(left, right)}")
        self.invariants.check(left)
        moved = {
            row["id"]: row["sequence"] for row in left["executions"] if row["sequence"] != self.verified.get(row["id"])
        }
        await asyncio.gather(*(self.verify(name) for name in moved))
        self.verified |= moved

    async def verify(self, execution: str) -> None:
        """Replay adds up to what is stored, on both sides."""
        ask = Ask("verify", "POST", f"/v1/executions/{execution}/snapshots:verify")
        left, right = [await one.send(ask) for one in self.sides]
        assert left == right
        assert left.body["matches"] is True, left.body


async def forgetful(server: str) -> str:
    """A database that does not wait for its disk: a walk is not about power cuts."""
    url = await new_database(server)
    db = await asyncpg.connect(url)
    await db.execute(f'ALTER DATABASE "{url.partition("?")[0].rpartition("/")[2]}" SET synchronous_commit = off')
    await db.close()
    return url


def succeeded(told: Told) -> bool:
    """Whether a request did something: an empty claim, or a batch of refusals, did not."""
    if told.status >= 300:
        return False
    body: Any = told.body
    if "results" in body:
        return any("ok" in one for one in body["results"])
    if "retryable" in body:
        return bool(body["retryable"] or body["exhausted"])
    return bool(body["items"]) if set(body) == {"items"} else True


async def walk(
    postgres_server: str, folder: Path, monkeypatch: pytest.MonkeyPatch, seed: int, steps: int, least: int
) -> None:
    """Walk so many steps, and see that every operation was done at least `least` times."""
    jitter = SimpleNamespace(random=lambda: 0.5)
    monkeypatch.setattr(view, "random", jitter)
    urls = [f"sqlite:///{folder / 'walk.db'}", await forgetful(postgres_server)]
    async with side(urls[0]) as sqlite, side(urls[1]) as postgres:
        walk = Walk([sqlite, postgres], seed, jitter)
        for step in range(1, steps + 1):
            ask = None
            try:
                ask = await walk.step()
                if step % LOOK_EVERY == 0 or step == steps:
                    await walk.look()
            except AssertionError as error:
                raise AssertionError(f"seed {seed}, step {step}, after {ask}:\n{error}") from error
        print(f"seed {seed}: {dict(sorted(walk.done.items()))}")
        rare = {op: walk.done[op] for op in (*OPS, BY_TIME) if walk.done[op] < least}
        assert not rare, f"seed {seed}: too few of {rare}"


@pytest.mark.parametrize("seed", SEEDS)
async def test_both_engines_walk_the_same_way(
    postgres_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    await walk(postgres_server, tmp_path, monkeypatch, seed, STEPS, 3 if STEPS >= 900 else 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 106))
async def test_both_engines_walk_the_same_long_way(
    postgres_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    await walk(postgres_server, tmp_path, monkeypatch, seed, 4_000, 10)
