"""Every operation with generated requests, right ones and wrong ones: the answer is one that the contract describes.

Over real sockets, with an owner's token and with a viewer's. Half of the requests name things that exist. Never a 5xx;
status, content type, headers and body are those of the document. The long form sends many more; a failure prints the
request, and repeats: what is generated depends on nothing but the operation.
"""

import functools
import itertools
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import jsonschema
import pytest
import requests
import schemathesis
from hypothesis import strategies
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.conftest import new_store
from tests.contract.test_openapi import DOCUMENT
from tests.races.server import http, new_tenant, prepared, serving_process

SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS = {one.definition.raw["operationId"]: one for one in (found.ok() for found in SCHEMA.get_all_operations())}
CHECKS: list[Any] = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance,
    response_schema_conformance,
]  # fmt: skip
EXAMPLES, EXAMPLES_LONG = 2, int(os.environ.get("HOLDFAST_FUZZ_EXAMPLES", "200"))
TOKENS = ("owner", "viewer")
WAIT_MS, WAIT_MS_MAX = 50, 60_000
SUICIDAL = {"revokeOwnToken"}
"""Each request gets a token of its own."""


class Target(NamedTuple):
    """A served tenant with something of everything; `ids` by the noun of a path."""

    base: str
    tokens: dict[str, str]
    ids: dict[str, str]


@pytest.fixture(scope="session")
async def target(
    engine: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> AsyncIterator[Target]:
    """A server process and what there is in it."""
    folder = tmp_path_factory.mktemp(f"fuzz-{engine}")
    url = f"sqlite:///{folder / 'holdfast.db'}"
    if engine == "postgres":
        url = await new_store(request.getfixturevalue("postgres_server"))
    admin = await prepared(url)
    async with serving_process(url, Path(folder, "log"), sweep=True) as server:
        async with http(server.base, admin) as client:
            owner = await new_tenant(client, "acme")
        async with http(server.base, owner) as client:
            yield Target(server.base, {"owner": owner, "viewer": await minted(client, "viewer")}, await furnish(client))


async def minted(client: Any, role: str) -> str:
    """A token of a role."""
    answer = await client.post("/v1/tokens", json={"name": role, "role": role})
    return str(answer.json()["secret"])


async def furnish(client: Any) -> dict[str, str]:
    """Make a few things; the execution has ended, so that a tail of its log ends as well."""
    for path, body in (
        ("/v1/executions", {"workflow_id": "wf", "execution_id": "run", "state": {"a": [1]}}),
        ("/v1/work-items", {"id": "held", "queue": "held", "execution_id": "run"}),
        ("/v1/work-items:claim", {"worker_id": "w", "queues": ["held"], "lease_ms": 600_000}),
        ("/v1/work-items", {"id": "dead", "queue": "dead"}),
        ("/v1/work-items/dead/dead-letter", {"error": {"type": "broken"}}),
        ("/v1/executions/run/status", {"status": "completed"}),
    ):
        answer = await client.post(path, json=body)
        assert answer.status_code < 300, answer.text
    await client.put("/v1/definitions/wf/1?validate=false", json={"steps": []})
    token = (await client.post("/v1/tokens", json={"name": "third", "role": "viewer"})).json()["token"]["id"]
    return {
        "executions": "run", "work-items": "held", "dead-letters": "dead", "tenants": "acme", "tokens": token,
        "definitions": "wf", "queues": "held", "jobs": "none",
    }  # fmt: skip


def existing(case: Any, ids: dict[str, str]) -> None:
    """Let the request name what is there."""
    parts = case.operation.path.split("/")
    for before, part in itertools.pairwise(parts):
        if part.startswith("{") and before in ids:
            case.path_parameters[part.split("}")[0].strip("{}")] = ids[before]


def impatient(case: Any) -> None:
    """Let the request wait for no more than a moment, where it says a time that may be said."""
    if isinstance(case.body, dict) and isinstance(ms := case.body.get("wait_ms"), int) and WAIT_MS < ms <= WAIT_MS_MAX:
        case.body["wait_ms"] = WAIT_MS


@functools.cache
def several(operation: str) -> strategies.SearchStrategy[Any]:
    """Requests of an operation, a third of them wrong on purpose. To prepare this takes longer than to draw a few."""
    made = OPERATIONS[operation]
    right = made.as_strategy(generation_mode=GenerationMode.POSITIVE)
    wrong = made.as_strategy(generation_mode=GenerationMode.NEGATIVE) if takes_something(made) else right
    return strategies.one_of(right, right, wrong)


def fuzz(operation: str, role: str, target: Target, examples: int) -> None:
    """So many generated requests of one operation."""
    made, session = OPERATIONS[operation], requests.Session()

    @hypothesis.settings(
        max_examples=examples, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
    )  # fmt: skip
    @hypothesis.given(several(operation), strategies.booleans())
    def send(case: Any, real: bool) -> None:
        if real:
            existing(case, target.ids)
        impatient(case)
        token = fresh(target) if operation in SUICIDAL else target.tokens[role]
        case.headers.pop("Authorization", None)
        answer = case.call(
            base_url=target.base, session=session, headers={"authorization": f"Bearer {token}"}, timeout=60
        )
        if answer.headers["content-type"] == ["text/event-stream"]:
            fits_events(answer.text, made)
        else:
            case.validate_response(answer, checks=CHECKS)

    with session:
        send()


def fits_events(text: str, made: Any) -> None:
    """Of a stream of events the document describes the `data` of each."""
    schema = made.definition.raw["responses"]["200"]["content"]["text/event-stream"]["schema"]
    described = jsonschema.Draft202012Validator({**schema, "components": DOCUMENT["components"]})
    found = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert found
    for data in found:
        described.validate(json.loads(data))


def takes_something(made: Any) -> bool:
    """Whether there is anything about the operation that could be wrong."""
    return bool(made.definition.raw["parameters"] or made.definition.raw.get("requestBody"))


def fresh(target: Target) -> str:
    """A token that may be lost."""
    owner = {"authorization": f"Bearer {target.tokens['owner']}"}
    made = requests.post(f"{target.base}/v1/tokens", json={"name": "x", "role": "viewer"}, headers=owner, timeout=60)
    return str(made.json()["secret"])


def test_no_operation_is_left_out() -> None:
    assert set(OPERATIONS) == {method["operationId"] for path in DOCUMENT["paths"].values() for method in path.values()}


@pytest.mark.parametrize("role", TOKENS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_whatever_is_sent_the_answer_is_described(operation: str, role: str, target: Target) -> None:
    fuzz(operation, role, target, EXAMPLES)


@pytest.mark.slow
@pytest.mark.parametrize("role", TOKENS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_whatever_is_sent_for_long_the_answer_is_described(operation: str, role: str, target: Target) -> None:
    fuzz(operation, role, target, EXAMPLES_LONG)
