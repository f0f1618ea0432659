"""Clients of a server that stays while its store comes and goes: they repeat each request until it is answered."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx

from tests.faults.ledger import Doubt, Gone, Ledger, had_happened
from tests.faults.load import loaded

PATIENCE = 60.0
PAUSE = 0.02
UNKNOWN = "store/outcome-unknown"


class Patient(Ledger):
    """A ledger that takes a 503 at its word. Where it says that nothing was changed, nothing must have been.

    `refused` counts what was said, by code; `happened` the requests that had had their effect when they were repeated.
    """

    def __init__(self) -> None:
        super().__init__()
        self.refused: Counter[str] = Counter()
        self.happened = 0
        self.resting = False

    async def send(self, http: httpx.AsyncClient, method: str, path: str, body: Any, key: str | None = None) -> Any:
        """Send a change until it is acknowledged; its JSON. Raises `Gone` when there is to be no more load."""
        if self.resting:
            raise Gone
        doubt = Doubt(method, path, body, key)
        self.doubts[id(doubt)] = doubt
        headers = {} if key is None else {"idempotency-key": key}
        before: Counter[str] = Counter()
        while refused := refusals(answer := await http.request(method, path, json=body, headers=headers)):
            before.update(refused)
            await asyncio.sleep(PAUSE)
        self.refused.update(before)
        if had_happened(doubt, answer):  # of a batch, a part is known to have had its effect
            assert before[UNKNOWN] or isinstance(body, list), f"{method} {path} {body}: {before}, yet {answer.text}"
            self.happened += 1
        del self.doubts[id(doubt)]
        self.note(doubt, answer.json())
        return answer.json()

    def figures(self) -> dict[str, int]:
        """What a long form tells: writes acknowledged, 503s on the way to them, and which of those were unknown."""
        return {
            "acknowledged": self.acknowledged, "refused": self.refused.total(),
            "of_them_outcome_unknown": self.refused[UNKNOWN], "found_done_when_repeated": self.happened,
        }  # fmt: skip


def refusals(answer: httpx.Response) -> list[str]:
    """The codes of what was answered with 503: the request, or entries of a batch."""
    told = answer.json()
    if answer.status_code == 503:
        return [told["code"]]
    errors = [entry["error"] for entry in told.get("results", []) if "error" in entry]
    return [error["code"] for error in errors if error["status"] == 503]


class Load:
    """Clients at work."""

    def __init__(self, ledger: Ledger, tasks: list[asyncio.Task[Any]]) -> None:
        self._ledger, self._tasks = ledger, tasks

    async def more(self, count: int) -> None:
        """Wait until so many more writes were acknowledged."""
        enough = self._ledger.acknowledged + count
        await self.until(lambda: self._ledger.acknowledged >= enough)

    async def answered(self) -> float:
        """Wait until every request that waits now was acknowledged; the seconds that it took."""
        clock = asyncio.get_running_loop().time
        began, waiting = clock(), {id(doubt): doubt for doubt in self._ledger.doubts.values()}
        await self.until(lambda: not any(self._ledger.doubts.get(at) is doubt for at, doubt in waiting.items()))
        return clock() - began

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait for something that is to come of the load."""
        async with asyncio.timeout(PATIENCE):
            while not true():
                for task in self._tasks:
                    if task.done():
                        task.result()  # a complaint
                await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def under_load(http: httpx.AsyncClient, ledger: Patient, round_: int) -> AsyncIterator[Load]:
    """Clients that work until the `with` ends, and then finish what they have begun."""
    ledger.resting = False
    tasks = loaded(http, ledger, round_)
    try:
        yield Load(ledger, tasks)
        ledger.resting = True
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
