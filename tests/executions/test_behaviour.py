"""What callers may rely on when they start, change and end executions."""

from tests.conftest import Api


async def test_a_start_is_one_commit_with_its_first_item(api: Api) -> None:
    made = await api.start(input={"a": 1}, start={"queue": "q", "payload": {"x": 1}})
    shown = await api.ok("GET", f"/v1/executions/{made['execution_id']}")
    assert (shown["status"], shown["input"], shown["sequence"], shown["open_items"]) == ("running", {"a": 1}, 1, 1)
    [event] = await api.events(made["execution_id"])
    assert event["kind"] == "execution.started"
    [item] = await api.claim("q")
    assert item["execution_id"] == made["execution_id"]
    assert item["payload"] == {"x": 1}


async def test_the_same_start_again_is_the_same_execution(api: Api) -> None:
    body = {"workflow_id": "wf", "execution_id": "mine", "input": [1], "start": {"queue": "q"}}
    first = await api.http.post("/v1/executions", json=body)
    again = await api.http.post("/v1/executions", json=body)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["work_item_id"] == first.json()["work_item_id"]
    await api.refused("POST", "/v1/executions", "execution/conflict", json=body | {"input": [2]})
