"""The engine example on both engines: its workflows end right, wherever its workers are killed."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.examples.test_run_workflow import ROOT, clean_environment
from tests.faults.evidence import record
from tests.races.server import http, new_tenant, prepared, serving_process

SECONDS, LONG_SECONDS = 120, 1_800
WIDTH, KILLS = 4, 3
FLOWS = ("order", "squares", "approval", "rounds", "tree")


@pytest.fixture
async def served(fresh_url: str, tmp_path: Path) -> AsyncIterator[tuple[str, str]]:
    """A server that sweeps often: its URL, and an owner's token."""
    admin = await prepared(fresh_url)
    async with serving_process(fresh_url, tmp_path / "server.log", sweep=True, sweep_interval_ms=50) as server:
        async with http(server.base, admin) as system:
            token = await new_tenant(system, "doomed")
        yield server.base, token


async def run(*words: str, seconds: float = SECONDS) -> tuple[int, str]:
    """Run a script to its end, with no settings but those given: exit code, and what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    async with asyncio.timeout(seconds):
        printed, _ = await process.communicate()
    return process.returncode or 0, printed.decode()


async def test_the_example_runs_its_five_workflows_on_a_server_of_its_own(fresh_url: str) -> None:
    script = ROOT / "examples" / "run_engine.py"
    status, printed = await run(str(script), "--database-url", fresh_url, "--width", "100")
    assert status == 0, printed
    rows = {row[0]: row for row in map(str.split, printed.splitlines()) if row and row[0] in FLOWS}
    assert set(rows) == set(FLOWS), printed
    assert all(executions == right for _, executions, right, *_ in rows.values()), printed
    assert rows["squares"][5] == "100"
    assert "left cleanly" in printed


async def kill(url: str, token: str, kills: int, seconds: float) -> list[Any]:
    """Kill workers of every case at so many steps, 0 for all; what came of each case."""
    script = ROOT / "tests" / "examples" / "doomed.py"
    status, printed = await run(str(script), url, token, str(WIDTH), str(kills), seconds=seconds)
    assert status == 0, printed
    return [json.loads(line) for line in printed.splitlines()]


async def test_a_worker_that_is_killed_costs_no_workflow_its_end_and_does_nothing_twice(
    served: tuple[str, str],
) -> None:
    found = await kill(*served, KILLS, SECONDS)
    assert {one["flow"] for one in found} == set(FLOWS)
    assert [one["wrong"] for one in found] == [[]] * len(found)
    assert [one["killed"] for one in found] == [KILLS] * len(found)


@pytest.mark.slow
async def test_workers_are_killed_at_every_step_of_every_workflow(engine: str, served: tuple[str, str]) -> None:
    found = await kill(*served, 0, LONG_SECONDS)
    assert [one["wrong"] for one in found] == [[]] * len(found)
    assert all(one["killed"] >= one["begun"] - 2 for one in found)
    record(
        "kill -9 of a replaying worker at every step loses and doubles nothing", engine,
        workflows=sum(one["begun"] for one in found), kills=sum(one["killed"] for one in found), lost=0, doubled=0,
    )  # fmt: skip
