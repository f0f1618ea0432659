"""SIGTERM: what is under way ends well, who waits is sent home, nothing new begins, the exit code is 0."""

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.edge.conftest import LAST, PATIENCE, Edge, edge_over, replies, request, said, wire
from tests.races.server import Server, http

CLAIM = b'{"worker_id":"w","queues":["none"],"wait_ms":60000}'


async def log_of(server: Server) -> str:
    return server.log.read_text()


async def begun(edge: Edge, found: Any, body: bytes) -> None:
    """Send the head of a start and half its body, up to where the server's handler waits for the rest."""
    await found.send(request("POST", "/v1/executions", edge.owner, b"", "expect: 100-continue", length=len(body)))
    assert b" 100 " in await found.head()
    await found.send(body[:5])


async def refused_everywhere(port: int) -> None:
    """Nothing listens any more."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await said(port, LAST)
            except OSError:
                return


async def test_a_drain_ends_everything_well(fresh_url: str, tmp_path: Path) -> None:
    body = b'{"workflow_id":"w","execution_id":"under-way"}'
    async with edge_over(fresh_url, tmp_path, drain_seconds=60) as edge, contextlib.AsyncExitStack() as wires:
        working, polling, tailing, idle, half = [await wires.enter_async_context(wire(edge.port)) for _ in range(5)]
        async with http(edge.server.base, edge.owner) as client:
            held = await held_item(client)
        await polling.send(request("POST", "/v1/work-items:claim", edge.owner, CLAIM))
        await tailing.send(request("GET", "/v1/executions/run/events:tail", edge.owner))
        await tailing.head()
        await idle.send(LAST.replace(b"connection: close\r\n", b""))
        await idle.head()
        await half.send(LAST[:20])
        await begun(edge, working, body)
        ended = asyncio.ensure_future(edge.server.terminate())
        [polled] = await polling.to_end()
        assert (polled.status, json.loads(polled.body)) == (200, {"items": []})
        assert polled.headers["connection"] == "close"
        goodbye = (await tailing.reader.read()).decode()
        assert "event: goodbye\nretry: 1000\ndata: " in goodbye and '"code":"server/draining"' in goodbye
        await refused_everywhere(edge.port)
        assert not ended.done()
        await working.send(body[5:])
        [done] = await working.to_end()
        assert (done.status, done.headers["connection"]) == (201, "close")
        assert await ended == 0
        assert "Traceback" not in await log_of(edge.server)
        await edge.server.start()
        await still_held(edge, held)


async def held_item(client: Any) -> Any:
    """An execution `run` with an item that is leased."""
    start = {"workflow_id": "w", "execution_id": "run", "start": {"queue": "q", "id": "held"}}
    assert (await client.post("/v1/executions", json=start)).status_code == 201
    claim = {"worker_id": "w", "queues": ["q"], "lease_ms": 600_000}
    [held] = (await client.post("/v1/work-items:claim", json=claim)).json()["items"]
    return held


async def still_held(edge: Edge, held: Any) -> None:
    """After the restart the lease is as it was, the started execution is there, and the holder settles."""
    async with http(edge.server.base, edge.owner) as client:
        assert (await client.get("/v1/executions/under-way")).status_code == 200
        item = (await client.get("/v1/work-items/held")).json()
        assert (item["status"], item["lease"]["epoch"]) == ("leased", held["epoch"])
        assert item["lease"]["worker_id"] == "w"
        done = await client.post("/v1/work-items/held/complete", json={"epoch": held["epoch"]})
        assert done.status_code == 200, done.text


async def test_who_does_not_end_is_cut_at_the_limit_and_told_so(fresh_url: str, tmp_path: Path) -> None:
    async with edge_over(fresh_url, tmp_path, drain_seconds=1, body_seconds_max=600) as edge, wire(edge.port) as slow:
        await begun(edge, slow, b'{"workflow_id":"w"}')
        ended = asyncio.ensure_future(edge.server.terminate())
        [cut] = await slow.to_end()
        assert (cut.status, cut.code, cut.headers["retry-after"]) == (503, "server/draining", "1")
        assert await ended == 0
        assert "Traceback" not in await log_of(edge.server)


async def test_balancers_are_told_before_the_door_closes(fresh_url: str, tmp_path: Path) -> None:
    async with edge_over(fresh_url, tmp_path, drain_delay_seconds=3) as edge:
        ready = LAST.replace(b"/healthz", b"/readyz")
        [before] = await said(edge.port, ready)
        assert before.status == 200
        ended = asyncio.ensure_future(edge.server.terminate())
        async with asyncio.timeout(PATIENCE):
            while (told := (await said(edge.port, ready))[0]).status == 200:
                await asyncio.sleep(0.01)
        assert (told.status, told.code, told.headers["connection"]) == (503, "server/draining", "close")
        start = b'{"workflow_id":"w","execution_id":"late"}'
        async with wire(edge.port) as late:  # who has not noticed yet is served, once
            await late.send(request("POST", "/v1/executions", edge.owner, start))
            [made] = await late.to_end()
        assert (made.status, made.headers["connection"]) == (201, "close")
        await refused_everywhere(edge.port)
        assert await ended == 0


async def test_a_drain_under_load_fails_nobody_who_was_let_in(fresh_url: str, tmp_path: Path) -> None:
    async with edge_over(fresh_url, tmp_path) as edge:
        starts = [asyncio.ensure_future(started(edge, n)) for n in range(60)]
        async with asyncio.timeout(PATIENCE):
            while sum(start.done() for start in starts) < 5:
                await asyncio.sleep(0.001)
        assert await edge.server.terminate() == 0
        told = await asyncio.gather(*starts)
        assert {status for _, status in told} <= {201, None}
        await edge.server.start()
        async with http(edge.server.base, edge.owner) as client:
            for name, status in told:
                if status == 201:
                    assert (await client.get(f"/v1/executions/{name}")).status_code == 200


async def started(edge: Edge, number: int) -> tuple[str, int | None]:
    """Start an execution; its name and the status, None where the server was gone."""
    name = f"run-{number}"
    body = json.dumps({"workflow_id": "w", "execution_id": name}).encode()
    try:
        async with wire(edge.port) as found:
            await found.send(request("POST", "/v1/executions", edge.owner, body, "connection: close"))
            text = await found.reader.read()
    except OSError:
        return name, None
    return name, next((reply.status for reply in replies(text)), None)


@pytest.mark.parametrize("times", [2, 3])
async def test_being_told_again_changes_nothing(times: int, fresh_url: str, tmp_path: Path) -> None:
    async with edge_over(fresh_url, tmp_path) as edge:
        process = edge.server._process
        assert process is not None
        for _ in range(times - 1):
            process.terminate()
        assert await edge.server.terminate() == 0
