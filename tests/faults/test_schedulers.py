"""Several `holdfast scheduler` on one Postgres: one of them sweeps, another follows it, everything fires once.

They are killed, stopped, and paused past their time. What is asserted is who follows whom and what has fired, never how
long it took. The server beside them sweeps nothing.
"""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import new_database
from tests.faults.sites import PATIENCE
from tests.forked import Forked
from tests.races.server import ROOT, Server, first_line, http, new_tenant, prepared

COUNT = 3
SHORT_MS, NEVER_MS = 500, 60_000
"""A lease whose end is waited for, and one that does not end while a test looks on."""


class Scheduler:
    """One `holdfast scheduler` in a process of its own."""

    def __init__(self, url: str, log: Path, lease_ms: int) -> None:
        self._words = (
            "scheduler", "--database-url", url, "--sweep-lease-ms", str(lease_ms), "--sweep-interval-ms", "20",
            "--postgres-connections-max", "4", "--log-format", "json",
        )  # fmt: skip
        self._log = log
        self._process: Forked | None = None

    @property
    def process(self) -> Forked:
        """The process, while it runs."""
        assert self._process is not None
        return self._process

    async def start(self) -> None:
        """Start it; back when it says that it is there."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST")}
        command = [sys.executable, "-m", "service", *self._words]
        told, telling = os.pipe()
        with self._log.open("ab") as log:
            self._process = Forked(
                command, cwd=self._log.parent, env=environ | {"PYTHONPATH": str(ROOT)}, stdout=telling, stderr=log
            )
        os.close(telling)
        async with asyncio.timeout(PATIENCE):
            said = await asyncio.to_thread(first_line, told)
        assert b" schedules " in said, self._log.read_text()

    async def end(self, how: signal.Signals) -> int:
        """Send a signal that ends it; the exit code."""
        self.process.send_signal(how)
        return await asyncio.to_thread(self.process.wait, PATIENCE)

    def epochs(self) -> list[int]:
        """The epochs under which it says that it swept."""
        return [int(one) for one in re.findall(r'"epoch": ?(\d+), "event": "this process sweeps"', self.told())]

    def told(self) -> str:
        """Its log."""
        return self._log.read_text()


class Stage:
    """A server that does not sweep, schedulers beside it, a tenant with workflows."""

    def __init__(
        self, folder: Path, url: str, lease_ms: int, system: httpx.AsyncClient, owner: httpx.AsyncClient
    ) -> None:
        self._url, self._folder, self._lease_ms = url, folder, lease_ms
        self.system, self.owner = system, owner
        self.all: list[Scheduler] = []
        self._runs = 0

    async def add(self) -> Scheduler:
        """One scheduler more."""
        one = Scheduler(self._url, self._folder / f"scheduler{len(self.all)}.log", self._lease_ms)
        self.all.append(one)
        await one.start()
        return one

    async def shown(self) -> Any:
        """Who sweeps, as the server tells."""
        answer = await self.system.get("/v1/sweeper")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def holder(self, after: int = 0) -> tuple[Scheduler, int]:
        """The scheduler that sweeps under an epoch past `after`, and that epoch, once there is one."""
        async with asyncio.timeout(PATIENCE):
            while not (shown := await self.shown())["held"] or shown["epoch"] <= after:
                await asyncio.sleep(0.01)
        pid = int(shown["holder"].split("/")[1])
        [found] = [one for one in self.all if one.process.pid == pid]
        return found, shown["epoch"]

    async def ok(self, path: str, body: Any) -> Any:
        """The answer to a POST that must succeed."""
        answer = await self.owner.post(path, json=body)
        assert answer.status_code < 300, answer.text
        return answer.json()

    async def timers(self, count: int) -> str:
        """A run that waits for that many timers, all due at once; its id."""
        self._runs += 1
        said = {"workflow_type": "order", "task_queue": "flows", "execution_id": f"run{self._runs}"}
        await self.ok("/v1/executions", said)
        claimed = await self.ok("/v1/workflow-tasks:claim", {"worker_id": "w", "queues": ["flows"], "types": ["order"]})
        [task] = claimed["items"]
        made = [{"type": "ScheduleTimer", "seq": n + 1, "duration_ms": 1} for n in range(count)]
        body = {"epoch": task["epoch"], "history_sequence": task["history_sequence"], "commands": made}
        await self.ok(f"/v1/workflow-tasks/{task['task_id']}/commands", body)
        return str(task["execution_id"])

    async def fired(self, run: str, count: int) -> None:
        """Wait until that many timers of a run have fired; none has twice."""
        async with asyncio.timeout(PATIENCE):
            while len(fired := await self.firings(run)) < count:
                await asyncio.sleep(0.01)
        assert sorted(fired) == list(range(1, count + 1))

    async def firings(self, run: str) -> list[int]:
        """The timers of a run that have fired, by their counters."""
        answer = await self.owner.get(f"/v1/executions/{run}/events?limit=1000")
        assert answer.status_code == 200, answer.text
        return [one["body"]["seq"] for one in answer.json()["items"] if one["kind"] == "timer.fired"]


@contextlib.asynccontextmanager
async def stage(server: str, folder: Path, lease_ms: int, count: int = COUNT) -> AsyncIterator[Stage]:
    """A stage with some schedulers, of which the first sweeps; all ended afterwards."""
    url = await new_database(server)
    admin = await prepared(url)
    door = Server(url, folder / "server.log", sweep=False)
    await door.start()
    async with http(door.base, admin) as system, http(door.base, await new_tenant(system, "acme")) as owner:
        found = Stage(folder, url, lease_ms, system, owner)
        try:
            await found.add()
            await found.holder()
            for _ in range(count - 1):
                await found.add()
            yield found
        finally:
            for one in found.all:
                if one.process.returncode is None:
                    await one.end(signal.SIGKILL)
            await door.terminate()


async def test_one_sweeps_and_whenever_it_is_killed_another_does(postgres_server: str, tmp_path: Path) -> None:
    async with stage(postgres_server, tmp_path, SHORT_MS) as found:
        runs, last, epoch = list[str](), None, 0
        for n in range(COUNT):
            holder, epoch = await found.holder(epoch)
            assert holder is not last
            runs.append(await found.timers(20))
            if n < COUNT - 1:
                await holder.end(signal.SIGKILL)
                last = holder
        for run in runs:
            await found.fired(run, 20)
        swept = [epoch for one in found.all for epoch in one.epochs()]
        assert len(swept) == len(set(swept)), "two processes swept under one epoch"
        assert sorted(swept)[-1] == epoch


async def test_one_that_is_stopped_hands_over_at_once(postgres_server: str, tmp_path: Path) -> None:
    """Its lease would last longer than this test."""
    async with stage(postgres_server, tmp_path, NEVER_MS, 2) as found:
        first, epoch = await found.holder()
        assert await first.end(signal.SIGTERM) == 0
        second, later = await found.holder(epoch)
        assert (second is not first, later) == (True, epoch + 1)
        await found.fired(await found.timers(5), 5)
        assert await second.end(signal.SIGTERM) == 0
        assert not (await found.shown())["held"]


async def test_one_that_was_paused_past_its_time_does_no_harm(postgres_server: str, tmp_path: Path) -> None:
    async with stage(postgres_server, tmp_path, SHORT_MS, 2) as found:
        first, epoch = await found.holder()
        run = await found.timers(50)
        os.kill(first.process.pid, signal.SIGSTOP)
        second, later = await found.holder(epoch)
        assert second is not first
        await found.fired(run, 50)
        os.kill(first.process.pid, signal.SIGCONT)
        run = await found.timers(50)
        await found.fired(run, 50)
        async with asyncio.timeout(PATIENCE):
            while "another process sweeps now" not in first.told() and (await found.shown())["epoch"] == later:
                await asyncio.sleep(0.01)
        holder, _ = await found.holder(later - 1)
        await holder.end(signal.SIGKILL)
        run = await found.timers(5)
        await found.fired(run, 5)
        swept = [epoch for one in found.all for epoch in one.epochs()]
        assert len(swept) == len(set(swept)), "two processes swept under one epoch"


async def test_each_occurrence_of_a_schedule_starts_once_whoever_is_killed(
    postgres_server: str, tmp_path: Path
) -> None:
    wanted = 8
    async with stage(postgres_server, tmp_path, SHORT_MS) as found:
        action = {"workflow_type": "report", "task_queue": "reports"}
        body = {"schedule_id": "plan", "spec": {"every_ms": 1_000}, "action": action, "overlap": "allow_all"}
        made, epoch = await found.ok("/v1/schedules", body), 0
        for _ in range(COUNT - 1):
            holder, epoch = await found.holder(epoch)
            await holder.end(signal.SIGKILL)
            await found.add()
        async with asyncio.timeout(PATIENCE):
            while (await found.owner.get("/v1/schedules/plan")).json()["runs"] < wanted:
                await asyncio.sleep(0.05)
        shown = (await found.owner.post("/v1/schedules/plan/pause", json={})).json()
        assert shown["paused"]
        plan = (await found.owner.get("/v1/schedules/plan")).json()
        listed = (await found.owner.get("/v1/executions?limit=1000")).json()["items"]
        assert len(listed) == len({one["execution_id"] for one in listed}) == plan["runs"]
        at = sorted(run["nominal_at"] for run in plan["last_runs"])
        assert at == [made["next_at"] + 1_000 * n for n in range(len(at))]


@pytest.mark.parametrize("sweep", [True, False], ids=["a server that sweeps", "a server that does not"])
async def test_servers_sweep_beside_schedulers_only_where_they_are_meant_to(
    postgres_server: str, tmp_path: Path, sweep: bool
) -> None:
    url = await new_database(postgres_server)
    admin = await prepared(url)
    server = Server(url, tmp_path / "server.log", sweep=sweep, sweep_lease_ms=SHORT_MS)
    scheduler = Scheduler(url, tmp_path / "scheduler.log", SHORT_MS)
    await scheduler.start()
    try:
        await server.start()
        async with http(server.base, admin) as system:
            found = Stage(tmp_path, url, SHORT_MS, system, system)
            found.all.append(scheduler)
            assert (await found.holder())[0] is scheduler
            await scheduler.end(signal.SIGTERM)
            if sweep:
                async with asyncio.timeout(PATIENCE):
                    while not (await found.shown())["held"]:
                        await asyncio.sleep(0.01)
                assert int((await found.shown())["holder"].split("/")[1]) == server.pid
            else:
                assert not (await found.shown())["held"]
    finally:
        if scheduler.process.returncode is None:
            await scheduler.end(signal.SIGKILL)
        await server.kill()
