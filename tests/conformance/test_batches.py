"""A command that the store itself objects to fails alone, whatever it shares a batch with."""

import pytest

from backends.statements import load
from service.errors import StateError
from service.executions.model import StartExecution
from service.kernel.command import Request
from service.kernel.principal import internal
from service.kernel.run import Kernel
from tests.conformance.conftest import Says
from tests.conftest import Api


def start(api: Api, name: str, namespace: str = "main") -> Request:
    """A start as a route would submit it."""
    return Request(internal(api.tenant), StartExecution("wf", None, name, namespace))


async def test_a_row_that_the_store_refuses_fails_alone(api: Api) -> None:
    kernel: Kernel = api.service.services.kernel
    batch = [start(api, f"e{n}", f"{n}" if n != 5 else "\ud800") for n in range(8)]  # the edge lets no such text in
    outcomes = await kernel.execute(batch)
    refused = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, StateError)]
    assert refused == [5]
    assert outcomes[5].code == "server/error"
    assert len((await api.ok("GET", "/v1/executions"))["items"]) == 7


async def test_a_number_that_the_store_refuses_fails_alone(api: Api) -> None:
    kernel: Kernel = api.service.services.kernel
    batch = [start(api, f"e{n}") for n in range(4)]
    batch.insert(2, Request(internal(api.tenant), StartExecution("wf", attributes={"n": 2**70})))
    outcomes = await kernel.execute(batch)
    assert [isinstance(outcome, StateError) for outcome in outcomes] == [False, False, True, False, False]


async def test_a_statement_that_breaks_for_one_row_fails_alone(api: Api, says: Says, engine: str) -> None:
    """The store's own word, not the driver's: a division by zero on Postgres, an overflow on SQLite."""
    broken = {
        "sqlite": "abs(-9223372036854775807 - CASE WHEN id = 'bad' THEN 1 ELSE 0 END)",
        "postgres": "1 / CASE WHEN id = 'bad' THEN 0 ELSE 1 END",
    }[engine]
    text, of = load(engine)["insert_executions"].text, "SELECT tenant_id, id, namespace"
    assert of in text
    says("insert_executions", text.replace(of, f"SELECT tenant_id, id, CASE WHEN {broken} > 0 THEN namespace END"))
    outcomes = await api.service.services.kernel.execute([start(api, name) for name in ("a", "bad", "b")])
    assert [isinstance(outcome, StateError) for outcome in outcomes] == [False, True, False]


@pytest.mark.parametrize("count", [1, 3])
async def test_a_second_start_of_an_id_in_one_batch_is_the_same_execution(api: Api, count: int) -> None:
    outcomes = await api.service.services.kernel.execute([start(api, "same") for _ in range(count)])
    assert [outcome.created for outcome in outcomes] == [True] + [False] * (count - 1)
