"""Callers who send a byte now and then, or nothing, are cut after a while; nobody else waits for them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.edge.conftest import HEALTH, PATIENCE, Edge, Reply, Wire, edge_over, request, said, wire
from tests.faults.evidence import record
from tests.races.server import http

DRIPPING, IDLE, MANY_IDLE = 150, 300, 5_000
KIB_A_CONNECTION = 32


async def drip(port: int, first: bytes, then: bytes) -> list[Reply]:
    """Send `first`, then a little of `then` at a time until the server has had enough; its answers."""
    async with wire(port) as found:
        await found.send(first)
        ended = asyncio.ensure_future(found.to_end())
        while not ended.done():
            await found.send(then)
            await asyncio.wait([ended], timeout=0.25)
        return await ended


@contextlib.asynccontextmanager
async def served_meanwhile(edge: Edge) -> AsyncIterator[list[int]]:
    """A well-behaved caller, who starts executions until the `with` ends; the statuses of the answers."""
    statuses: list[int] = []

    async def go_on() -> None:
        async with http(edge.server.base, edge.owner) as client:
            while True:
                statuses.append((await client.post("/v1/executions", json={"workflow_id": "w"})).status_code)
                await asyncio.sleep(0.02)

    task = asyncio.ensure_future(go_on())
    try:
        yield statuses
    finally:
        task.cancel()
        await asyncio.wait([task])


async def drips_beside_others(edge: Edge, first: bytes, then: bytes) -> None:
    """Drips are cut, and while they go on, over and over, others are served as ever."""
    async with served_meanwhile(edge) as statuses:
        while len(statuses) <= 10:
            told = await asyncio.gather(*(drip(edge.port, first, then) for _ in range(DRIPPING)))
            assert {(reply.status, reply.code) for [reply] in told} == {(408, "request/timeout")}
    assert set(statuses) == {201}


async def test_headers_that_drip_are_cut_and_hold_nobody_up(edge: Edge) -> None:
    await drips_beside_others(edge, HEALTH[:-4], b"\r\na: b")


async def test_a_body_that_drips_is_cut_and_changes_nothing(edge: Edge) -> None:
    slow = request("POST", "/v1/executions", edge.owner, b'{"workflow_id":"drip","labels":{"a":"', length=1_000)
    await drips_beside_others(edge, slow, b"x")
    async with http(edge.server.base, edge.owner) as client:
        assert (await client.get("/v1/executions?workflow_id=drip")).json()["items"] == []


async def test_a_body_that_was_refused_is_not_waited_for_either(edge: Edge) -> None:
    nobody = request("POST", "/v1/executions", "nonsense", b"{", length=1_000)
    [reply] = await drip(edge.port, nobody, b" ")
    assert (reply.status, reply.code) == (401, "auth/invalid")


async def test_the_second_head_of_a_connection_has_no_more_time_than_the_first(edge: Edge) -> None:
    first, second = await drip(edge.port, HEALTH + HEALTH[:10], b"x")
    assert (first.status, second.status, second.code) == (200, 408, "request/timeout")


async def test_a_connection_that_says_nothing_is_closed_without_a_word(edge: Edge) -> None:
    silent, content, blank = await asyncio.gather(
        said(edge.port), said(edge.port, HEALTH), drip(edge.port, b"\r\n", b"\r\n")
    )
    assert silent == blank == []
    assert [reply.status for reply in content] == [200]


async def test_a_long_poll_is_not_taken_for_a_slow_caller(edge: Edge) -> None:
    claim = b'{"worker_id":"w","queues":["nothing"],"wait_ms":6000}'
    [reply] = await said(edge.port, request("POST", "/v1/work-items:claim", edge.owner, claim, "connection: close"))
    assert (reply.status, reply.body) == (200, b'{"items":[]}')


async def idle(edge: Edge, count: int) -> int:
    """Hold so many connections that have asked once; the server answers others. Bytes of memory a connection."""
    before, held = resident(edge), []
    try:
        for at in range(0, count, 100):
            held += await asyncio.gather(*(opened(edge.port) for _ in range(min(100, count - at))))
        after = resident(edge)
        async with served_meanwhile(edge) as statuses, asyncio.timeout(PATIENCE):
            while len(statuses) < 20:
                await asyncio.sleep(0.01)
        assert set(statuses) == {201}
    finally:
        await asyncio.gather(*(one.close() for one in held))
    return (after - before) // count


async def opened(port: int) -> Wire:
    """A connection whose first request was answered."""
    found = Wire(*await asyncio.open_connection("127.0.0.1", port))
    await found.send(HEALTH)
    await found.head()
    return found


def resident(edge: Edge) -> int:
    """The server's memory, in bytes."""
    [line] = [line for line in status(edge).splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024


def status(edge: Edge) -> str:
    """What the system says of the server's process."""
    return Path(f"/proc/{edge.server.pid}/status").read_text()


async def test_idle_connections_hold_nobody_up(fresh_url: str, tmp_path: Path) -> None:
    async with edge_over(fresh_url, tmp_path) as edge:
        assert await idle(edge, IDLE) <= 4 * KIB_A_CONNECTION * 1024  # few enough that other things weigh more


@pytest.mark.slow
async def test_five_thousand_idle_connections_hold_nobody_up(fresh_url: str, tmp_path: Path, engine: str) -> None:
    async with edge_over(fresh_url, tmp_path, idle_seconds_max=600) as edge:
        each = await idle(edge, MANY_IDLE)
        assert each <= KIB_A_CONNECTION * 1024
        record("idle connections hold nobody up", engine, connections=MANY_IDLE, bytes_each=each)


async def test_past_the_most_connections_a_caller_is_told_to_come_back(fresh_url: str, tmp_path: Path) -> None:
    async with edge_over(fresh_url, tmp_path, connections_max=20) as edge:
        held: list[Wire] = []
        while len(held) < 21:
            found = Wire(*await asyncio.open_connection("127.0.0.1", edge.port))
            held.append(await found.send(HEALTH))
            if b" 503 " in await found.head():
                break
        assert 15 <= len(held) <= 21  # the client that made the tenant may still have had one
        [reply] = await said(edge.port, HEALTH)
        assert (reply.status, reply.code, reply.headers["retry-after"]) == (503, "server/busy", "1")
        await asyncio.gather(*(one.close() for one in held))
        async with asyncio.timeout(PATIENCE):
            while [reply.status for reply in await said(edge.port, HEALTH[:-2] + b"connection: close\r\n\r\n")] != [
                200
            ]:
                await asyncio.sleep(0.05)
