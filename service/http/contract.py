"""The published contract: `openapi/openapi.json`, built from the endpoints' own declarations and nothing else.

`python -m service.http.contract > openapi/openapi.json` writes it; a test holds the file to the code.
"""

import re
import sys
from collections.abc import Iterator
from typing import Any

import msgspec

from service import __version__, capabilities
from service.http.app import LIMIT_TYPE
from service.http.batch import Batch
from service.http.endpoint import PUBLIC, Endpoint, Query
from service.http.examples import Example, examples
from service.http.refusals import HEADERS, PROBLEM, Refusals, keyed
from service.http.schemas import Schema, Schemas
from service.http.stream import NDJSON
from service.kernel.principal import PERMITS
from service.tokens.secret import PATTERN

DESCRIPTION = """\
Holdfast keeps the state of workflow engines, agent runtimes, job systems and schedulers: definitions, executions,
append-only events, snapshots, leased work and dead letters, for many tenants, one transaction for each transition.

* **Times** are milliseconds since the epoch, UTC. **Ids** made by the service sort by time, but for those that follow
  from another id: of an execution's first work item, of the run that it goes on in.
* **Refusals** are `application/problem+json` (RFC 9457). Branch on `code`; `/problems/{code}` says what to do.
* **Repeats**: send an `Idempotency-Key` with a change, and a repeat is answered as the first one was. Keys live 24
  hours.
* **Request ids**: every answer has an `X-Request-Id`: the one that was sent, if it is 1–64 of `A-Z a-z 0-9 ._:@/+=-`,
  or one that the service makes.
* **Lists** are pages: pass `next_cursor` as `cursor` until it is null. The feed, `GET /v1/events`, has no end: pass
  its `next_cursor` as `after`, and keep it for as long as you read.
* **Opaque JSON** (input, state, payload, result) is stored and answered byte for byte.
"""
TOKEN = f"A token, sent as `Authorization: Bearer hold…`. Its format, for secret scanners: `{PATTERN}`."
BEARER = {"type": "http", "scheme": "bearer", "bearerFormat": "holdfast", "description": TOKEN}
PATH_TYPES: dict[str, Schema] = {"sequence": {"type": "integer", "minimum": 0}}
TEXT: Schema = {"type": "string", "minLength": 1, "maxLength": 256}
PATH_MEANINGS = {
    "workflow_id": "The workflow's id.",
    "version": "The version; `latest` reads the one stored last.",
    "sequence": "A sequence of the execution's log.",
    "name": "Its name.",
    "group": "The first part of the code.",
    "file": "The file's name.",
}


class Header(msgspec.Struct, frozen=True):
    """A request header that an operation knows."""

    name: str
    meaning: str
    schema: Schema = msgspec.field(default_factory=lambda: {"type": "string"})


KEY = Header(
    "Idempotency-Key", "Names this request: a repeat with the same key and body answers as the first one did.",
    {"type": "string", "minLength": 1, "maxLength": 255},
)  # fmt: skip
SUPPORT = (
    Header("Holdfast-Tenant", "For the system's administrator: the tenant to read."),
    Header("Holdfast-Reason", "Why; needed with Holdfast-Tenant."),
)
OWN_HEADERS = {
    "updateTenant": Header("If-Match", 'The version that the tenant must have, such as `"3"`.'),
    "tailEvents": Header("Last-Event-ID", "The last sequence that was seen; sent by a client that comes back."),
}


class Kinds:
    """The types that operations mention, described all at once at the end."""

    def __init__(self) -> None:
        self.schemas = Schemas()
        self._kinds: list[Any] = []
        self._places: list[Schema] = []

    def place(self, kind: Any, **more: Any) -> Schema:
        """Where the schema of `kind` will be."""
        self._kinds.append(kind)
        self._places.append({})
        self._places[-1].update(more)
        return self._places[-1]

    def fill(self) -> dict[str, Schema]:
        """Put every schema into its place; the components."""
        found, components = self.schemas.of(self._kinds)
        for place, schema in zip(self._places, found, strict=True):
            place.update({**schema, **place})
        return components


def document() -> dict[str, Any]:
    """The OpenAPI 3.1 document of everything that is served."""
    by_tag = capabilities.endpoints_by_capability()
    everything = [endpoint for endpoints in by_tag.values() for endpoint in endpoints]
    kinds, refusals, shown = Kinds(), Refusals(everything), examples()
    paths: dict[str, dict[str, Any]] = {}
    for name, endpoints in by_tag.items():
        for endpoint in endpoints:
            made = operation(endpoint, tag(name), kinds, refusals, shown.get(endpoint.operation))
            paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = made
    schemas = {**kinds.fill(), "Problem": PROBLEM}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Holdfast", "version": __version__, "summary": "A multi-tenant, token-secured state service.",
            "description": DESCRIPTION, "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag(name), "description": about(name)} for name, endpoints in by_tag.items() if endpoints],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "responses": dict(sorted(refusals.components.items())),
            "headers": HEADERS,
            "securitySchemes": {"bearer": BEARER},
        },
    }  # fmt: skip


def tag(capability: str) -> str:
    """The tag of a capability: its name."""
    return capability.rpartition(".")[2]


def about(capability: str) -> str:
    """What a capability is: the docstring of its package, lines joined."""
    doc = sys.modules[f"service.{capability}"].__doc__ or ""
    return "\n\n".join(" ".join(part.split()) for part in doc.split("\n\n"))


def operation(endpoint: Endpoint, under: str, kinds: Kinds, refusals: Refusals, example: Example | None) -> Schema:
    """One operation."""
    made: Schema = {
        "operationId": endpoint.operation,
        "summary": endpoint.summary,
        "description": description(endpoint),
        "tags": [under],
        "security": [] if endpoint.permit == PUBLIC else [{"bearer": []}],
        "x-permission": endpoint.permit,
        "x-roles": sorted(PERMITS.get(endpoint.permit, frozenset()) - {"support"}),
        "parameters": list(parameters(endpoint, kinds)),
    }
    if endpoint.body is not None:
        made["requestBody"] = request_body(endpoint, kinds, example)
    made["responses"] = dict(sorted({**successes(endpoint, kinds, example), **refusals.of(endpoint)}.items()))
    return made


def description(endpoint: Endpoint) -> str:
    """What the handler's docstring says, or the body's where the handler is generic."""
    kind = endpoint.body
    if endpoint.reply is Batch:
        kind = kind.__args__[0]
    said = endpoint.handle.__doc__ or getattr(kind, "__doc__", None) or endpoint.summary
    text = "\n\n".join(" ".join(part.split()) for part in said.split("\n\n"))
    if endpoint.reply is Batch:
        text += "\n\nAn array in, one result for each out, in the same order; each is done or refused by itself."
    return text


def parameters(endpoint: Endpoint, kinds: Kinds) -> Iterator[Schema]:
    """Path, query and headers."""
    for name in re.findall(r"{(\w+)}", endpoint.path):
        yield parameter("path", name, of_path(endpoint.path, name), PATH_TYPES.get(name, TEXT))
    for query in endpoint.query:
        yield parameter("query", query.name, query.meaning, of_query(query, kinds))
    for header in headers(endpoint):
        yield parameter("header", header.name, header.meaning, header.schema)


def parameter(where: str, name: str, meaning: str, schema: Schema) -> Schema:
    """One parameter; only the path's are required."""
    return {"name": name, "in": where, "required": where == "path", "description": meaning, "schema": schema}


def of_path(path: str, name: str) -> str:
    """What a part of the path is: `/v1/work-items/{id}` is the id of a work item."""
    before = path.partition("/{" + name + "}")[0].rpartition("/")[2]
    if name == "id" and before:
        return f"The id of the {before.removesuffix('s').replace('-', ' ')}."
    return PATH_MEANINGS.get(name, f"The {name.replace('_', ' ')}.")


def of_query(query: Query, kinds: Kinds) -> Schema:
    """A query parameter's schema, with its default if it has one."""
    kind = LIMIT_TYPE if query.type == "limit" else query.type
    return kinds.place(kind, **({} if query.default is None else {"default": query.default}))


def headers(endpoint: Endpoint) -> Iterator[Header]:
    """The request headers that an operation knows."""
    if keyed(endpoint):
        yield KEY
    if "support" in PERMITS.get(endpoint.permit, ()):
        yield from SUPPORT
    if endpoint.operation in OWN_HEADERS:
        yield OWN_HEADERS[endpoint.operation]


def request_body(endpoint: Endpoint, kinds: Kinds, example: Example | None) -> Schema:
    """The body, with an example; under one media type, for some generators make nothing usable of two of the same."""
    content: Schema = {"schema": kinds.place(kinds.schemas.body(endpoint.body))}
    if example is not None and example.request is not None:
        content["example"] = example.request
    return {"required": not endpoint.bare, "content": {"application/json": content}}


def successes(endpoint: Endpoint, kinds: Kinds, example: Example | None) -> Schema:
    """The answers that are no refusals: 201 where something is made, and 200 if the reply can say that it was not."""
    fields = getattr(endpoint.reply, "__struct_fields__", ())
    statuses = [endpoint.status] if not endpoint.created else [201]
    if endpoint.created and "created" in fields:
        statuses = [endpoint.status, 201]
    return {str(status): success(endpoint, status, kinds, example) for status in statuses}


def success(endpoint: Endpoint, status: int, kinds: Kinds, example: Example | None) -> Schema:
    """One of them."""
    kind = str if endpoint.reply is None else kinds.schemas.reply(endpoint.reply, endpoint.item)
    content: Schema = {"schema": kinds.place(kind)}
    if example is not None and example.reply is not None:
        content["example"] = at_status(example.reply, endpoint, status)
    said: Schema = {"description": said_of(endpoint, status)}
    names = ["Idempotent-Replayed"] if keyed(endpoint) else []
    names += ["Holdfast-Token-Expires"] if endpoint.permit != PUBLIC else []
    if names:
        said["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
    return {**said, "content": {endpoint.media: content}}


def at_status(reply: Any, endpoint: Endpoint, status: int) -> Any:
    """The example as it reads under this status."""
    if endpoint.created and isinstance(reply, dict) and "created" in reply:
        return {**reply, "created": status == 201}
    return reply


def said_of(endpoint: Endpoint, status: int) -> str:
    """A status in words."""
    if endpoint.media == "text/event-stream":
        return "Server-sent events; the `data` of each is this document, its `id` the sequence."
    if endpoint.media == NDJSON:
        return "Lines of JSON: a manifest that says what follows, and then documents like this one."
    if endpoint.created:
        return "Made." if status == 201 else "It was there before; nothing has changed."
    if status == 202:
        return "Begun."
    return "Done: one result for each item." if endpoint.reply is Batch else "Done."


def text() -> str:
    """The document as it is published."""
    made = msgspec.json.format(msgspec.json.encode(document()), indent=2)
    return made.decode() + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
