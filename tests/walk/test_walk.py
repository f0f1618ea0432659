"""The same random walk on both engines, side by side: the same answers, the same rows, nothing impossible in them.

A failure prints its seed and step; `WALK_SEEDS=7 WALK_STEPS=120 WALK_LOOKS=1` walks that way again,
and looks at the rows after every step.
"""

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from msgspec import to_builtins

from service.alarms.sweeps import ring_due
from service.kernel import run, view
from service.kernel.principal import SYSTEM, internal
from service.work.model import PromoteDue
from tests.conftest import new_store, serving
from tests.walk import engine_rows
from tests.walk.flows import COMMANDS, ENDINGS, HAPPENED, Flows
from tests.walk.invariants import Invariants
from tests.walk.sides import TENANT, Ask, Side, Told, difference
from tests.walk.world import World

SEEDS = [int(seed) for seed in os.environ.get("WALK_SEEDS", "1").split()]
STEPS = int(os.environ.get("WALK_STEPS", "900"))
FLOW_STEPS = int(os.environ.get("WALK_STEPS", "600"))
LOOKS = int(os.environ.get("WALK_LOOKS", "0"))
LIMITS = {"running_executions": 25, "ready_work_items": 80, "definitions": 5, "state_bytes": 2_000}
BY_TIME = ("promote", "ring")
BEGIN = 1_800_000_000_000


@pytest.fixture(autouse=True)
def whole_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine cuts no batch short: both sides decide in the same order."""
    monkeypatch.setattr(run, "LONG", float("inf"))


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

    def __init__(self, sides: list[Side], world: World, jitter: SimpleNamespace) -> None:
        self.sides, self.world, self.jitter = sides, world, jitter
        self.invariants = Invariants()
        self.verified: dict[str, int] = {}
        self.done: Counter[str] = Counter()
        self.kinds: set[str] = set()
        self.now = BEGIN

    async def step(self) -> Ask | None:
        """Let some time pass and make one request of both."""
        self.now += self.world.random.choice(self.world.ticks)
        for one in self.sides:
            one.service.clock.now = self.now
        value = self.world.random.random()
        self.jitter.random = lambda: value
        if self.world.chance(0.08 if isinstance(self.world, Flows) else 0.05):
            await self.pass_time()
            return None
        ask = self.world.next_ask()
        left, right = await asyncio.gather(*(one.send(ask) for one in self.sides))
        if left != right:
            raise AssertionError(f"they differ {difference(to_builtins(left), to_builtins(right))}")
        assert left.status < 500, f"{ask}: {left}"
        self.done.update([ask.op, *ask.parts] if succeeded(left) else [])
        self.world.learn(ask, left)
        return ask

    async def pass_time(self) -> None:
        """The sweeps that make delayed items ready, and ring what is due."""
        services = [one.service.services for one in self.sides]
        moved = [await one.kernel.run(internal(SYSTEM), PromoteDue(3)) for one in services]
        rang = [await ring_due(one.backend, one.kernel) for one in services]
        assert (moved[0], rang[0]) == (moved[1], rang[1]), f"promoted {moved}, rang {rang}"
        self.done["promote"] += bool(moved[0])
        self.done["ring"] += rang[0]

    async def look(self) -> None:
        """Rows alike on both sides, invariants, replay."""
        left, right = [await one.rows() for one in self.sides]
        if left != right:
            unlike = [
                difference(left[table], right[table], f"/{table}") for table in left if left[table] != right[table]
            ]
            raise AssertionError("\n".join(["the rows differ", *unlike]))
        self.invariants.check(left)
        engine_rows.check(left)
        self.kinds = {event["kind"] for event in left["events"]}
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
    url = await new_store(server)
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


async def walk(postgres_server: str, folder: Path, monkeypatch: pytest.MonkeyPatch, world: World, steps: int) -> Walk:
    """Walk so many steps; a failure says where."""
    jitter = SimpleNamespace(random=lambda: 0.5)
    monkeypatch.setattr(view, "random", jitter)
    urls = [f"sqlite:///{folder / 'walk.db'}", await forgetful(postgres_server)]
    async with side(urls[0]) as sqlite, side(urls[1]) as postgres:
        walk = Walk([sqlite, postgres], world, jitter)
        for step in range(1, steps + 1):
            ask = None
            try:
                ask = await walk.step()
                if step % (LOOKS or world.look_every) == 0 or step == steps:
                    await walk.look()
            except AssertionError as error:
                raise AssertionError(f"step {step}, after {ask}:\n{error}") from error
        print(dict(sorted(walk.done.items())))
        return walk


def often(walk: Walk, names: Iterable[str], least: int) -> None:
    """Every operation was done at least `least` times."""
    rare = {op: walk.done[op] for op in names if walk.done[op] < least}
    assert not rare, f"too few of {rare}"


@pytest.mark.parametrize("seed", SEEDS)
async def test_both_engines_walk_the_same_way(
    postgres_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    found = await walk(postgres_server, tmp_path, monkeypatch, World(seed), STEPS)
    often(found, [*found.world.ops, "promote"], 3 if STEPS >= 900 else 0)


@pytest.mark.parametrize("seed", SEEDS)
async def test_both_engines_walk_the_same_way_through_workflows(
    postgres_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    found = await walk(postgres_server, tmp_path, monkeypatch, Flows(seed), FLOW_STEPS)
    often(found, [*found.world.ops, *COMMANDS, *ENDINGS, *BY_TIME], 1 if FLOW_STEPS >= 600 else 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 106))
@pytest.mark.parametrize("kind", [World, Flows])
async def test_both_engines_walk_the_same_long_way(
    postgres_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[World], seed: int
) -> None:
    found = await walk(postgres_server, tmp_path, monkeypatch, kind(seed), 4_000)
    often(found, found.world.ops, 10)
    if kind is Flows:
        often(found, [*COMMANDS, *ENDINGS, *BY_TIME], 10)
        assert not (missing := set(HAPPENED) - found.kinds), f"never happened: {missing}"
