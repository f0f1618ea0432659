"""A running server, and worker processes against it that are stopped and killed by their process id."""

import asyncio
import contextlib
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec

from tests.races.server import ROOT, Server, http, new_tenant

PATIENCE = 40.0
AT_ONCE = {"initial_delay_ms": 0, "jitter": False}
"""A retry that waits for nothing."""


class Site:
    """A server and its administrator."""

    def __init__(self, server: Server, admin: str) -> None:
        self.server, self.admin = server, admin

    async def tenant(self) -> str:
        """A new tenant; its owner's token."""
        async with http(self.server.base, self.admin) as system:
            return await new_tenant(system, f"t-{uuid.uuid4().hex[:12]}")

    def client(self, token: str) -> httpx.AsyncClient:
        """A client with a token."""
        return http(self.server.base, token)


class WorkerProcess:
    """`tests.faults.worker` in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def told(self) -> Any:
        """The next line that it says; None at the end."""
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            line = await self._process.stdout.readline()
        return msgspec.json.decode(line) if line.endswith(b"\n") else None

    async def stop(self) -> None:
        """SIGSTOP; back once the process stands still."""
        self._process.send_signal(signal.SIGSTOP)
        async with asyncio.timeout(PATIENCE):
            while state_of(self._process.pid) != "T":
                await asyncio.sleep(0.005)

    def go_on(self) -> None:
        """Let it finish its work, in the belief that it still holds its lease; SIGCONT."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.send_signal(signal.SIGCONT)

    async def kill(self) -> None:
        """SIGKILL, also of one that stands still or is gone."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    def close(self) -> None:
        """Close its pipes."""
        transport: Any = self._process._transport  # type: ignore[attr-defined]
        transport.close()


def state_of(pid: int) -> str:
    """The state of a process as the kernel tells it: R, S, T for stopped, …"""
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


@contextlib.asynccontextmanager
async def worker(server: Server, token: str, *said: str) -> AsyncIterator[WorkerProcess]:
    """A worker process: what it does and under which name, as `tests.faults.worker` takes it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.faults.worker", server.base, token, *said,
        cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    found = WorkerProcess(process)
    try:
        yield found
    finally:
        await found.kill()
        found.close()
