"""What an idle instance holds: resident memory once requests are accepted and a moment has passed.

The instance is started as an operator would, with `python -m service serve`; where that command is missing, with the
function beneath it.
"""

import contextlib
import os
import socket
import subprocess
import sys
import time
from importlib.util import find_spec

import msgspec

from bench import machine
from bench.engine import Engine
from bench.server import stop

REST_SECONDS = 1.5
PATIENCE_SECONDS = 30
FUNCTION = (
    "from service.main import run; from service.settings import Settings; run(Settings(database_url={!r}, port={!r}))"
)


class Idle(msgspec.Struct):
    """Resident MiB of an idle instance, and what was started."""

    engine: str
    mib: float
    started: str


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def measure(engine: Engine) -> Idle:
    """On a store of its own, at default settings."""
    port = free_port()
    with engine.store() as url:
        command, started = [sys.executable, "-c", FUNCTION.format(url, port)], "service.main.run"
        if find_spec("service.__main__") is not None:
            command, started = [sys.executable, "-m", "service", "serve"], "python -m service serve"
        environ = os.environ | {"HOLDFAST__DATABASE_URL": url, "HOLDFAST__PORT": str(port)}
        process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_until_served(process, port)
            time.sleep(REST_SECONDS)
            return Idle(engine.name, machine.resident_mib(process.pid), started)
        finally:
            stop(process)


def wait_until_served(process: "subprocess.Popen[bytes]", port: int) -> None:
    """Return once the port answers; raise when the process ends or takes too long."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    ended = process.poll()
    said = f"was not up after {PATIENCE_SECONDS} s" if ended is None else f"ended with {ended} at start-up"
    raise RuntimeError(f"the instance {said}")
