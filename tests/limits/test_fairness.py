"""A tenant that floods keeps nobody else waiting: whose turn it is, not how long it takes."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from backends.errors import Full
from service.children import rules
from service.errors import StateError
from service.kernel import run
from service.kernel.command import PutOff, Request
from service.kernel.principal import internal
from service.kernel.run import Kernel
from service.kernel.seldom import WHAT_MAX, Seldom
from service.kernel.turns import Turns
from service.kernel.wake import Wakes
from service.kernel.working_set import WorkingSet
from service.work.model import EnqueueWork
from tests.children.test_behaviour import child, family
from tests.conftest import Api, Service, serving
from tests.runs.engine import ring


def idle_kernel(**bounds: int) -> Kernel:
    """A kernel that begins nothing by itself."""
    nothing: Any = SimpleNamespace(lanes=0)
    return Kernel(nothing, nothing, {}, **bounds)


def submit(kernel: Kernel, tenant: str, count: int = 1) -> None:
    """Let that many commands of a tenant wait."""
    for _ in range(count):
        kernel.submit(Request(internal(tenant), None))


def batch(kernel: Kernel) -> list[str]:
    """Whose commands the next batch takes, in order."""
    return [request.who.tenant_id for request, _ in kernel._next_batch()]


async def test_whoever_comes_behind_a_flood_is_in_the_next_batch() -> None:
    kernel = idle_kernel(batch_max=64)
    submit(kernel, "flood", 4_000)
    for n in range(20):
        submit(kernel, f"quiet{n}")
    assert batch(kernel).count("flood") == 4
    for _ in range(15):
        assert batch(kernel) == ["flood"] * 4, "whoever came just now may come again"
    assert batch(kernel) == ["flood"] * 64


async def test_a_flood_takes_little_more_of_a_batch_than_others_do_and_never_more_than_an_eighth() -> None:
    kernel = idle_kernel(batch_max=64)
    submit(kernel, "flood", 100)
    submit(kernel, "quiet")
    assert batch(kernel) == ["flood", "quiet"] + ["flood"] * 3
    submit(kernel, "busy", 6)
    assert batch(kernel) == ["flood", "busy"] * 6
    submit(kernel, "second", 100)
    assert batch(kernel) == ["flood", "second"] * 8
    for n in range(6):
        submit(kernel, f"third{n}", 100)
    assert len(batch(kernel)) == 64, "of eight of them each has its eighth"


async def test_of_more_tenants_than_a_batch_holds_each_has_its_turn_once_a_round() -> None:
    kernel = idle_kernel(batch_max=4)
    for name in ("a", "b", "c", "d", "e", "f"):
        submit(kernel, name, 10)
    assert [batch(kernel) for _ in range(3)] == [list("abcd"), list("efab"), list("cdef")]


async def test_a_flood_fills_half_of_the_room_and_the_next_tenant_finds_some() -> None:
    kernel = idle_kernel(waiting_max=100)
    submit(kernel, "flood", 50)
    with pytest.raises(StateError) as refused:
        submit(kernel, "flood")
    assert (refused.value.code, refused.value.facts["retry_after"]) == ("server/busy", 1)
    submit(kernel, "second", 25)
    with pytest.raises(StateError):
        submit(kernel, "second")
    for n in range(10):
        submit(kernel, f"quiet{n}")


async def test_what_waits_never_grows_past_the_bound_and_its_room_comes_back() -> None:
    kernel = idle_kernel(waiting_max=20, batch_max=20)
    for n in range(40):
        try:
            submit(kernel, f"t{n}", 2)
        except StateError:
            continue
    assert kernel._count == sum(map(len, kernel._waiting.values())) <= 20
    while kernel._count:
        batch(kernel)
    assert not kernel._waiting, "no tenant is remembered for having waited once"
    submit(kernel, "t0", 10)


async def test_a_request_behind_a_flood_is_answered_before_most_of_it(service: Service, api: Api, other: Api) -> None:
    kernel, done = service.services.kernel, []

    def enqueue(one: Api) -> "asyncio.Future[Any]":
        future = kernel.submit(Request(internal(one.tenant), EnqueueWork(queue="q")))
        future.add_done_callback(lambda _: done.append(one.tenant))
        return future

    flood = [enqueue(api) for _ in range(2_000)]
    await enqueue(other)
    assert done.count(api.tenant) < 1_000
    await asyncio.gather(*flood)


async def test_slow_reads_of_one_tenant_leave_lanes_for_others() -> None:
    turns, order = Turns(4), []

    async def read(name: str, until: asyncio.Event) -> None:
        async with turns.of(name):
            order.append(name)
            await until.wait()

    end, at_once = asyncio.Event(), asyncio.Event()
    at_once.set()
    slow = [asyncio.create_task(read("slow", end)) for _ in range(20)]
    await asyncio.sleep(0)
    await asyncio.gather(*(read(f"quiet{n}", at_once) for n in range(8)))
    assert order.count("slow") == 2, "half of the lanes, whatever waits"
    end.set()
    await asyncio.gather(*slow)
    assert order.count("slow") == 20
    assert (turns._lanes, turns._waiting, turns._lines, +turns._busy) == (4, 0, {}, {})


async def test_lines_are_served_in_turn_and_one_who_left_is_passed_over() -> None:
    turns, order, gates = Turns(2), [], {}

    async def read(name: str) -> None:
        async with turns.of(name[0]):
            order.append(name)
            await gates.setdefault(name, asyncio.Event()).wait()

    tasks = {name: asyncio.create_task(read(name)) for name in ("a1", "b1", "a2", "a3", "a4", "b2", "c1")}
    await asyncio.sleep(0)
    tasks["a2"].cancel()
    await asyncio.gather(tasks["a2"], return_exceptions=True)
    for name in ("a1", "b1", "a3", "b2", "c1", "a4"):
        gates.setdefault(name, asyncio.Event()).set()
        await tasks[name]
    assert order == ["a1", "b1", "a3", "b2", "c1", "a4"]
    assert (turns._lanes, turns._waiting, turns._lines) == (2, 0, {})


async def test_reads_that_wait_are_bounded_and_a_tenant_takes_half_of_the_places() -> None:
    turns, end = Turns(2, waiting=10), asyncio.Event()

    async def read(name: str) -> None:
        async with turns.of(name):
            await end.wait()

    flood = [asyncio.create_task(read("flood")) for _ in range(20)]
    await asyncio.sleep(0)
    refused = [task.exception() for task in flood if task.done()]
    assert len(refused) == 20 - 1 - 5
    assert {type(error) for error in refused} == {StateError}
    quiet = asyncio.create_task(read("quiet"))
    await asyncio.sleep(0)
    assert not quiet.done()
    end.set()
    await asyncio.gather(quiet, *(task for task in flood if not task.done()))


async def test_waiters_of_one_tenant_leave_places_for_others() -> None:
    wakes = Wakes(most=10)
    parked = [wakes.park("work/flood", lambda _: True).__enter__() for _ in range(5)]
    with pytest.raises(StateError) as refused:
        wakes.park("work/flood", lambda _: True)
    assert (refused.value.code, refused.value.facts["retry_after"]) == ("server/busy", 5)
    with wakes.park("work/quiet", lambda _: True), wakes.park("tail/flood", lambda _: True):
        pass
    for place in parked:
        place.__exit__()
    assert wakes._count == 0


async def test_the_sweeper_that_waits_takes_no_place_of_a_request(fresh_url: str) -> None:
    async with serving(fresh_url, sweep=True, parked_max=1) as service:
        api = await service.tenant()
        wakes = service.services.wakes
        async with asyncio.timeout(10):
            while not wakes._parked:
                await asyncio.sleep(0)
        assert wakes.waiting == 0
        asked = {"worker_id": "w", "queues": ["q"], "wait_ms": 1}
        assert (await api.http.post("/v1/work-items:claim", json=asked)).json() == {"items": []}


async def test_a_long_poll_beyond_the_places_is_told_to_wait_elsewhere(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.service.services.wakes, "_most", 0)
    asked = {"worker_id": "w", "queues": ["q"], "wait_ms": 60_000}
    problem = await api.refused("POST", "/v1/work-items:claim", "server/busy", json=asked)
    assert (problem["status"], problem["retry_after"]) == (503, 5)
    run = (await api.start())["execution_id"]
    await api.refused("GET", f"/v1/executions/{run}/events:tail", "server/busy")
    assert await api.claim("q") == [], "who does not wait needs no place"


async def test_commands_that_take_long_to_decide_do_not_go_together(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "LONG", -1.0)
    backend, kept = api.service.services.backend, []
    write = backend.write

    async def counted(work: Any, **more: Any) -> Any:
        outcomes, done = await write(work, **more)
        kept.append([not isinstance(outcome, PutOff) for outcome in outcomes])
        return outcomes, done

    monkeypatch.setattr(backend, "write", counted)
    made = await api.start(execution_id="e")
    sent = [{"execution_id": "e", "changes": [{"type": "append", "kind": f"k{n}"}]} for n in range(10)]
    found = await api.ok("POST", "/v1/transitions:batch", json=sent)
    assert [one["ok"]["sequence"] for one in found["results"]] == [*range(2, 12)], "in the order of the request"
    assert [sum(decided) for decided in kept] == [1] * 11
    assert [len(decided) for decided in kept[:5]] == [1, 10, 5, 2, 1], "the next batch takes no more than could be done"
    assert made["sequence"] == 1


async def test_batches_grow_again_once_they_are_decided_in_time() -> None:
    kernel = idle_kernel(batch_max=64)
    submit(kernel, "busy", 1_000)
    kernel._pace(64, 60)
    sizes = []
    while not sizes or sizes[-1] < 64:
        sizes.append(len(batch(kernel)))
        kernel._pace(sizes[-1], 0)
    assert sizes == [32, 41, 52, 64], "a hiccup costs no more than half"


async def test_commands_that_wait_for_rows_go_together_however_long_those_take(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "AT_ONCE", 0)  # each child ends by an alarm, which asks for more rows
    parent = await family(api, *(child(seq) for seq in range(8)))
    await api.ok("POST", f"/v1/executions/{parent}/terminate", json={})
    now, load, put_off = [0.0], WorkingSet.load, list[PutOff]()
    decide = Kernel._decided

    async def slow(self: WorkingSet, *asked: Any) -> Any:
        now[0] += 2 * run.LONG
        return await load(self, *asked)

    async def noted(self: Kernel, tx: Any, batch: Any) -> Any:
        outcomes, done = await decide(self, tx, batch)
        put_off.extend(one for one in outcomes if isinstance(one, PutOff))
        return outcomes, done

    monkeypatch.setattr(run, "perf_counter", lambda: now[0])
    monkeypatch.setattr(WorkingSet, "load", slow)
    monkeypatch.setattr(Kernel, "_decided", noted)
    assert await ring(api) >= 8
    assert [one for one in put_off if one.request.who.tenant_id == api.tenant] == []
    ended = (await api.ok("GET", f"/v1/executions/{parent}/children"))["items"]
    assert [one["execution_status"] for one in ended] == ["terminated"] * 8


async def test_who_stands_beside_a_refusal_that_is_decided_again_has_the_answer_by_then(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, kernel = api.service.services.backend, api.service.services.kernel
    monkeypatch.setattr(backend, "serial", False)  # so that SQLite, too, doubts what it refuses
    write, sizes = backend.write, list[int]()

    async def one_after_the_other(work: Any, **more: Any) -> Any:
        if sizes:
            await beside
        outcomes, done = await write(work, **more)
        sizes.append(len(outcomes))
        return outcomes, done

    monkeypatch.setattr(backend, "write", one_after_the_other)
    who = internal(api.tenant)
    refused = kernel.submit(Request(who, EnqueueWork("q", execution_id="nobody's")))
    beside = kernel.submit(Request(who, EnqueueWork("q", id="it")))
    async with asyncio.timeout(20):
        with pytest.raises(StateError):
            await refused
    assert beside.result().id == "it"
    assert sizes == [2, 1]


async def test_whose_requests_find_no_room_is_a_line_of_the_log_once_a_minute(
    api: Api, other: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.service.services.kernel, "_waiting_max", 0)
    with capture_logs() as lines:
        for _ in range(3):
            await api.refused("POST", "/v1/executions", "server/busy", json={"workflow_type": "w"})
        await other.refused("POST", "/v1/executions", "server/busy", json={"workflow_type": "w"})
        api.clock.advance(60_000)
        await api.refused("POST", "/v1/executions", "server/busy", json={"workflow_type": "w"})
    found = [line for line in lines if line["event"] == "a tenant's requests found no room"]
    assert [(line["tenant"], line["refused"]) for line in found] == [
        (api.tenant, 1),
        (other.tenant, 1),
        (api.tenant, 3),
    ]
    assert all("commands wait already" in line["why"] and line["log_level"] == "warning" for line in found)


async def test_what_a_store_that_is_away_says_to_everybody_is_a_line_of_the_log_once_a_second(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line for each request would fill the disk of whoever keeps the log, most of all where the disk is full."""
    asked = 3

    async def away(*_: Any, **__: Any) -> None:
        raise Full("no room")

    with monkeypatch.context() as patched, capture_logs() as lines:
        patched.setattr(api.service.services.backend, "write", away)
        for advance in (0, 1_000):
            api.clock.advance(advance)
            for _ in range(asked):
                await api.refused("POST", "/v1/executions", "store/full", json={"workflow_type": "w"})
        patched.setattr(api.service.services.backend, "read", away)
        for _ in range(asked):
            await api.refused("GET", "/v1/executions", "store/full")
            await api.refused("GET", "/v1/schedules", "store/full")
    batches = [line for line in lines if line["event"] == "the store refused a batch"]
    assert [(line["error"], line["refused"]) for line in batches] == [("no room", 1), ("no room", asked)]
    reads = [line for line in lines if line["event"] == "the store refused"]
    assert [(line["operation"], line["refused"]) for line in reads] == [("listExecutions", 1), ("listSchedules", 1)]


def test_what_is_seldom_told_is_counted_for_so_many_at_most() -> None:
    seldom = Seldom(60_000)
    for n in range(3 * WHAT_MAX):
        seldom.count(n, n)
    assert len(seldom._told) <= WHAT_MAX and len(seldom._counted) <= WHAT_MAX
