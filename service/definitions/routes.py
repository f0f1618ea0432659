"""Definitions over HTTP."""

import re
from typing import Annotated, Any

import msgspec

from backends.protocol import Row, Tx
from service.definitions.ir import TAKEN, kind_of, policy_of, problems
from service.definitions.model import (
    SNAPSHOT_BYTES,
    SNAPSHOT_EVENTS,
    SNAPSHOT_KEEP,
    VERSION_MAX,
    Deleted,
    DeleteDefinition,
    StartNode,
    Stored,
    StoreDefinition,
)
from service.definitions.report import full
from service.errors import StateError, not_found
from service.http.endpoint import CURSOR, LIMIT, Call, Endpoint, Query
from service.http.lists import Page, listed, where
from service.kernel.filters import Field, Vocabulary
from service.kernel.ids import NAME_PATTERN, NAMES
from service.kernel.json import check, digest
from service.work.model import BACKOFF_MS_MAX, Retry

VOCABULARY = Vocabulary(
    fields=(
        Field("workflow_id", "d.workflow_id", "text"),
        Field("version", "d.version", "text"),
        Field("created_at", "d.created_at", "time"),
    )
)
VALIDATE = Query("validate", bool, True, "`false` stores any JSON object, for engines with an IR of their own.")
SNAPSHOTS = (
    Query(
        "snapshot_events",
        Annotated[int, msgspec.Meta(ge=0, le=1_000_000)],
        SNAPSHOT_EVENTS,
        "Snapshot each so many events; 0 never.",
    ),
    Query(
        "snapshot_bytes",
        Annotated[int, msgspec.Meta(ge=0, le=1_073_741_824)],
        SNAPSHOT_BYTES,
        "Snapshot each so many bytes of event bodies; 0 never.",
    ),
    Query(
        "snapshot_keep",
        Annotated[int, msgspec.Meta(ge=1, le=100)],
        SNAPSHOT_KEEP,
        "Keep the newest so many snapshots of an execution; one asked for below them stays until the next is written.",
    ),
)
"""The policy that an execution is pinned to when it starts; a version that is stored already keeps its own."""


class ListedDefinition(msgspec.Struct, frozen=True):
    """A stored version without its body."""

    workflow_id: str
    version: str
    revision: int
    digest: str
    validated: bool
    created_at: int
    created_by: str


class ShownDefinition(msgspec.Struct, frozen=True):
    """A stored version with its body, byte for byte as it was sent."""

    workflow_id: str
    version: str
    revision: int
    digest: str
    validated: bool
    created_at: int
    created_by: str
    definition: Annotated[msgspec.Raw, msgspec.Meta(extra={"shape": dict[str, Any]})]


class Fault(msgspec.Struct, frozen=True):
    """What is wrong, and a JSON pointer to where."""

    pointer: str
    detail: str


class Validity(msgspec.Struct, frozen=True):
    """Whether a document is a valid definition, and every error if not."""

    valid: bool
    errors: list[Fault]


def document(body: bytes) -> Any:
    """The body as a JSON object."""
    check(body)
    try:
        found = msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise StateError("request/json", f"The body is not JSON: {error}.") from None
    if not isinstance(found, dict):
        raise StateError(
            "definition/invalid", "A definition is a JSON object.", errors=[{"pointer": "", "detail": "not an object"}]
        )
    return found


async def store(call: Call) -> Stored:
    """Validate and store a version."""
    found, workflow_id, version = document(call.body), call.path["workflow_id"], call.path["version"]
    refuse_names(workflow_id, version)
    start = None
    if call.query["validate"]:
        refuse_invalid(problems(found, workflow_id, version))
        start = msgspec.json.encode(start_node(found))
    policy = [call.query[one.name] for one in SNAPSHOTS]
    made = StoreDefinition(workflow_id, version, call.body, digest(call.body), call.query["validate"], start, *policy)
    return await call.run(made)  # type: ignore[no-any-return]


def refuse_names(workflow_id: str, version: str) -> None:
    """The path's names must be those that a start and a path can name."""
    unnamed = len(version) > VERSION_MAX or version in TAKEN or "/" in version
    if unnamed or re.fullmatch(NAME_PATTERN, workflow_id) is None:
        raise StateError(
            "request/malformed",
            f"A workflow id is {NAMES}; a version any 1–64 characters without `/`, but `latest`, `.` and `..` are "
            "taken: paths with them mean something else.",
        )


def refuse_invalid(found: list[tuple[str, str]]) -> None:
    """422 with every error, or as many as a report holds."""
    if found:
        listed = [{"pointer": pointer, "detail": detail} for pointer, detail in found]
        count = "1 error" if len(found) == 1 else f"{len(found)} errors"
        more = "; there may be more" if full(found) else ""
        raise StateError("definition/invalid", f"The definition has {count}{more}; see 'errors'.", errors=listed)


def start_node(found: dict[str, Any]) -> StartNode:
    """What the first work item of a run needs to know. A kind that is no name for a queue stands in the default one."""
    node = found["start_node"]
    policy, kind = policy_of(found, node), kind_of(found, node) or ""
    queue = kind if re.fullmatch(NAME_PATTERN, kind) else "default"
    if policy is None:
        return StartNode(node, queue)
    longest = min(policy.max_delay_ms, BACKOFF_MS_MAX)
    retry = Retry(policy.backoff, policy.initial_delay_ms, 2.0, longest, policy.jitter)
    return StartNode(node, queue, policy.max_attempts, retry)


async def validate(call: Call) -> Validity:
    """Every error of a document, nothing stored."""
    found = problems(document(call.body), None, None)
    return Validity(not found, [Fault(*one) for one in found])


async def get(call: Call) -> ShownDefinition:
    """One version, or the one stored last."""
    statement, params = "read_definition_latest", {"workflow_id": call.path["workflow_id"]}
    if call.path.get("version", "latest") != "latest":
        statement, params = "read_definition", {**params, "version": call.path["version"]}

    async def read(tx: Tx) -> Row | None:
        return await tx.one(statement, tenant_id=call.who.tenant_id, **params)

    row = await call.services.backend.read(read, tenants=call.who.reach)
    if row is None:
        raise not_found("definition", "/".join(call.path.values()))
    return ShownDefinition(row[0], row[1], row[2], row[3], bool(row[4]), row[5], row[6], msgspec.Raw(row[7]))


def in_list(row: Row) -> ListedDefinition:
    """A row of a list."""
    return ListedDefinition(row[0], row[1], row[2], row[3], bool(row[4]), row[5], row[6])


async def list_all(call: Call) -> Page:
    """Versions, newest first."""
    condition = where(call.query["filter"], VOCABULARY, workflow_id=call.query["workflow_id"])
    return await listed(
        call,
        "list_definitions",
        (2**62, "", ""),
        ("at", "workflow_id", "version"),
        in_list,
        lambda row: (row[5], row[0], row[1]),
        where=condition,
        tenant_id=call.who.tenant_id,
    )


async def delete(call: Call) -> Deleted:
    """Delete a version that nothing uses."""
    return await call.run(DeleteDefinition(call.path["workflow_id"], call.path["version"]))  # type: ignore[no-any-return]


ENDPOINTS = [
    Endpoint(
        "PUT",
        "/v1/definitions/{workflow_id}/{version}",
        "storeDefinition",
        "definition.write",
        "Store a version",
        store,
        reply=Stored,
        body=dict[str, Any],
        created=True,
        query=(VALIDATE, *SNAPSHOTS),
        errors=("definition/conflict", "definition/invalid", "limit/definitions"),
    ),
    Endpoint(
        "GET",
        "/v1/definitions/{workflow_id}/{version}",
        "getDefinition",
        "read",
        "One version",
        get,
        reply=ShownDefinition,
        writes=False,
        errors=("not-found",),
    ),
    Endpoint(
        "GET",
        "/v1/definitions/{workflow_id}",
        "getLatestDefinition",
        "read",
        "The version stored last",
        get,
        reply=ShownDefinition,
        writes=False,
        errors=("not-found",),
    ),
    Endpoint(
        "GET",
        "/v1/definitions",
        "listDefinitions",
        "read",
        "List versions",
        list_all,
        reply=Page,
        item=ListedDefinition,
        writes=False,
        query=(
            LIMIT,
            CURSOR,
            Query("filter", str, None, "A filter: `workflow_id LIKE 'order-%'`."),
            Query("workflow_id", str, None, "Only this workflow."),
        ),
    ),
    Endpoint(
        "DELETE",
        "/v1/definitions/{workflow_id}/{version}",
        "deleteDefinition",
        "definition.write",
        "Delete a version",
        delete,
        reply=Deleted,
        errors=("not-found", "definition/in-use"),
    ),
    Endpoint(
        "POST",
        "/v1/definitions:validate",
        "validateDefinition",
        "read",
        "Every error of a document",
        validate,
        reply=Validity,
        body=dict[str, Any],
        writes=False,
        errors=("definition/invalid",),
    ),
]
