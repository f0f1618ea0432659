"""A store that decides a batch without ever waiting keeps nobody from an answer who has one."""

import asyncio
from types import SimpleNamespace
from typing import Any

from service.kernel.command import Request
from service.kernel.principal import internal
from service.kernel.run import Kernel


class Serial(Kernel):
    """A kernel whose batches wait for nothing but the commit, and note when they are decided."""

    def __init__(self, told: list[str]) -> None:
        store: Any = SimpleNamespace(lanes=1, serial=True)
        super().__init__(store, store, {})
        self.told = told

    async def execute(self, batch: Any, **_how: bool) -> list[Any]:
        self.told.append(f"decided {', '.join(request.command for request in batch)}")
        for _ in range(3):  # the commit
            await asyncio.sleep(0)
        return [None] * len(batch)


async def test_an_answer_goes_out_before_the_next_batch_is_decided() -> None:
    told: list[str] = []
    kernel = Serial(told)

    async def ask(command: str) -> None:
        await kernel.submit(Request(internal("acme"), command))
        told.append(f"answered {command}")

    first = asyncio.create_task(ask("one"))
    while not told:
        await asyncio.sleep(0)
    second = asyncio.create_task(ask("two"))  # it comes while the first is being committed
    await asyncio.gather(first, second)
    assert told == ["decided one", "answered one", "decided two", "answered two"]
