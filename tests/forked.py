"""Python programs that start at once: forked from a process that has loaded the libraries and the service. That is most
of a start; the rest happens as ever, in a real process with words, folder, environment and files of its own.

Not for what a start itself promises: see tests/tidy/test_start.py, tests/cli/test_version.py and the server that the
tests of the command line share, which begins from nothing.
"""

import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing import connection, reduction
from pathlib import Path
from typing import IO, Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.preloaded"])
LOOKING = threading.Lock()
"""An exit code can be read once; whoever starts a process looks whether others have ended."""


class Forked:
    """`python -m module …` or `python -c text …`, as a Popen."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        stdout: IO[Any] | int,
        stderr: IO[Any] | int,
    ) -> None:
        files = [Open(one if isinstance(one, int) else one.fileno()) for one in (stdout, stderr)]
        self.args = command
        self._process = CONTEXT.Process(target=begin, args=(command[1:], str(cwd), dict(env), *files), daemon=True)
        with LOOKING:
            self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        with LOOKING:
            return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        connection.wait([self._process.sentinel], timeout)
        if (code := self.returncode) is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def send_signal(self, which: int) -> None:
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, which)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Open:
    """An open file on its way to a new process, where it is a number."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __reduce__(self) -> Any:
        return arrived, (reduction.DupFd(self._number),)


def arrived(file: Any) -> int:
    """The number under which a file is open here."""
    return int(file.detach())


def begin(words: Sequence[str], cwd: str, env: Mapping[str, str], stdout: int, stderr: int) -> None:
    """In the new process: what Python does with `words` once it has started."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for number, file in ((1, stdout), (2, stderr)):
        os.dup2(file, number)
        os.close(file)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
    sys.path[:0] = [cwd, *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    how, what, *rest = words
    sys.argv = [how, *rest]
    try:
        if how == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
    except Exception:
        traceback.print_exc()
        sys.exit(1)


def run(
    command: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout: float
) -> "subprocess.CompletedProcess[str]":
    """Run a program to its end: exit code, and what it said, as text."""
    with contextlib.ExitStack() as stack:
        out, err = (stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8")) for _ in range(2))
        process = Forked(command, cwd=cwd, env=env, stdout=out, stderr=err)
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess(command, code, out.read(), err.read())
