"""Questions that are asked at once share a read, and nobody is answered by one that began too early."""

import asyncio

import pytest

from service.errors import StateError
from service.kernel.together import Together


class Store:
    """Answers `n` with `-n`; counts its reads, and holds them until the gate is open."""

    def __init__(self) -> None:
        self.reads: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.at_once = self.most = 0

    async def read(self, asked: list[int]) -> list[int]:
        self.reads.append(asked)
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await self.gate.wait()
        self.at_once -= 1
        if self.error is not None:
            raise self.error
        return [-one for one in asked]


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_those_who_ask_in_one_turn_share_a_read() -> None:
    store = Store()
    together = Together(store.read, lanes=1)
    assert await asyncio.gather(*(together.ask(number) for number in range(50))) == [-number for number in range(50)]
    assert len(store.reads) == 1


async def test_whoever_asks_during_a_read_is_answered_by_the_next() -> None:
    store = Store()
    together = Together(store.read, lanes=1)
    store.gate.clear()
    first = asyncio.create_task(together.ask(1))
    await turns()
    late = [asyncio.create_task(together.ask(number)) for number in (2, 3)]
    await turns()
    assert store.reads == [[1]]
    store.gate.set()
    assert await asyncio.gather(first, *late) == [-1, -2, -3]
    assert store.reads == [[1], [2, 3]]


async def test_those_who_ask_within_a_rest_share_a_read() -> None:
    store, over = Store(), asyncio.Event()

    async def rest() -> None:
        await over.wait()

    together = Together(store.read, lanes=1, rest=rest)
    asked = []
    for number in (1, 2, 3):
        asked.append(asyncio.create_task(together.ask(number)))
        await turns()
    assert store.reads == []
    over.set()
    assert await asyncio.gather(*asked) == [-1, -2, -3]
    assert store.reads == [[1, 2, 3]]


@pytest.mark.parametrize("lanes", [1, 2, 7])
async def test_no_more_reads_than_lanes_run_at_once_and_every_question_is_answered(lanes: int) -> None:
    store = Store()
    together = Together(store.read, lanes=lanes, batch=3)
    tasks = []
    for number in range(200):
        tasks.append(asyncio.create_task(together.ask(number)))
        await turns(number % 3)
    assert await asyncio.gather(*tasks) == [-number for number in range(200)]
    assert store.most <= lanes
    assert max(map(len, store.reads)) <= 3


async def test_a_question_after_a_pause_is_answered() -> None:
    store = Store()
    together = Together(store.read, lanes=1)
    for number in range(20):
        assert await together.ask(number) == -number


async def test_an_error_reaches_those_who_asked_and_nobody_later() -> None:
    store = Store()
    together = Together(store.read, lanes=1)
    store.error = OSError("away")
    found = await asyncio.gather(*(together.ask(number) for number in range(3)), return_exceptions=True)
    assert [type(one) for one in found] == [OSError] * 3
    store.error = None
    assert await together.ask(7) == -7


async def test_a_caller_that_goes_away_leaves_its_neighbours_their_answers() -> None:
    store = Store()
    together = Together(store.read, lanes=1)
    store.gate.clear()
    tasks = [asyncio.create_task(together.ask(number)) for number in range(3)]
    await turns()
    tasks[1].cancel()
    await turns()
    store.gate.set()
    assert await asyncio.gather(tasks[0], tasks[2]) == [0, -2]


async def test_a_line_that_is_full_says_busy() -> None:
    store = Store()
    together = Together(store.read, lanes=1, waiting=2)
    store.gate.clear()
    tasks = [asyncio.create_task(together.ask(0))]
    await turns()
    tasks += [asyncio.create_task(together.ask(number)) for number in (1, 2)]
    await turns()
    with pytest.raises(StateError) as refused:
        await together.ask(3)
    assert (refused.value.code, refused.value.facts) == ("server/busy", {"retry_after": 1})
    store.gate.set()
    assert await asyncio.gather(*tasks) == [0, -1, -2]
