"""The worker processes, and the one that is killed in the middle of its work."""

import multiprocessing
import os
import signal
import time
from collections import Counter
from typing import Any

from workflow import worker
from workflow.client import Client

SPAWN = multiprocessing.get_context("spawn")
LOOKS = 400


class Crew:
    """Workers by name; a name is never used twice."""

    def __init__(self, client: Client, queue: str, lease_ms: int, ir: dict[str, Any], size: int) -> None:
        self.client, self.queue, self.lease_ms, self.ir = client, queue, lease_ms, ir
        self.done = worker.counters(size + 1)
        self.members: dict[str, Any] = {}
        for _ in range(size):
            self.hire()

    def hire(self) -> str:
        """Start one more worker."""
        row = len(self.members)
        name = f"worker-{row + 1}"
        task = worker.Task(self.client.url, self.client.token, name, self.queue, self.lease_ms, self.ir, self.done, row)
        self.members[name] = SPAWN.Process(target=worker.main, args=(task,), name=name, daemon=True)
        self.members[name].start()
        return name

    def transitions(self) -> int:
        """How many transitions the workers have made so far."""
        return sum(self.done)

    def strike(self) -> tuple[str, int] | None:
        """Kill a worker that holds leases: its name, and how many. None if none was caught holding any."""
        for look in range(LOOKS):
            least = 2 if look < LOOKS // 4 else 1  # of two, one at most is being settled: the other surely expires
            for name, held in self._held().items():
                if held >= least and (caught := self._stop(name)) >= least:
                    os.kill(self.members[name].pid, signal.SIGKILL)
                    self.members[name].join()
                    return name, caught
                os.kill(self.members[name].pid, signal.SIGCONT)
            time.sleep(0.005)
        return None

    def _stop(self, name: str) -> int:
        """Stop a worker where it is, and let what it has sent arrive; how many leases it holds."""
        os.kill(self.members[name].pid, signal.SIGSTOP)
        time.sleep(0.05)
        return self._held()[name]

    def _held(self) -> Counter[str]:
        """How many leases each worker holds."""
        found = self.client.pages("/v1/work-items", queue=self.queue, status="leased")
        return Counter(one["lease"]["worker_id"] for one in found)

    def dismiss(self) -> None:
        """Send everybody home."""
        for process in self.members.values():
            if process.is_alive():
                process.terminate()
        for process in self.members.values():
            process.join(10)
            if process.is_alive():
                process.kill()
                process.join()
            process.close()
