"""`python -m bench peers`: this service and its peers side by side on one Postgres, in one run.

Each pass of each contender has a database of its own; the contenders take turns. A peer does each thing with one
process and with two, and the better median counts: the service has a server and a client, too.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import machine, report
from bench.engine import Engine, opened
from bench.peers import ours, work
from bench.peers.room import ROOT, room, versions
from bench.table import Table, markdown, text

PEERS = {
    "procrastinate": ("enqueue", "batch", "drain"),
    "pgqueuer": ("enqueue", "batch", "drain"),
    "dbos": ("enqueue", "batch", "drain", "workflow"),
}
ROLES = {
    "enqueue": f"enqueue one by one, {work.CALLERS} callers",
    "batch": f"enqueue in batches of {work.BATCH:,}",
    "drain": "drain: claim and complete",
    "workflow": f"workflow of one step, {work.CALLERS} callers",
}
PROCESSES = (1, 2)
SHARE = {"workflow": 0.25}
"""Of the jobs of a role, where a full number would take a peer minutes."""
PATIENCE = 900
Rates = dict[tuple[str, str], float]
"""Median jobs a second by role and contender."""


@contextmanager
def program(python: Path, peer: str, role: str, url: str, count: int) -> Iterator["subprocess.Popen[str]"]:
    """A peer's program, ready; gone at the end."""
    command = [str(python), "-m", f"bench.peers.with_{peer}", role, url, str(count)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        if role != "setup":
            said = line(process)
            if said != "ready":
                raise RuntimeError(f"{peer} {role} said {said!r}")
        yield process
        if process.wait(PATIENCE):
            raise RuntimeError(f"{peer} {role} ended with {process.returncode}")
    finally:
        process.kill()
        process.communicate()


def line(process: "subprocess.Popen[str]") -> str:
    """The next line that a program says; empty when it has ended."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def together(python: Path, peer: str, role: str, url: str, count: int, processes: int) -> float:
    """Jobs a second of so many processes that share the work and begin at once."""
    each = count // processes
    if processes == 1:
        with program(python, peer, role, url, each) as one:
            return finished([one], role, count)
    with program(python, peer, role, url, each) as one, program(python, peer, role, url, each) as other:
        return finished([one, other], role, count)


def finished(running: list["subprocess.Popen[str]"], role: str, count: int) -> float:
    """Tell them to go; the jobs they did, which must be all, in the time of the slowest."""
    for process in running:
        assert process.stdin is not None
        print("go", file=process.stdin, flush=True)
    told = [json.loads(line(process)) for process in running]
    done = sum(one["done"] for one in told)
    if done < count:
        raise RuntimeError(f"{role}: {done} of {count} jobs were done")
    return float(done / max(one["seconds"] for one in told))


def one_pass(engine: Engine, python: Path, peer: str, role: str, count: int, processes: int) -> float:
    """On a database of its own."""
    with engine.store() as url:
        with program(python, peer, "setup", url, 0):
            pass
        if role == "drain":
            together(python, peer, "batch", url, count, 1)
        return together(python, peer, role, url, count, processes)


def measure(engine: Engine, python: Path, jobs: int, passes: int, roles: list[str]) -> Rates:
    """Every role of every contender, in turns."""
    found: dict[tuple[str, str, int], list[float]] = {}
    for turn in range(passes):
        for role in roles:
            count = max(work.BATCH, int(jobs * SHARE.get(role, 1)) // work.BATCH * work.BATCH)
            with engine.store() as url:
                found.setdefault((role, "holdfast", 1), []).append(ours.rate(role, url, count))
            for peer, does in PEERS.items():
                for processes in PROCESSES if role in does else ():
                    rate = one_pass(engine, python, peer, role, count, processes)
                    found.setdefault((role, peer, processes), []).append(rate)
        print(f"pass {turn + 1} of {passes}", file=sys.stderr, flush=True)
    rates: Rates = {}
    for (role, contender, _), all_of_it in found.items():
        rates[role, contender] = max(rates.get((role, contender), 0.0), statistics.median(all_of_it))
    return rates


def table(rates: Rates, title: str) -> Table:
    """One row a role; behind each peer's rate, how many times ours is as much."""
    rows = []
    for role in dict.fromkeys(role for role, _ in rates):
        own = rates[role, "holdfast"]
        cells = [shown(rates.get((role, peer)), own) for peer in PEERS]
        best = max((rate, name) for (of, name), rate in rates.items() if of == role)[1]
        rows.append((ROLES[role], f"{own:,.0f}", *cells, best))
    return Table(title, ("per second", "holdfast", *PEERS, "ahead"), rows, ("ahead",))


def shown(rate: float | None, own: float) -> str:
    """A peer's rate and the ratio of ours to it."""
    return "" if rate is None else f"{rate:,.0f} ({own / rate:.2f} x)"


def main(arguments: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser("python -m bench peers", description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000, help="jobs of a pass; a quarter of them for workflows")
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--only", nargs="+", metavar="ROLE", choices=list(ROLES), default=list(ROLES))
    parser.add_argument("--write", action="store_true", help="write the table into bench/README.md")
    chosen = parser.parse_args(arguments)
    python = room()
    with opened("postgres") as engine:
        rates = measure(engine, python, chosen.jobs, chosen.passes, chosen.only)
    m = machine.description()
    facts = [
        f"{report.now()}: {m['cores']} cores, {m['cpu']}, {m['memory']}, Python {m['python']}",
        engine.version,
        *(f"{name} {at}" for name, at in versions(python, list(PEERS)).items()),
        f"medians of {chosen.passes} passes of {chosen.jobs:,} jobs",
    ]
    made = table(rates, "; ".join(facts))
    print(text(made))
    if chosen.write:
        report.place("peers", markdown(made))
    return 0
