"""A long steady load leaves nothing behind: memory, file handles, rows and bytes stay where they were.

Time runs fast for the server, so that idempotency keys are forgotten, and deleted tenants erased, many times over in a
run. That is all that the service forgets of itself: executions, items and logs stay as long as their tenant does.
"""

import asyncio
import statistics
import time
from pathlib import Path

import pytest

from tests.faults.evidence import record
from tests.faults.growth import Sample, Tables, growth, look, warm
from tests.faults.size import size
from tests.faults.soak import STREETS, Soak, hurried
from tests.races.server import http, prepared

STAY = "('', 'default', 'resident')"
PATIENCE = 300.0
HELD = {"memory": 0.1, "handles": 0.1, "stored": 0.1, "rows": 0.25, "keys": 0.25}
"""By how much of its mean each may grow after the warm-up. Rows go up and down with the tenants; in the end, what is
left of them is counted."""


async def soak(
    url: str, folder: Path, seconds: float, *, samples: int, speed: int, pace: float, cycles: int
) -> tuple[Soak, list[Sample]]:
    """The load for so many seconds, sampled; then everything that is to go has gone."""
    admin = await prepared(url)
    server, tables = hurried(url, folder / "server.log", speed), Tables(url)
    await server.start()
    try:
        load, began = Soak(server, admin, pace, cycles), time.monotonic()
        taken: list[Sample] = []
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run())
            for _ in range(samples):
                await asyncio.sleep(seconds / samples)
                taken.append(await look(time.monotonic() - began, server.pid, tables))
            load.over = True
        await gone(server.base, admin, tables)
    finally:
        await server.terminate()
    return load, taken


async def gone(base: str, admin: str, tables: Tables) -> None:
    """Wait until every tenant that was deleted is erased and every key forgotten: then no table has a row of them."""
    async with http(base, admin) as system, asyncio.timeout(PATIENCE):
        while len((await system.get("/v1/tenants")).json()["items"]) > 2:
            await asyncio.sleep(0.02)
        while (await tables.rows())["idempotency_keys"]:
            await asyncio.sleep(0.1)
    left = {name: count for name, count in (await tables.rows(f"tenant_id NOT IN {STAY}")).items() if count}
    assert not left


def told(samples: list[Sample]) -> str:
    """The samples, for a failure to show."""
    return "\n".join(" ".join(f"{name} {value:.1f}" for name, value in one._asdict().items()) for one in samples)


async def test_what_comes_and_goes_leaves_nothing_behind(fresh_url: str, tmp_path: Path) -> None:
    """Two hours pass in a second: whole lives of tenants and keys in a few of them."""
    load, samples = await soak(fresh_url, tmp_path, 1.5, samples=20, speed=7_200, pace=0, cycles=3)
    assert load.tenants >= STREETS
    assert growth(warm(samples), "handles") < 0.5, told(samples)


@pytest.mark.slow
async def test_an_hour_of_load_leaves_memory_handles_rows_and_bytes_flat(
    engine: str, fresh_url: str, tmp_path: Path
) -> None:
    """A minute of the load is an hour for the server. The bounds mean something from some ten minutes on."""
    seconds = size("soak_seconds", 3_600)
    load, samples = await soak(fresh_url, tmp_path, seconds, samples=360, speed=60, pace=0.2, cycles=200)
    kept = warm(samples)
    grown = {what: growth(kept, what) for what in HELD}
    for what, share in grown.items():
        assert share < HELD[what], f"{what} grew by {share:.2f} of its mean\n{told(samples)}"
    means = {what: statistics.fmean(getattr(one, what) for one in kept) for what in HELD}
    record(
        "a soak leaves memory, file handles, rows and bytes flat", engine, seconds=seconds,
        hours_by_the_servers_clock=seconds / 60, requests=load.requests, tenants_made_and_erased=load.tenants,
        memory_mib=means["memory"], handles=means["handles"], rows=means["rows"], stored_mib=means["stored"],
        **{f"{what}_growth": share for what, share in grown.items()},
    )  # fmt: skip
