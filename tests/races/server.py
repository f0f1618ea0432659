"""A real server in a process of its own: started on a free port, asked until it is ready, ended by its process id."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec

from service.main import running
from service.settings import Settings
from service.tokens.bootstrap import bootstrap
from tests.conftest import settings_for
from tests.forked import Forked

ROOT = Path(__file__).parents[2]
READY_SECONDS = 30.0
PYTHONPATH = os.environ.get("PYTHONPATH")
"""A test that changes it wants what comes from there to be loaded first: such a server starts from nothing."""
PROGRAM = """
import sys, msgspec, structlog
from service.main import run
from service.settings import Settings
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
run(msgspec.json.decode(sys.argv[1], type=Settings), lambda services, port: print(port, flush=True))
"""


class Server:
    """One server process over `url`. `start` returns once it is ready, `kill` once it is gone."""

    program = PROGRAM

    def __init__(self, url: str, log: Path, **changes: Any) -> None:
        self.settings: Settings = settings_for(url, **changes)
        self.log = log
        self.port = 0
        self._process: Forked | None = None

    @property
    def pid(self) -> int:
        """The process id, while it runs."""
        assert self._process is not None
        return self._process.pid

    @property
    def base(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start the process; back when `readyz` says so, an error with its log when that takes too long."""
        command = [sys.executable, "-c", self.program, msgspec.json.encode(self.settings).decode()]
        begin: Any = Forked if os.environ.get("PYTHONPATH") == PYTHONPATH else subprocess.Popen
        told, telling = os.pipe()
        with self.log.open("ab") as log:
            self._process = begin(command, cwd=ROOT, env=os.environ, stdout=telling, stderr=log)
        os.close(telling)
        try:
            async with asyncio.timeout(READY_SECONDS):
                self.port = int(await asyncio.to_thread(first_line, told) or 0)
                await self._until_ready()
        except (TimeoutError, ValueError, httpx.HTTPError) as error:
            await self.kill()
            raise AssertionError(f"the server did not become ready:\n{self.log.read_text()[-4000:]}") from error

    async def _until_ready(self) -> None:
        async with http(self.base, "") as client:
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.02)

    async def kill(self) -> None:
        """SIGKILL: nothing is said goodbye to."""
        await self._end(signal.SIGKILL)

    async def terminate(self) -> int:
        """SIGTERM; the exit code."""
        return await self._end(signal.SIGTERM)

    async def _end(self, how: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(how)
        try:
            return await asyncio.to_thread(process.wait, 20)
        except subprocess.TimeoutExpired:
            process.kill()
            return await asyncio.to_thread(process.wait)


def first_line(pipe: int) -> bytes:
    """What a process says first; nothing, if it ends before."""
    with open(pipe, "rb") as lines:
        return lines.readline()


@contextlib.asynccontextmanager
async def serving_process(url: str, log: Path, **changes: Any) -> AsyncIterator[Server]:
    """A server that runs until the `with` ends."""
    server = Server(url, log, **changes)
    await server.start()
    try:
        yield server
    finally:
        await server.terminate()


async def prepared(url: str) -> str:
    """Migrate the store and mint an administrator's token, before any server is there."""
    async with running(settings_for(url)) as services:
        return await bootstrap(services)


def http(base: str, token: str, connections: int = 64) -> httpx.AsyncClient:
    """A client of a server over real sockets; to load certificates that plain HTTP has no use for would take longer
    than most of what it is made for."""
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return httpx.AsyncClient(base_url=base, headers=headers, timeout=60, limits=limits, verify=False, trust_env=False)


async def new_tenant(admin: httpx.AsyncClient, name: str, **body: Any) -> str:
    """Make a tenant over HTTP; its owner's token."""
    made = await admin.post("/v1/tenants", json={"id": name} | body)
    assert made.status_code == 201, made.text
    minted = await admin.post("/v1/tokens", json={"tenant_id": name, "role": "owner", "name": "owner"})
    assert minted.status_code == 201, minted.text
    return str(minted.json()["secret"])
