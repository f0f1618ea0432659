"""Which batches are begun beside one that is under way: not by the time, by how many wait."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from service.kernel import run
from service.kernel.command import Request
from service.kernel.principal import internal
from service.kernel.run import Kernel


class Held(Kernel):
    """A kernel of two lanes whose batches end when they are told to; `flying` is how large those are that are not over,
    by the order in which they began."""

    def __init__(self, lanes: int = 2) -> None:
        nothing: Any = SimpleNamespace(lanes=lanes, serial=False)
        super().__init__(nothing, nothing, {})
        self.ends: list[tuple[int, asyncio.Event]] = []

    @property
    def flying(self) -> list[int]:
        return [size for size, end in self.ends if not end.is_set()]

    async def execute(self, batch: Any, **_how: bool) -> list[Any]:
        end = asyncio.Event()
        self.ends.append((len(batch), end))
        await end.wait()
        return [None] * len(batch)

    async def ask(self, count: int) -> None:
        """Let so many commands come at once."""
        for _ in range(count):
            self.submit(Request(internal("acme"), None))
        await turn()

    async def end(self, at: int) -> None:
        """End the batch that began as number `at`."""
        self.ends[at][1].set()
        await turn()


async def turn() -> None:
    """Let everything run that can."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """No timer comes in between."""
    monkeypatch.setattr(run, "PATIENCE", 3_600.0)


@pytest.mark.usefixtures("patience")
async def test_a_lone_command_waits_for_nobody_and_another_goes_beside_it() -> None:
    kernel = Held()
    await kernel.ask(1)
    await kernel.ask(1)
    assert kernel.flying == [1, 1]


@pytest.mark.usefixtures("patience")
async def test_few_wait_beside_many_until_they_are_as_many() -> None:
    kernel = Held()
    await kernel.ask(10)
    await kernel.ask(9)
    assert kernel.flying == [10]
    await kernel.ask(1)
    assert kernel.flying == [10, 10]


@pytest.mark.usefixtures("patience")
async def test_whoever_waits_goes_when_the_batch_before_has_ended() -> None:
    kernel = Held()
    await kernel.ask(10)
    await kernel.ask(3)
    await kernel.end(0)
    assert kernel.flying == [3]


@pytest.mark.usefixtures("patience")
async def test_a_lane_that_is_free_again_waits_for_as_many_as_the_other_holds() -> None:
    kernel = Held()
    await kernel.ask(4)
    await kernel.ask(10)
    await kernel.ask(2)
    await kernel.end(0)
    assert kernel.flying == [10], "two of them, beside ten"
    await kernel.ask(8)
    assert kernel.flying == [10, 10]


async def test_whoever_waits_for_long_goes_whatever_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch may be held up by a lock of another process for seconds."""
    monkeypatch.setattr(run, "PATIENCE", 0.0)
    kernel = Held()
    await kernel.ask(10)
    await kernel.ask(1)
    while kernel.flying == [10]:
        await asyncio.sleep(0.001)
    assert kernel.flying == [10, 1]


async def test_whoever_came_just_now_has_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    fired: list[Any] = []
    kernel = Held()
    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", lambda _, do, *told: fired.append((do, told)))
    await kernel.ask(10)
    await kernel.ask(3)
    await kernel.end(0)
    await kernel.ask(2)
    (do, told), *_ = fired
    do(*told)
    await turn()
    assert kernel.flying == [3], "those that the time was set for are under way"
    do, told = fired[-1]
    do(*told)
    await turn()
    assert kernel.flying == [3, 2]
