"""The numbers of a process, as Prometheus reads them, tell what happened, and of nobody."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from backends.errors import Unavailable
from service.kernel.metrics import SECONDS, Metrics, Spread
from service.kernel.sweeps import Sweep, Sweeper
from service.operations.exposition import Numbers, buckets
from service.operations.model import Process
from tests.conftest import Api, serving

AS_JSON = {"content-type": "application/json"}
Found = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
async def alone(fresh_url: str) -> AsyncIterator[Api]:
    """A tenant of a service that nobody else asks."""
    async with serving(fresh_url) as service:
        await service.client(service.admin).post("/v1/tenants", json={"id": "acme"})
        yield Api(service, "acme", await service.token("acme", "owner"))


async def scraped(api: Api) -> tuple[str, Found]:
    """The text, and every number in it by its name and labels."""
    answer = await api.admin.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = text_string_to_metric_families(answer.text)
    samples = [sample for family in families for sample in family.samples]
    return answer.text, {(one.name, tuple(sorted(one.labels.items()))): one.value for one in samples}


def told(numbers: Found, name: str, **labels: Any) -> float:
    """One number; 0 for what was not counted yet."""
    return numbers.get((name, tuple(sorted((key, str(value)) for key, value in labels.items()))), 0)


async def test_every_answer_is_counted_under_its_operation_and_status(alone: Api) -> None:
    for _ in range(3):
        await alone.start()
    await alone.refused("GET", "/v1/executions/none", "not-found")
    await alone.refused("POST", "/v1/executions", "request/json", content="{", headers=AS_JSON)
    await alone.service.client("hold_none").get("/v1/executions")
    numbers = (await scraped(alone))[1]
    asked = "holdfast_requests_total"
    assert told(numbers, asked, operation="startExecution", status=201) == 3
    assert told(numbers, asked, operation="startExecution", status=400) == 1
    assert told(numbers, asked, operation="getExecution", status=404) == 1
    assert told(numbers, asked, operation="listExecutions", status=401) == 1
    assert told(numbers, "holdfast_request_seconds_count", operation="startExecution") == 4
    assert told(numbers, "holdfast_request_seconds_sum", operation="startExecution") > 0
    assert told((await scraped(alone))[1], asked, operation="getMetrics", status=200) == 1


async def test_commands_are_counted_with_the_transactions_that_they_went_in(alone: Api) -> None:
    before = (await scraped(alone))[1]
    await alone.ok("POST", "/v1/work-items:batch", json=[{"queue": "q"}] * 40)
    numbers = (await scraped(alone))[1]

    def more(name: str, **labels: Any) -> float:
        return told(numbers, name, **labels) - told(before, name, **labels)

    assert more("holdfast_commands_total", command="EnqueueWork") == 40
    assert more("holdfast_transaction_commands_sum") == 40
    assert 1 <= more("holdfast_transaction_commands_count") <= 2
    assert more("holdfast_transaction_seconds_count") == more("holdfast_transaction_commands_count")
    assert more("holdfast_transaction_commands_bucket", le="+Inf") == more("holdfast_transaction_commands_count")


async def test_what_the_store_objects_to_is_counted(alone: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_args: Any, **_more: Any) -> Any:
        raise Unavailable("away")

    monkeypatch.setattr(alone.service.services.backend, "write", away)
    await alone.refused("POST", "/v1/executions", "store/unavailable", json={"workflow_id": "w"})
    monkeypatch.undo()
    numbers = (await scraped(alone))[1]
    assert told(numbers, "holdfast_store_objections_total", kind="Unavailable") == 1
    assert told(numbers, "holdfast_requests_total", operation="startExecution", status=503) == 1


async def test_a_sweep_tells_when_it_was_done_and_how_often_it_was_not(alone: Api) -> None:
    services = alone.service.services

    async def well(_services: Any) -> None: ...

    async def badly(_services: Any) -> None:
        raise Unavailable("away")

    sweeper = Sweeper(services.backend, services, [Sweep("well", 0, well), Sweep("badly", 0, badly)], 10)
    await sweeper.lease.keep()
    await sweeper.round()
    numbers = (await scraped(alone))[1]
    assert told(numbers, "holdfast_sweep_done_timestamp_seconds", sweep="well") == alone.clock.now / 1000
    assert told(numbers, "holdfast_sweep_failures_total", sweep="badly") == 1
    assert ("holdfast_sweep_done_timestamp_seconds", (("sweep", "badly"),)) not in numbers


async def test_the_numbers_hold_nothing_of_a_tenants(alone: Api) -> None:
    await alone.start(workflow_id="secret-flow", execution_id="secret-run", start={"queue": "secret-queue"})
    await alone.claim("secret-queue")
    await alone.refused("GET", "/v1/executions/secret-none", "not-found")
    await alone.http.get("/secret-path")
    await alone.http.request("SECRET", "/v1/executions")
    text = (await scraped(alone))[0].lower()
    assert "secret" not in text
    assert "acme" not in text
    assert 'store="' + alone.service.services.backend.name in text


async def test_who_waits_is_told(alone: Api) -> None:
    numbers = (await scraped(alone))[1]
    assert told(numbers, "holdfast_requests_parked") == 0
    assert told(numbers, "holdfast_commands_waiting") == 0
    with alone.service.services.wakes.park("work/acme", lambda _channel: True):
        assert told((await scraped(alone))[1], "holdfast_requests_parked") == 1


def test_the_operators_page_names_every_number_and_no_other() -> None:
    page = Path("docs/operations.md").read_text().split("## Numbers to watch")[1].split("\n## ")[0]
    said = {name.removesuffix("_bucket") for name in re.findall(r"holdfast_[a-z_]+", page)}
    families = Numbers(Metrics(), Process("1", "sqlite", 0, 0)).collect()
    assert said == {f"{one.name}_total" if one.type == "counter" else one.name for one in families}


@given(st.lists(st.floats(0, 100)))
def test_a_bucket_holds_what_is_no_larger_than_its_bound(values: list[float]) -> None:
    spread = Spread(SECONDS)
    for value in values:
        spread.add(value)
    shown = dict(buckets(spread))
    assert shown["+Inf"] == len(values)
    for bound in SECONDS:
        assert shown[str(bound)] == sum(value <= bound for value in values)
    assert spread.total == pytest.approx(sum(values))
