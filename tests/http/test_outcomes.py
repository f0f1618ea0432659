"""The outcomes of a batch: in order, refusals among them, and nothing left behind when the caller goes away."""

import asyncio
import gc
from typing import Any

import pytest

from service.errors import StateError
from service.http.batch import all_of


def futures(count: int) -> list["asyncio.Future[Any]"]:
    return [asyncio.get_running_loop().create_future() for _ in range(count)]


async def test_outcomes_are_in_the_order_of_the_commands_whatever_came_first() -> None:
    made, refusal = futures(3), StateError("server/busy", "no room")
    outcomes = asyncio.create_task(all_of(made))
    made[2].set_result("third")
    made[1].set_exception(refusal)
    await asyncio.sleep(0)
    made[0].set_result("first")
    assert await outcomes == ["first", refusal, "third"]
    assert refusal.__traceback__ is None, "it would keep what led to it alive"


async def test_a_caller_that_goes_away_leaves_nothing_that_anybody_waits_for() -> None:
    gc.collect()  # what others have left
    made, told = futures(3), list[Any]()
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))
    try:
        outcomes = asyncio.create_task(all_of(made))
        made[1].set_exception(StateError("server/busy", "no room"))
        await asyncio.sleep(0)
        outcomes.cancel()
        with pytest.raises(asyncio.CancelledError):
            await outcomes
        assert [one.cancelled() for one in made] == [True, False, True]
        made.clear()
        del outcomes
        gc.collect()
        await asyncio.sleep(0)
    finally:
        asyncio.get_running_loop().set_exception_handler(None)
    assert told == []
