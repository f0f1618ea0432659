"""Faults put in on purpose are found, and soon; a fence that is left alone holds."""

import pytest

from tests.simulator.mutants import BROKEN, HELD
from tests.simulator.simulate import Failed, simulate

STEPS, WORLDS = 4_000, 15
HELD_STEPS = 2_000


def steps_to_find(name: str) -> int:
    """How many steps it took until a fault broke a promise; worlds from its first seed on."""
    mutant = BROKEN[name]
    for seed in range(mutant.first, mutant.first + WORLDS):
        with mutant.inside():
            try:
                simulate(seed, STEPS, shape=mutant.shape, prepare=mutant.prepare)
            except Failed as failure:
                return (seed - mutant.first) * STEPS + failure.step
    raise AssertionError(f"nobody noticed in {WORLDS * STEPS} steps: {name}")


@pytest.mark.parametrize("name", BROKEN)
def test_a_fault_put_in_on_purpose_is_found(name: str) -> None:
    print(f"{name}: found after {steps_to_find(name):,} steps")


@pytest.mark.parametrize("name", HELD)
def test_one_fence_alone_holds(name: str) -> None:
    mutant = HELD[name]
    with mutant.inside():
        for seed in (1, 2):
            simulate(seed, HELD_STEPS, shape=mutant.shape, prepare=mutant.prepare)
