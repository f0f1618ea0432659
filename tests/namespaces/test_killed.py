"""A server is killed in the middle of a namespace's deletion, time and again: the next one goes on, to the last row."""

from pathlib import Path

from service.namespaces import sweeps
from tests.conftest import Api, serving
from tests.namespaces.test_deletion import erased, fill, rows_of
from tests.races.server import Server, http
from tests.tenants.test_killed import killed_time_and_again, owned

RUNS, EVENTS = 16, 1_000


async def furnished(url: str) -> tuple[str, int, dict[str, int]]:
    """A tenant with two namespaces, one of many rows; its owner's token, how many those are, and those of the other."""
    async with serving(url) as service:
        api = await owned(service, "acme")
        for name in ("blue", "green"):
            await api.ok("POST", "/v1/namespaces", json={"name": name})
            await fill(api, name)
        for _ in range(RUNS):
            run = (await api.start(namespace="blue"))["execution_id"]
            await api.ok("POST", f"/v1/executions/{run}/events", json={"events": [{"kind": "noted"}] * EVENTS})
            await api.ok("POST", f"/v1/executions/{run}/status", json={"status": "completed"})
        rows = [await rows_of(service, "acme", name) for name in ("blue", "green")]
        return api.owner_token, sum(rows[0].values()) - 1, rows[1]


async def test_a_deletion_survives_kills_and_leaves_not_one_row(fresh_url: str, tmp_path: Path) -> None:
    owner, total, green = await furnished(fresh_url)

    async def left() -> int:
        async with serving(fresh_url) as service:
            return sum((await rows_of(service, "acme", "blue")).values()) - 1

    server = Server(fresh_url, tmp_path / "server.log", sweep=True, sweep_interval_ms=10)
    await server.start()
    try:
        async with http(server.base, owner) as client:
            job_id = (await client.delete("/v1/namespaces/blue")).json()["job_id"]
        gone = await killed_time_and_again(server, owner, job_id, left)
    finally:
        await server.kill()
    assert 0 <= await left() <= total - gone
    async with serving(fresh_url) as service:
        api = Api(service, "acme", owner)
        service.clock.advance(sweeps.QUIET_MS)
        job = await erased(api, job_id)
        assert job["status"] == "completed"
        assert set((await rows_of(service, "acme", "blue")).values()) == {0}
        unfolded = {"tallies": 0, "tally_changes": 0}
        assert await rows_of(service, "acme", "green") | unfolded == green | unfolded
        found = (await api.ok("GET", "/v1/namespaces/green/stats"))["executions"]
        assert sum(found.values()) == green["executions"]
