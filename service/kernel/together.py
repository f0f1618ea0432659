"""Questions to the store that are asked in the same turn of the loop, or within a rest, travel in one statement."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from service.errors import StateError

Asked = TypeVar("Asked")
Found = TypeVar("Found")
BUSY = "server/busy", "Too many requests wait for a read; try again in a second."


async def a_turn() -> None:
    """One turn of the loop."""
    await asyncio.sleep(0)


class Together(Generic[Asked, Found]):
    """`await ask(one)` answers for one; `read` answers for many, in their order.

    A question is never answered by a read that began before it was asked. At most `lanes` reads run at a time, of at
    most `batch` questions each; beyond `waiting` questions the answer is 503, with the code and the words of `busy`.
    Before each read it waits for `rest`: one turn of the loop, or longer, so that more questions share it.
    """

    def __init__(
        self,
        read: Callable[[list[Asked]], Awaitable[Sequence[Found]]],
        *,
        lanes: int,
        batch: int = 1_000,
        waiting: int = 10_000,
        rest: Callable[[], Awaitable[None]] = a_turn,
        busy: tuple[str, str] = BUSY,
    ) -> None:
        self._read, self._rest, self._busy = read, rest, busy
        self._lanes, self._batch, self._waiting = lanes, batch, waiting
        self._asked: list[tuple[Asked, asyncio.Future[Found]]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, one: Asked) -> Found:
        """The answer to one question; raises what the store raises."""
        if len(self._asked) >= self._waiting:
            raise StateError(*self._busy, retry_after=1)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Found] = loop.create_future()
        self._asked.append((one, future))
        if len(self._asked) == 1 and self._lanes:
            self._lanes -= 1
            task = loop.create_task(self._answer())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await future

    async def _answer(self) -> None:
        try:
            await self._rest()
            while self._asked:
                asked, self._asked = self._asked[: self._batch], self._asked[self._batch :]
                await self._answer_these(asked)
                if self._asked:
                    await self._rest()
        finally:
            self._lanes += 1

    async def _answer_these(self, asked: list[tuple[Asked, asyncio.Future[Found]]]) -> None:
        try:
            found = await self._read([one for one, _ in asked])
        except Exception as error:
            for _, future in asked:
                if not future.done():  # the caller went away
                    future.set_exception(error)
            return
        for (_, future), answer in zip(asked, found, strict=True):
            if not future.done():
                future.set_result(answer)
