"""The command line as its users have it: real processes, in a folder and an environment of their own."""

import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import forked

ROOT = Path(__file__).parents[2]
TOKEN, URL = re.compile(r"hold[ts]_[0-9A-Za-z]{16}_[0-9A-Za-z]{49}"), re.compile(r"http://\S+:\d+")
READY = re.compile(r"serves \S+ at http://\S+:\d+\n|Ctrl-C ends it\.\n")
SECONDS = 30


def environment(**more: str) -> dict[str, str]:
    """The environment without settings that somebody may have in theirs."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST")}
    return kept | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"} | more


Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def holdfast(tmp_path: Path) -> Command:
    """Run `holdfast …` to its end."""

    def run(*words: str, **environ: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "service", *words]
        return forked.run(command, cwd=tmp_path, env=environment(**environ), timeout=SECONDS)

    return run


class Running:
    """A `holdfast serve` or `holdfast dev` that accepts requests; what it says goes to two files. `begin` is how its
    process comes to be."""

    def __init__(self, folder: Path, *words: str, begin: Any = forked.Forked) -> None:
        self._out, self._err = folder / "stdout", folder / "stderr"
        with self._out.open("w") as out, self._err.open("w") as err:
            command = [sys.executable, "-m", "service", *words, "--port", "0"]
            self.process = begin(command, cwd=folder, env=environment(TMPDIR=str(folder)), stdout=out, stderr=err)

    @property
    def said(self) -> str:
        return self._out.read_text()

    @property
    def logged(self) -> str:
        return self._err.read_text()

    @property
    def url(self) -> str:
        found = URL.search(self.said)
        assert found is not None, f"{self.said}\n{self.logged}"
        return found.group()

    @property
    def tokens(self) -> list[str]:
        """Every token it has printed, each once."""
        return list(dict.fromkeys(TOKEN.findall(self.said)))

    def await_said(self, pattern: re.Pattern[str]) -> None:
        """Wait until it has said something; the URL is the last thing that `serve` says, once requests are accepted."""
        end = time.monotonic() + SECONDS
        while pattern.search(self.said) is None:
            assert self.process.poll() is None and time.monotonic() < end, f"{self.said}\n{self.logged}"
            time.sleep(0.02)

    def connect(self) -> http.client.HTTPConnection:
        """A connection; close it."""
        return http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=SECONDS)

    def ask(self, token: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON of one request."""
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, None if body is None else json.dumps(body), headers(token))
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        return self.process.wait(SECONDS)


def headers(token: str) -> dict[str, str]:
    """The headers of a request."""
    return {"authorization": f"Bearer {token}", "content-type": "application/json"}


@contextlib.contextmanager
def start(folder: Path, *words: str, **how: Any) -> Iterator[Running]:
    """A server, ready; stopped at the end if it still runs."""
    server = Running(folder, *words, **how)
    try:
        server.await_said(READY)
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait(SECONDS)


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One served store for the tests that only talk to it, started from nothing."""
    with start(tmp_path_factory.mktemp("served"), "serve", begin=subprocess.Popen) as server:
        yield server
