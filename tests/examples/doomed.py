"""Workers of the engine example that are killed at the steps of what they say, each in a process of its own.

Arguments: URL, token, how many activities fan out, at how many steps of each case to kill (0: at every one). Says a
line of JSON for each case: its workflow, its steps, how many workers were killed, what is wrong. It forks, and so is a
process without threads or loops.
"""

import json
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from engine import cases
from engine.cases import Case
from engine.flows import FLOWS
from engine.hands import ACTIVITIES
from engine.mortal import Life, Mortal
from engine.report import ended, told
from engine.worker import Worker
from workflow.client import Client

LEASE_MS, AT_ONCE, QUEUES, PATIENCE, POLL_SECONDS = 1_000, 8, 60, 60.0, 0.1
_, URL, TOKEN, WIDTH, KILLS = sys.argv


def plain() -> Client:
    """A client that lives."""
    return Client(URL, TOKEN)


def live(id: str, life: Life) -> None:
    """One thing after another, and only when there is something to do: the same steps in the same order each time."""
    worker = Worker(plain, f"doomed-{life.left}", [id], FLOWS, ACTIVITIES, LEASE_MS)
    mortal, client = Mortal(URL, TOKEN, life), plain()
    while True:
        if client.get("/v1/work-items", filter=f"queue = '{id}' AND status = 'ready'", limit=1)["items"]:
            worker.decide(mortal, 0)
            worker.act(mortal, 0)
        elif ended(client, id):
            return
        else:
            time.sleep(POLL_SECONDS)


def doomed(case: Case, id: str, die_at: int) -> int:
    """Start a workflow on a queue of its own and fork a worker for it; the process."""
    cases.start(plain(), case, id, id)
    pid = os.fork()
    if pid == 0:
        try:
            live(id, Life(die_at))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return pid


def killed(pid: int) -> bool:
    """Whether it was killed by itself, and did not live to the end of its workflow."""
    _, status = os.waitpid(pid, 0)
    if status != 0 and os.WTERMSIG(status) != signal.SIGKILL:
        raise SystemExit("a worker failed; it said why above")
    return status != 0


def steps(case: Case, id: str) -> int:
    """How many steps the worker of a case has that nobody kills."""
    cases.start(plain(), case, id, id)
    life = Life(0)
    live(id, life)
    return -life.left


def heal(ids: list[str]) -> None:
    """Have everything done that killed workers left behind, by one that nobody kills."""
    stop, worker = threading.Event(), Worker(plain, "healer", ids, FLOWS, ACTIVITIES)
    client, end = plain(), time.monotonic() + PATIENCE
    thread = threading.Thread(target=worker.work, args=(stop,))
    thread.start()
    try:
        for id in ids:
            while not ended(client, id) and time.monotonic() < end:
                time.sleep(0.05)
    finally:
        stop.set()
        thread.join()


class Killed(NamedTuple):
    """A case begun once for each step that was killed at, each on its own, and once where nobody was killed."""

    case: Case
    steps: int
    ids: list[str]
    dead: int

    def line(self) -> str:
        """What the logs say in the end, as JSON."""
        client = plain()
        wrong = [line for id in self.ids for line in told(client, self.case, id).wrong]
        said = {"flow": self.case.flow, "steps": self.steps, "begun": len(self.ids), "killed": self.dead}
        return json.dumps(said | {"wrong": wrong})


def kill(case: Case, name: str, kills: int) -> Killed:
    """Kill at so many steps, evenly spread, or at all of them."""
    count = steps(case, name)
    chosen = sorted({1 + at * count // kills for at in range(kills)} if kills else range(1, count + 1))
    ids = [f"{name}-{step}" for step in chosen]
    dead = 0
    for first in range(0, len(ids), AT_ONCE):
        pairs = zip(ids[first : first + AT_ONCE], chosen[first : first + AT_ONCE], strict=True)
        dead += sum([killed(pid) for pid in [doomed(case, id, step) for id, step in pairs]])
    return Killed(case, count, [name, *ids], dead)


def main() -> None:
    """Kill in all cases, heal what is left, tell of each."""
    asked = cases.cases(False, int(WIDTH))
    found = [kill(case, f"doomed-{at}", int(KILLS)) for at, case in enumerate(asked)]
    ids = [id for one in found for id in one.ids]
    for first in range(0, len(ids), QUEUES):
        heal(ids[first : first + QUEUES])
    for one in found:
        print(one.line())


if __name__ == "__main__":
    main()
