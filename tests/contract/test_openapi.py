"""The published contract: it is what the code says, it is valid, and what the service answers fits it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import jsonschema
import msgspec
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from backends.errors import Full
from service import __version__, capabilities
from service.errors import CODES, StateError
from service.http import contract
from service.http.answer import problem
from service.http.batch import Batch
from service.http.endpoint import PUBLIC, Endpoint
from service.http.examples import examples
from service.http.glossary import MEANINGS
from service.http.lists import Page
from service.http.refusals import codes
from service.kernel.principal import PERMITS
from service.tokens.secret import PATTERN
from tests.conftest import Api

FILE = Path(__file__).parents[2] / "openapi" / "openapi.json"
ENDPOINTS: list[Endpoint] = capabilities.endpoints()
DOCUMENT = contract.document()
REGISTRY: Any = Registry().with_resource("urn:openapi", DRAFT202012.create_resource(DOCUMENT))
CALLED = {"retry-after", "www-authenticate"}
"""Headers of refusals that a program acts on."""
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
BARE = {
    "pauseQueue", "resumeQueue", "pauseSchedule", "resumeSchedule", "triggerSchedule", "sendSignal", "rotateToken",
    "cancelExecution", "terminateExecution", "completeExecution", "continueExecution", "requeueDeadLetter",
    "reclaimLeases",
}  # fmt: skip
"""Operations whose body may be left out."""
CHOSEN = {
    "body", "detail", "details", "error", "input", "memo", "patch", "payload", "policy", "progress", "result", "state",
    "value",
}  # fmt: skip
"""Fields that hold what a caller gave, in whatever form it was; and the particulars of jobs and of the audit log."""
WITH_BODY = [endpoint for endpoint in ENDPOINTS if endpoint.body is not None]
each = pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.operation)


def operation(endpoint: Endpoint) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][endpoint.path][endpoint.method.lower()]
    return found


def resolved(part: Any) -> Any:
    while "$ref" in part:
        found: Any = DOCUMENT
        for step in part["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        part = found
    return part


def located(schema: Any) -> Any:
    """A schema whose references lead into the document, wherever it stands itself."""
    if isinstance(schema, list):
        return [located(one) for one in schema]
    if isinstance(schema, dict):
        return {k: "urn:openapi" + v if k == "$ref" else located(v) for k, v in schema.items()}
    return schema


def fits(value: Any, schema: Any) -> None:
    jsonschema.Draft202012Validator(located(schema), registry=REGISTRY).validate(value)


def test_the_committed_document_is_what_the_code_generates() -> None:
    said = "run: python -m service.http.contract > openapi/openapi.json"
    assert FILE.read_text("utf-8") == contract.text(), said


def fields_said() -> Iterator[tuple[str, str, str]]:
    """(component, field, what is said of it) of every field of the contract."""
    for name, schema in SCHEMAS.items():
        for field, said in schema.get("properties", {}).items():
            yield name, field, said.get("description", "")


def test_every_field_says_what_it_means() -> None:
    silent = [f"{name}.{field}" for name, field, said in fields_said() if not re.match("[A-Z`]", said)]
    assert not silent, "say it in service/http/glossary.py"


def test_every_meaning_of_the_glossary_is_of_a_field() -> None:
    there = set()
    for component, field, _ in fields_said():
        struct = component.removesuffix("Entry").removesuffix("Reply")
        there |= {field, f"{component}.{field}", f"{struct}.{field}"}
    assert not MEANINGS.keys() - there


def test_generating_twice_gives_the_same_bytes() -> None:
    assert contract.text() == contract.text()


def test_the_document_is_valid_openapi() -> None:
    assert list(OpenAPIV31SpecValidator(DOCUMENT).iter_errors()) == []


def test_the_document_names_the_version_and_the_licence() -> None:
    assert DOCUMENT["info"]["version"] == __version__
    assert DOCUMENT["info"]["license"]["identifier"] == "Apache-2.0"


def test_the_token_format_is_published_for_secret_scanners() -> None:
    assert PATTERN in DOCUMENT["components"]["securitySchemes"]["bearer"]["description"]


def test_operation_ids_are_unique() -> None:
    names = [endpoint.operation for endpoint in ENDPOINTS]
    assert sorted(names) == sorted(set(names))


def test_no_two_endpoints_share_a_method_and_a_path() -> None:
    places = [(endpoint.method, endpoint.path) for endpoint in ENDPOINTS]
    assert sorted(places) == sorted(set(places))


def test_every_operation_of_the_document_is_served_and_the_other_way_round() -> None:
    written = {(method.upper(), path) for path, item in DOCUMENT["paths"].items() for method in item}
    assert written == {(endpoint.method, endpoint.path) for endpoint in ENDPOINTS}


@each
def test_an_endpoint_says_what_it_does_needs_and_answers(endpoint: Endpoint) -> None:
    assert endpoint.summary.strip()
    assert endpoint.permit == PUBLIC or endpoint.permit in PERMITS
    assert endpoint.reply is not None or endpoint.media != "application/json"


@each
def test_a_page_or_a_batch_says_what_it_holds(endpoint: Endpoint) -> None:
    assert endpoint.reply not in (Page, Batch) or endpoint.item is not None
    assert (endpoint.reply is Batch) == (get_origin(endpoint.body) is list)


@each
def test_every_declared_error_is_a_code(endpoint: Endpoint) -> None:
    assert set(endpoint.errors) <= set(CODES)


@each
def test_every_code_of_an_operation_is_listed_under_its_status(endpoint: Endpoint) -> None:
    listed = []
    for status, given in operation(endpoint)["responses"].items():
        content = resolved(given)["content"].get("application/problem+json")
        if content is not None:
            group = content["schema"]["properties"]["code"]["enum"]
            assert {CODES[code][0] for code in group} == {int(status)}
            fits(content["example"], content["schema"])
            sent = {name.decode() for code in group for name, _ in problem(StateError(code, "")).headers}
            assert sent & CALLED <= {name.lower() for name in resolved(given).get("headers", {})}
            listed += group
    assert set(listed) == set(codes(endpoint))


@each
def test_an_operation_is_documented_in_full(endpoint: Endpoint) -> None:
    made = operation(endpoint)
    assert made["operationId"] == endpoint.operation
    assert made["summary"] and made["description"] and made["tags"]
    assert made["security"] == ([] if endpoint.permit == PUBLIC else [{"bearer": []}])
    assert made["x-permission"] == endpoint.permit
    assert all(parameter["description"] for parameter in made["parameters"])
    in_path = [parameter["name"] for parameter in made["parameters"] if parameter["in"] == "path"]
    assert in_path == re.findall(r"{(\w+)}", endpoint.path)


@each
def test_an_operation_has_an_example_answer_that_fits_its_schema(endpoint: Endpoint) -> None:
    assert endpoint.operation in examples()
    for status, given in operation(endpoint)["responses"].items():
        if int(status) < 300:
            for content in given["content"].values():
                fits(content["example"], content["schema"])


@pytest.mark.parametrize("endpoint", WITH_BODY, ids=lambda endpoint: endpoint.operation)
def test_an_operation_with_a_body_has_an_example_that_its_decoder_takes(endpoint: Endpoint) -> None:
    example = examples()[endpoint.operation].request
    assert example is not None
    msgspec.json.decode(json.dumps(example), type=endpoint.body)
    for content in operation(endpoint)["requestBody"]["content"].values():
        fits(example, content["schema"])


@pytest.mark.parametrize("endpoint", WITH_BODY, ids=lambda endpoint: endpoint.operation)
def test_a_body_never_asks_for_what_the_path_says_or_the_service_computes(endpoint: Endpoint) -> None:
    [content, *_] = operation(endpoint)["requestBody"]["content"].values()
    schema = content["schema"]
    fields = set(resolved(schema.get("items", schema)).get("properties", {}))
    assert "digest" not in fields
    if get_origin(endpoint.body) is not list:
        named = set(re.findall(r"{(\w+)}", endpoint.path))
        singular = "execution_id" if endpoint.path.startswith("/v1/executions/{id}") else ""
        assert not fields & {*named, singular}


def test_an_entry_of_a_batch_says_which_one_it_means() -> None:
    for endpoint in WITH_BODY:
        if endpoint.operation in ("completeWorkItems", "renewLeases", "submitWorkflowTasks", "completeActivities"):
            [entry] = get_args(endpoint.body)
            assert "id" in DOCUMENT["components"]["schemas"][f"{entry.__name__}Entry"]["required"]


def test_there_are_no_examples_without_an_operation() -> None:
    assert set(examples()) <= {endpoint.operation for endpoint in ENDPOINTS}


def parts(of: Any, under: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema within a schema, and where it is; examples are none."""
    for key, part in of.items() if isinstance(of, dict) else enumerate(of) if isinstance(of, list) else ():
        if key not in ("example", "default"):
            yield from parts(part, f"{under}/{key}")
    if isinstance(of, dict):
        yield under, of


def test_generators_find_a_literal_for_each_tag_a_type_for_each_choice_and_what_each_array_holds() -> None:
    for at, part in parts([SCHEMAS, DOCUMENT["paths"], DOCUMENT["components"]["responses"]]):
        assert "allOf" not in part, at
        if isinstance(choices := part.get("enum"), list):
            assert part["type"] == "string", at
            assert len(choices) > 1 or at.endswith("/code"), at
        if part.get("type") == "array":
            assert "items" in part, at


@each
def test_a_refusal_is_a_problem_to_a_generated_client_whatever_its_status(endpoint: Endpoint) -> None:
    for status, given in operation(endpoint)["responses"].items():
        if int(status) >= 400:
            [content] = resolved(given)["content"].values()
            assert content["schema"]["$ref"] == "#/components/schemas/Problem"


def test_a_body_comes_under_one_media_type_and_is_left_out_where_the_service_takes_none() -> None:
    bodies = {one.operation: operation(one)["requestBody"] for one in WITH_BODY}
    assert all(list(body["content"]) == ["application/json"] for body in bodies.values())
    assert {name for name, body in bodies.items() if not body["required"]} == BARE


def test_two_components_of_one_struct_are_not_the_same() -> None:
    for name, schema in SCHEMAS.items():
        for suffix in ("Body", "Reply", "Entry"):
            assert schema != SCHEMAS.get(name + suffix), f"{name} and {name}{suffix}"


def test_only_what_callers_chose_is_answered_as_any_json() -> None:
    opaque = {
        f"{name}.{field}"
        for name, schema in SCHEMAS.items()
        for field, described in schema.get("properties", {}).items()
        if not {"type", "$ref", "anyOf", "oneOf", "const"} & set(described)
    }
    assert {name.rpartition(".")[2] for name in opaque} == CHOSEN, sorted(opaque)


class Seen:
    """Makes calls and holds each answer to the schema of its operation and status."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.operations: set[str] = set()

    async def call(self, endpoint_id: str, body: Any = None, client: Any = None, **parts: Any) -> Any:
        [endpoint] = [one for one in ENDPOINTS if one.operation == endpoint_id]
        path = endpoint.path.format(**{name: parts.pop(name) for name in re.findall(r"{(\w+)}", endpoint.path)})
        sent = {} if body is None else {"json": body}
        answer = await (client or self.api.http).request(endpoint.method, path, params=parts, **sent)
        assert answer.status_code < 300, answer.text
        given = operation(endpoint)["responses"][str(answer.status_code)]
        assert answer.headers["content-type"] == endpoint.media
        schema = given["content"][endpoint.media]["schema"]
        fits(answer.json(), schema)
        described = resolved(schema).get("properties")
        assert described is None or set(answer.json()) <= set(described)
        self.operations.add(endpoint_id)
        return answer.json()


async def test_what_the_service_answers_fits_the_document(api: Api) -> None:
    seen, admin = Seen(api), api.admin
    node = {"id": "a", "kind": {"type": "http"}}
    ir = {
        "workflow_id": "w",
        "version": "1",
        "start_node": "a",
        "nodes": {"a": node},
        "edges": [{"from": "a", "to": "end"}],
    }
    for _ in range(2):
        await seen.call("storeDefinition", ir, workflow_id="w", version="1")
    await seen.call("validateDefinition", {})
    await seen.call("getDefinition", workflow_id="w", version="1")
    await seen.call("listDefinitions")
    start = {"workflow_id": "w", "version": "1", "execution_id": "e1", "input": [1], "start": {}, "labels": {"a": "b"}}
    for _ in range(2):
        await seen.call("startExecution", start)
    await seen.call("startExecutions", [{"workflow_id": "x"}, {"workflow_id": "y", "version": "none"}])
    [claimed] = (await seen.call("claimWork", {"worker_id": "w", "queues": ["http"]}))["items"]
    await seen.call("getWorkItem", id=claimed["id"])
    await seen.call("renewLease", {"epoch": 1, "progress": 5}, id=claimed["id"])
    await seen.call(
        "failWork", {"epoch": 1, "error": {"type": "t", "details": [1]}, "retryable": False}, id=claimed["id"]
    )
    await seen.call("listDeadLetters")
    await seen.call("requeueDeadLetter", {}, id=claimed["id"])
    [again] = (await seen.call("claimWork", {"worker_id": "w", "queues": ["http"]}))["items"]
    changes: list[Any] = [{"type": "append", "kind": "k"}, {"type": "enqueue", "queue": "q"}, {"type": "snapshot"}]
    await seen.call("transition", {"changes": [*changes, {"type": "merge_state", "patch": {"a": 1}}]}, id="e1")
    await seen.call(
        "transitionBatch", [{"execution_id": "e1", "changes": changes}, {"execution_id": "no", "changes": changes}]
    )
    await seen.call("completeWork", {"epoch": again["epoch"], "result": None}, id=again["id"])
    await seen.call("completeWorkItems", [{"id": again["id"], "epoch": 99}])
    await seen.call("enqueueWork", {"queue": "q", "payload": {"a": None}})
    await seen.call("getExecution", id="e1")
    await seen.call("listExecutions", limit=1)
    await seen.call("getEvents", id="e1")
    await seen.call("readFeed", limit=2)
    await seen.call("latestSnapshot", id="e1")
    await seen.call("verifySnapshots", id="e1")
    await seen.call("listQueues")
    await seen.call("pauseQueue", {"note": "n"}, name="q")
    await seen.call("resumeQueue", name="q")
    minted = await seen.call("mintToken", {"name": "n", "role": "worker"})
    await seen.call("rotateToken", {}, id=minted["token"]["id"])
    await seen.call("listTokens")
    await seen.call("getOwnToken")
    await seen.call("getTenant", id=api.tenant)
    await seen.call("getUsage", id=api.tenant)
    await seen.call("listTenants", client=admin)
    await seen.call("updateTenant", {"name": "New"}, client=admin, id=api.tenant)
    await seen.call("listAudit")
    await seen.call("getContract")
    await seen.call("getProblem", group="lease", name="stale")
    assert len(seen.operations) > 30


async def test_a_refusal_fits_the_document(api: Api) -> None:
    problem = await api.refused("POST", "/v1/executions", "request/invalid", json={"workflow_id": 1})
    given = resolved(DOCUMENT["paths"]["/v1/executions"]["post"]["responses"]["422"])
    fits(problem, given["content"]["application/problem+json"]["schema"])


async def test_what_is_written_with_a_read_is_refused_as_the_document_says(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first use of a token that replaces another is, by any request, and so is the line about a support read."""
    [owner] = (await api.http.get("/v1/tokens")).json()["items"]
    heir = (await api.http.post(f"/v1/tokens/{owner['id']}/rotate", json={})).json()["secret"]
    support = {"holdfast-tenant": api.tenant, "holdfast-reason": "a full disk"}

    async def full(*_: Any, **__: Any) -> None:
        raise Full("no room")

    monkeypatch.setattr(api.service.services.backend, "write", full)
    for client, method, path, more in (
        (api.service.client(heir), "GET", "/v1/executions", {}),
        (api.admin, "GET", "/v1/schedules", {"headers": support}),
        (api.http, "POST", "/v1/tokens:revoke-exposed", {"json": {"token": heir}}),
    ):
        answer = await client.request(method, path, **more)
        assert (answer.status_code, answer.json()["code"]) == (507, "store/full")
        given = resolved(DOCUMENT["paths"][path][method.lower()]["responses"]["507"])
        fits(answer.json(), given["content"]["application/problem+json"]["schema"])
