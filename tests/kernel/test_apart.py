"""Whose commands go apart after one of them met a row that somebody holds, and for how long they wait."""

from types import SimpleNamespace
from typing import Any

from service.kernel.apart import ALL_MS, APART_MS, EACH_MS, LEAST_MS, MOST, Apart, Haste, parts
from service.kernel.command import Request
from service.kernel.principal import SYSTEM, internal
from service.kernel.run import Kernel
from tests.limits.test_fairness import batch, submit


class Held:
    """A kernel that begins nothing by itself, and a clock."""

    def __init__(self) -> None:
        self.now = 1_000_000
        backend: Any = SimpleNamespace(lanes=0, now=lambda: self.now)
        self.kernel = Kernel(backend, backend, {}, batch_max=64)
        self.apart: Apart = self.kernel._apart


def test_a_tenant_goes_apart_for_some_seconds_after_the_last_time() -> None:
    held = Held()
    assert not held.apart
    assert "t" not in held.apart
    held.apart.met("t")
    held.now += APART_MS - 1
    assert held.apart
    assert held.apart.among(["s", "t"]) == ["t"]
    held.apart.met("t")
    held.now += APART_MS - 1
    assert "t" in held.apart
    held.now += 1
    assert "t" not in held.apart
    assert not held.apart


def test_a_clock_that_was_set_back_keeps_nobody_apart() -> None:
    held = Held()
    held.apart.met("t")
    held.now -= 3_600_000
    assert "t" not in held.apart


def test_who_came_together_again_is_not_remembered() -> None:
    held = Held()
    for n in range(1_000):
        held.apart.met(f"t{n}")
        held.now += APART_MS
    assert len(held.apart._met) == 1


def test_those_who_are_tried_one_by_one_wait_together_not_much_longer_than_half_a_second() -> None:
    haste, waited = Haste(), 0
    for _ in range(MOST):
        waited += haste.lock_ms
        haste.waited()
    assert waited == ALL_MS + (MOST - ALL_MS // EACH_MS) * LEAST_MS


def test_a_batch_is_tried_by_tenants_and_then_by_commands() -> None:
    requests = [Request(internal(tenant), None) for tenant in ("a", "b", "a", "c")]
    assert parts(requests) == [[0, 2], [1], [3]]
    assert parts(requests[:1] * 3) == [[0], [1], [2]]


async def test_who_goes_apart_shares_no_batch_and_has_every_second_turn() -> None:
    held = Held()
    for name in ("held", "a", "b", SYSTEM, "also"):
        submit(held.kernel, name, 2)
    for name in ("held", "also"):
        held.apart.met(name)
    turns = []
    while held.kernel.waiting:
        turns.append(batch(held.kernel))
    assert turns == [["held"] * 2, ["a", "b", "a", "b"], ["also"] * 2, [SYSTEM] * 2]


async def test_who_goes_apart_leaves_lanes_to_the_others() -> None:
    held = Held()
    held.apart.met("held")
    submit(held.kernel, "held", MOST + 1)
    assert batch(held.kernel) == ["held"] * MOST
    held.kernel._flying_apart = 1
    assert held.kernel._all_stay()
    submit(held.kernel, "a")
    assert not held.kernel._all_stay()
    assert batch(held.kernel) == ["a"]
    assert held.kernel._all_stay()
    held.now += APART_MS
    assert not held.kernel._all_stay()
    assert batch(held.kernel) == ["held"]
    assert held.kernel.waiting == 0
