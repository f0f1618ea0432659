"""A request that is repeated while the first is under way, at another server: whatever the repeat has read by the time
the first commits, it is answered as the first was. Postgres alone: on SQLite one writes after the other."""

import functools
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from backends.postgres import PostgresTx
from tests.conftest import new_store
from tests.races.conftest import Pair, Ways, two_services

RUN = "/v1/executions/run"
SCHEDULE = {
    "schedule_id": "nightly", "spec": {"every_ms": 86_400_000}, "action": {"workflow_type": "order", "task_queue": "q"},
}  # fmt: skip
KEYED = {
    "append": ("POST", f"{RUN}/events", {"events": [{"kind": "noted"}], "expected_sequence": 1}),
    "transition": (
        "POST",
        f"{RUN}/transitions",
        {"expected_sequence": 1, "changes": [{"type": "append", "kind": "noted"}]},
    ),
    "complete": ("POST", f"{RUN}/complete", {}),
    "terminate": ("POST", f"{RUN}/terminate", {"reason": "enough"}),
    "start": ("POST", "/v1/executions", {"workflow_id": "wf", "execution_id": "new", "start": {"queue": "q"}}),
    "namespace": ("POST", "/v1/namespaces", {"name": "side"}),
    "schedule": ("POST", "/v1/schedules", SCHEDULE),
    "requeue": ("POST", "/v1/dead-letters/dead/requeue", {}),
    "release": ("POST", "/v1/work-items/held/release", {"epoch": 1}),
}
STARTS = {
    "an item of that id": {"queue": "q", "id": "it"},
    "an item with a dedup key": {"queue": "q", "dedup_key": "once"},
    "an item": {"queue": "q"},
}


@pytest.fixture(scope="module")
async def doors(postgres_server: str) -> AsyncIterator[Ways]:
    """Two services over a store of their own."""
    async with two_services(await new_store(postgres_server)) as found:
        yield found


class Meanwhile:
    """Does something once, when the next transaction that writes has loaded for the n-th time."""

    def __init__(self) -> None:
        self._left = 0
        self._act: Callable[[], Awaitable[httpx.Response]] | None = None
        self.answer: httpx.Response | None = None

    def arm(self, load: int, act: Callable[[], Awaitable[httpx.Response]]) -> None:
        """Do `act` after that load; `answer` is what comes of it."""
        self._left, self._act, self.answer = load, act, None

    async def loaded(self) -> None:
        """A transaction has loaded."""
        self._left -= 1
        if self._left == 0 and self._act is not None:
            self.answer = await self._act()


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """What happens between two loads."""
    found, load = Meanwhile(), PostgresTx.load

    async def loading(tx: PostgresTx, reads: Any, /) -> Any:
        rows = await load(tx, reads)
        await found.loaded()
        return rows

    monkeypatch.setattr(PostgresTx, "load", loading)
    return found


async def prepare(pair: Pair) -> None:
    """What the requests are about."""
    await pair.ok("POST", "/v1/executions", json={"workflow_id": "wf", "execution_id": "run"})
    for name in ("dead", "held"):
        await pair.ok("POST", "/v1/work-items", json={"queue": name, "id": name, "max_attempts": 1})
        await pair.ok("POST", "/v1/work-items:claim", json={"worker_id": "w", "queues": [name]})
    await pair.ok("POST", "/v1/work-items/dead/fail", json={"epoch": 1, "error": {"type": "no"}})


@pytest.mark.parametrize("name", KEYED)
async def test_a_repeat_with_its_key_is_answered_as_the_first_was(doors: Ways, meanwhile: Meanwhile, name: str) -> None:
    pair, (method, path, body) = await doors.tenant(), KEYED[name]
    await prepare(pair)
    sent = {"method": method, "url": path, "json": body, "headers": {"idempotency-key": "k"}}
    meanwhile.arm(1, lambda: pair.first.request(**sent))  # later the repeat holds locks, and the first waits for it
    again, first = await pair.last.request(**sent), meanwhile.answer
    assert first is not None
    assert first.status_code < 300, first.text
    assert (again.status_code, again.text) == (first.status_code, first.text)
    assert again.headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize("first_item", STARTS)
async def test_a_repeated_start_finds_the_execution_and_its_item(
    doors: Ways, meanwhile: Meanwhile, first_item: str
) -> None:
    body = {"workflow_id": "wf", "execution_id": "new", "start": STARTS[first_item]}
    for load in itertools.count(1):
        pair = await doors.tenant()
        meanwhile.arm(load, functools.partial(pair.first.post, "/v1/executions", json=body))
        again, first = await pair.last.post("/v1/executions", json=body), meanwhile.answer
        if first is None:
            assert load > 2, "it loads more often than that"
            break
        assert (first.status_code, again.status_code) == (201, 200), f"after load {load}: {again.text}"
        assert again.json() == first.json() | {"created": False}
