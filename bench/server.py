"""The server under test, in a process of its own: the whole application, plus one endpoint that runs no command.

The floor endpoint authenticates, permits, reads and decodes a start like the real one and answers like it; only the
store is left out. It exists in this process alone: the product carries nothing for the bench.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from bench.job import Target

FLOOR = "/v1/bench:floor"
TENANT = "default"
CHILD = "from bench.server import child; child({!r})"


class Running(msgspec.Struct):
    """A server that accepts requests."""

    pid: int
    port: int
    token: str

    @property
    def target(self) -> Target:
        return Target(self.port, self.token)


def floor_endpoint() -> Any:
    """A start up to the point where the command would be run."""
    from service.executions.model import Started, StartExecution
    from service.executions.routes import START, prepared
    from service.http.endpoint import Call, Endpoint, decode

    async def floor(call: Call) -> Started:
        made = await prepared(call, decode(START, call.body), call.body)
        return Started("01890a5d-ac96-774b-bcce-b302099a8057", "running", made.version, 1, True, "01890a5d-ac96-774b")

    return Endpoint(
        "POST", FLOOR, "benchFloor", "execution.write", "A start without its command", floor, reply=Started,
        body=StartExecution, created=True, writes=True,
    )  # fmt: skip


def child(raw: str) -> None:
    """Serve with the settings in `raw` (JSON) and say on standard output where, once requests are accepted."""
    from service import capabilities, main
    from service.http.app import build
    from service.settings import Settings
    from service.tokens.bootstrap import bootstrap

    async def ready(services: Any, port: int) -> None:
        token = await bootstrap(services, tenant_id=TENANT, role="owner", name="bench")
        print(msgspec.json.encode(Running(os.getpid(), port, token)).decode(), flush=True)

    main.application = lambda services: build(services, [*capabilities.endpoints(), floor_endpoint()])
    main.run(msgspec.json.decode(raw, type=Settings), ready)


@contextlib.contextmanager
def serving(url: str, **settings: Any) -> Iterator[Running]:
    """A server over the store at `url`, at default settings but for `settings`; stopped at the end."""
    raw = msgspec.json.encode({"database_url": url, "port": 0, **settings}).decode()
    process = subprocess.Popen([sys.executable, "-c", CHILD.format(raw)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the server did not start; it ended with {process.wait(10)}")
        yield msgspec.json.decode(line, type=Running)
    finally:
        stop(process)


def stop(process: "subprocess.Popen[Any]") -> None:
    """End a process politely, then not."""
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def settle(seconds: float = 0.3) -> None:
    """Let what was set off before (a checkpoint, a wake-up) end before the next measurement."""
    time.sleep(seconds)
