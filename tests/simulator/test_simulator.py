"""Worlds by chance, in which everything goes wrong and no promise is broken.

A failure names its seed and step; `python -m tests.simulator --seed N --steps M` shows it again with a trace. The long
form is a million steps.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.evidence import record
from tests.simulator import flows, plans
from tests.simulator.asks import OPS
from tests.simulator.simulate import many, simulate

ROOT = Path(__file__).parents[2]
DIGEST = """
import hashlib
from collections import deque
from tests.simulator.simulate import simulate
trace = deque()
simulate(5, 1_500, trace=trace)
print(hashlib.sha256("\\n".join(trace).encode()).hexdigest())
"""


def test_no_promise_is_broken_in_worlds_by_chance() -> None:
    found = many(first=1, steps=2_500, worlds=10)
    print(found)
    assert found["steps"] >= 20_000
    rare = {op: found.get(op, 0) for op in OPS if found.get(op, 0) < 10}
    assert not rare, f"too few of {rare}"
    for trouble in ("crashes", "clock jumps", "database restarts", "store/outcome-unknown", "store/full", "replayed"):
        assert found.get(trouble), f"no {trouble}"


def test_no_promise_is_broken_in_worlds_of_workflows() -> None:
    found = many(first=21, steps=3_000, worlds=9, engine=True)
    print(found)
    rare = {op: found.get(op, 0) for op in flows.OPS | plans.OPS if found.get(op, 0) < 5}
    assert not rare, f"too few of {rare}"
    never = [policy for policy in plans.POLICIES if not found.get(f"began by {policy}")]
    assert not never, f"no occurrence of {never}"
    assert found["missed"], "nothing was too late"


@pytest.mark.slow
def test_no_promise_is_broken_in_a_million_steps_of_workflows() -> None:
    found = many(first=1_000, steps=10_000, worlds=100, engine=True)
    print(found)
    kept = ("steps", "seconds", "requests", "acknowledged", "claims handed over", "commits", "crashes", "clock jumps",
            "deadlocks")  # fmt: skip
    figures = {name.replace(" ", "_"): found.get(name, 0) for name in kept}
    record("No interleaving of workflows and crashes breaks a promise", "memory", **figures)
    assert found["steps"] >= 1_000_000


@pytest.mark.slow
def test_no_promise_is_broken_in_a_million_steps() -> None:
    found = many(first=1_000, steps=10_000, worlds=100)
    print(found)
    kept = ("steps", "seconds", "steps per cpu second", "requests", "acknowledged", "replayed", "claims handed over",
            "commits", "crashes", "clock jumps", "database restarts", "deadlocks")  # fmt: skip
    figures = {name.replace(" ", "_"): found.get(name, found.get(name.replace(" ", "_"), 0)) for name in kept}
    record("No interleaving of commands and crashes breaks a promise", "memory", **figures)
    assert found["steps"] >= 1_000_000


@pytest.mark.slow
def test_a_world_that_lives_long_stays_whole() -> None:
    world = simulate(7, 100_000)
    print(dict(world.counts))


def test_a_seed_is_the_same_world_in_any_process() -> None:
    """Whatever the order of sets and dictionaries in it."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", DIGEST], env=os.environ | {"PYTHONHASHSEED": seed}, cwd=ROOT, text=True,
            stdout=subprocess.PIPE,
        )
        for seed in ("1", "2")
    ]  # fmt: skip
    told = [process.communicate()[0] for process in running]
    assert told[0] == told[1] != ""
