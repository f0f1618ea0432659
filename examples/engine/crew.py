"""Worker processes: hired, replaced when they die, sent home at the end."""

import multiprocessing
import os
import signal
import threading
from typing import Any, NamedTuple

from engine.flows import FLOWS
from engine.hands import ACTIVITIES
from engine.mortal import Life, Mortal
from engine.worker import Worker

SPAWN = multiprocessing.get_context("spawn")


class Task(NamedTuple):
    """What a worker process is told; `die_at` is the step at which it kills itself, 0 is never."""

    url: str
    token: str
    name: str
    queue: str
    die_at: int


def main(task: Task) -> None:
    """Work until SIGTERM, or until the parent is gone."""
    stop, parent, life = threading.Event(), os.getppid(), Life(task.die_at)
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def orphaned() -> None:
        while not stop.wait(1):
            if os.getppid() != parent:
                stop.set()

    threading.Thread(target=orphaned, daemon=True).start()
    worker = Worker(lambda: Mortal(task.url, task.token, life), task.name, [task.queue], FLOWS, ACTIVITIES)
    worker.work(stop)


class Crew:
    """So many workers at a time; a name is never used twice."""

    def __init__(self, url: str, token: str, queue: str, size: int, die_at: int) -> None:
        self._task = Task(url, token, "", queue, die_at)
        self._members: list[Any] = []
        self.hired = self.died = 0
        for _ in range(size):
            self.hire()

    def hire(self) -> None:
        """One more."""
        self.hired += 1
        name = f"worker-{self.hired}"
        process = SPAWN.Process(target=main, args=(self._task._replace(name=name),), name=name, daemon=True)
        process.start()
        self._members.append(process)

    def replace_dead(self) -> None:
        """Another one for each that died; one that failed by itself is an error."""
        for process in [one for one in self._members if not one.is_alive()]:
            if process.exitcode != -signal.SIGKILL:
                raise SystemExit(f"{process.name} failed; it said why above")
            self._members.remove(process)
            self.died += 1
            self.hire()

    def dismiss(self) -> bool:
        """Send everybody home; whether all of them went by themselves, what they held settled."""
        for process in self._members:
            process.terminate()
        for process in self._members:
            process.join(10)
            if process.is_alive():
                process.kill()
                process.join()
        return all(process.exitcode == 0 for process in self._members)
