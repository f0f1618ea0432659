"""The server under test, in a process of its own: the whole application, plus one endpoint that runs no command.

The floor endpoint authenticates, permits, reads and decodes a start like the real one and answers like it; only the
store is left out. It exists in this process alone: the product carries nothing for the bench.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from bench.job import Target

FLOOR = "/v1/bench:floor"
ANSWERED = "01890a5d-ac96-774b-bcce-b302099a8057"
TENANT = "default"
CHILD = "from bench.server import child; child({!r})"


class Running(msgspec.Struct):
    """A server that accepts requests; `token` is an owner's, `admin` a system administrator's."""

    pid: int
    port: int
    token: str
    admin: str

    @property
    def target(self) -> Target:
        return Target(self.port, self.token)


def floor_endpoint(endpoints: Iterable[Any]) -> Any:
    """The endpoint that starts executions, but that running its command gives an answer made beforehand."""
    from service.executions.model import Started
    from service.http.endpoint import Call

    start = next(one for one in endpoints if one.operation == "startExecution")
    answer = Started(ANSWERED, "running", None, 1, True, ANSWERED)

    class Unrun(Call):
        __slots__ = ()

        async def run(self, _command: Any) -> Started:
            return answer

    async def floor(call: Call) -> Any:
        call.__class__ = Unrun  # the same object, so that the floor costs nothing of its own
        return await start.handle(call)

    return msgspec.structs.replace(start, path=FLOOR, operation="benchFloor", handle=floor)


def child(raw: str) -> None:
    """Serve with the settings in `raw` (JSON) and say on standard output where, once requests are accepted."""
    from service import capabilities, main
    from service.http.app import build
    from service.settings import Settings
    from service.tokens.bootstrap import bootstrap

    said = os.dup(1)
    os.dup2(2, 1)  # what the server logs belongs on the terminal; nobody reads the pipe after the first line

    async def ready(services: Any, port: int) -> None:
        token = await bootstrap(services, tenant_id=TENANT, role="owner", name="bench")
        os.write(said, msgspec.json.encode(Running(os.getpid(), port, token, await bootstrap(services))) + b"\n")

    def application(services: Any) -> Any:
        endpoints = capabilities.endpoints()
        return build(services, [*endpoints, floor_endpoint(endpoints)])

    main.application = application
    main.run(msgspec.structs.replace(msgspec.json.decode(raw, type=Settings), log_level="warning"), ready)


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
