"""What the simulator has found, each as a promise over HTTP, on both engines."""

from tests.conftest import Api

ENDING = {"queue": "q", "id": "driver", "drives": "execution", "max_attempts": 1}


async def test_a_sweep_that_ends_an_execution_leaves_its_other_expired_items_cancelled(api: Api) -> None:
    """Both leases have run out when the sweep comes: the first item ends the execution, and with it the second."""
    await api.start(execution_id="run", start=ENDING)
    await api.claim("q", lease_ms=1_000)
    await api.ok("POST", "/v1/work-items", json={"queue": "q", "id": "other", "execution_id": "run"})
    await api.claim("q", lease_ms=1_500)
    api.clock.advance(2_000)
    swept = await api.admin.post("/v1/leases:reclaim", json={"limit": 1_000})
    assert swept.status_code == 200, swept.text
    assert {one["id"] for one in swept.json()["exhausted"]} >= {"driver"}
    assert "other" not in {one["id"] for one in swept.json()["retryable"]}
    shown = await api.ok("GET", "/v1/executions/run")
    assert (shown["status"], shown["open_items"]) == ("failed", 0)
    assert (await api.ok("GET", "/v1/work-items/other"))["status"] == "cancelled"
    assert [event["kind"] for event in await api.events("run")][-2:] == ["work.cancelled", "execution.failed"]
