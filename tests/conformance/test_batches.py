"""A command that the store itself objects to fails alone, whatever it shares a batch with."""

from typing import Any

import msgspec
import pytest

from backends.statements import load
from service.errors import StateError
from service.executions.model import SetStatus, StartExecution
from service.kernel.command import Request
from service.kernel.principal import internal
from service.kernel.run import Kernel
from service.work.model import ClaimWork, CompleteWork
from tests.conformance.conftest import Says
from tests.conftest import Api


def start(api: Api, name: str, workflow: str = "wf") -> Request:
    """A start as a route would submit it."""
    return Request(internal(api.tenant), StartExecution(workflow, None, name))


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


async def test_a_claim_brings_the_payload_of_an_item_that_its_batch_has_named_before(api: Api) -> None:
    """A late word of its last holder, say, loads the item without."""
    await api.ok("POST", "/v1/work-items", json={"queue": "q", "id": "it", "payload": {"n": 1}})
    (held,) = await api.claim("q")
    await api.ok("POST", "/v1/work-items/it/release", json={"epoch": held["epoch"]})
    who = internal(api.tenant)
    batch = [Request(who, CompleteWork(7, id="it")), Request(who, ClaimWork("w", ["q"]))]
    late, claims = await api.service.services.kernel.execute(batch)
    assert isinstance(late, StateError)
    assert [(one.id, bytes(one.payload)) for one in claims.items] == [("it", b'{"n":1}')]


@pytest.mark.parametrize("count", [1, 3])
async def test_a_second_start_of_an_id_in_one_batch_is_the_same_execution(api: Api, count: int) -> None:
    outcomes = await api.service.services.kernel.execute([start(api, "same") for _ in range(count)])
    assert [outcome.created for outcome in outcomes] == [True] + [False] * (count - 1)


async def test_an_execution_that_begins_and_ends_in_one_batch_has_its_end(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the batch is not taken apart for it: what is new in it is written as it is in the end."""
    kernel: Kernel = api.service.services.kernel
    end = SetStatus("failed", error=msgspec.Raw(b'{"type":"no"}'), execution_id="brief")
    tried: list[int] = []
    transaction = kernel._decided

    async def counted(tx: Any, batch: Any) -> Any:
        tried.append(len(batch))
        return await transaction(tx, batch)

    monkeypatch.setattr(kernel, "_decided", counted)
    await kernel.execute([start(api, "brief"), Request(internal(api.tenant), end)])
    assert tried == [2]
    shown = await api.ok("GET", "/v1/executions/brief")
    assert (shown["status"], shown["error"], shown["completed_at"]) == ("failed", {"type": "no"}, api.clock.now)
