"""Executions over HTTP."""

import re
from typing import Any, Literal

import msgspec

from backends.protocol import Row, Tx, Where
from service.errors import StateError, not_found
from service.executions.facets import alone, among, has
from service.executions.model import (
    STATUS,
    AppendState,
    Changed,
    MergeState,
    ReplaceState,
    Sequence,
    SetAttributes,
    SetStatus,
    ShownAttributes,
    ShownLabels,
    Started,
    StartExecution,
)
from service.executions.prepare import prepared
from service.http.batch import Batch, batch
from service.http.endpoint import CURSOR, LIMIT, Call, Endpoint, Query, command, decode
from service.http.lists import Page, listed, straight, where
from service.kernel import filters
from service.kernel.filters import Facet, Field, Vocabulary
from service.kernel.json import check
from service.kernel.raw import shown

VOCABULARY = Vocabulary(
    fields=(
        Field("id", "e.id", "text"),
        Field("status", "e.status", "text", STATUS.statuses, ("completed", "e.status <> 'completed'")),
        Field("namespace", "e.namespace", "text"),
        Field("workflow_id", "e.workflow_id", "text"),
        Field("workflow_type", "e.workflow_id", "text"),
        Field("version", "e.version", "text"),
        Field("queue", "e.queue", "text"),
        Field("task_queue", "e.queue", "text"),
        Field("parent_id", "e.parent_id", "text"),
        Field("created_at", "e.created_at", "time"),
        Field("started_at", "e.started_at", "time"),
        Field("updated_at", "e.updated_at", "time"),
        Field("completed_at", "e.completed_at", "time"),
    ),
    facets=(
        Facet("attr.", has("attr"), "f.text_value", "f.number_value", alone("attr")),
        Facet("label.", has("label"), "f.text_value", "f.number_value", alone("label")),
    ),
)
FAR = 2**62
FEW = STATUS.statuses - {"pending", "running", "completed"}
"""Statuses that fewer executions have than one workflow may have had."""
OF_STATUS = re.compile(r"e\.status = :(\w+)")
EXPECTED = Query("expected_sequence", Sequence, None, "Refuse unless the log ends at this sequence.")
START = msgspec.json.Decoder(StartExecution)


class ListedExecution(msgspec.Struct, frozen=True):
    """An execution in a list: without its documents."""

    execution_id: str
    namespace: str
    workflow_id: str
    version: str | None
    status: str
    queue: str | None
    parent_id: str | None
    segment: int
    sequence: int
    open_items: int
    labels: ShownLabels | None
    attributes: ShownAttributes | None
    created_at: int
    started_at: int | None
    updated_at: int
    completed_at: int | None


class ShownExecution(msgspec.Struct, frozen=True):
    """An execution with its input, state, result and error."""

    execution_id: str
    namespace: str
    workflow_id: str
    version: str | None
    status: str
    queue: str | None
    parent_id: str | None
    segment: int
    sequence: int
    open_items: int
    labels: ShownLabels | None
    attributes: ShownAttributes | None
    result: msgspec.Raw | None
    error: msgspec.Raw | None
    created_at: int
    started_at: int | None
    updated_at: int
    completed_at: int | None
    state: msgspec.Raw
    input: msgspec.Raw | None


class StartedInput(msgspec.Struct):
    """The part of `execution.started` that shows the input."""

    input: msgspec.Raw = msgspec.Raw(b"")


async def start(call: Call) -> Any:
    """Start one execution."""
    return await call.run(await prepared(call, decode(START, call.body)))


async def get(call: Call) -> ShownExecution:
    """One execution."""

    async def read(tx: Tx) -> Row | None:
        return await tx.one("read_execution", tenant_id=call.who.tenant_id, id=call.path["id"])

    row = await call.services.backend.read(read, tenants=call.who.reach)
    if row is None:
        raise not_found("execution", call.path["id"])
    said = msgspec.json.decode(row[19], type=StartedInput).input if row[19] else b""
    texts = [shown(row[index]) for index in (10, 11, 12, 13)]
    state = msgspec.Raw(row[18] or b"{}")
    return ShownExecution(*row[:10], *texts, *row[14:18], state, said or None)  # type: ignore[call-arg]  # as selected


def in_list(row: Row) -> ListedExecution:
    """A row of a list."""
    return ListedExecution(*row[:10], shown(row[10]), shown(row[11]), *row[12:16])  # type: ignore[call-arg]  # as selected


def by_the_rarer(condition: Where) -> Where:
    """SQLite does not know how many rows have a value: where one of the `FEW` is asked for, it goes by the status, in
    whose index the workflows are told apart, and not by the workflow."""
    sql, params = condition
    if any(params[name] in FEW for name in OF_STATUS.findall(sql)):
        sql = sql.replace("e.workflow_id", "/*+*/e.workflow_id")
    return sql, params


async def list_all(call: Call) -> Page:
    """Executions by age or by last change, filtered."""
    query = call.query
    names = ("status", "namespace", "workflow_id", "workflow_type", "task_queue", "version", "parent_id")
    predicate = None if query["filter"] is None else filters.compile(query["filter"], VOCABULARY)
    condition = by_the_rarer(where(predicate, VOCABULARY, **{name: query[name] for name in names}))
    tenant, find = call.who.tenant_id, straight if predicate is None else among(predicate.covers)
    if query["sort"] == "updated":
        return await listed(
            call, "list_executions_updated", (FAR, FAR), ("commit_id", "position"), in_list,
            lambda row: (row[16], row[17]), where=condition, scan=True, find=find, tenant_id=tenant,
        )  # fmt: skip
    statement = "list_executions_oldest" if query["sort"] == "created_asc" else "list_executions"
    first = (0, "") if query["sort"] == "created_asc" else (FAR, "")
    return await listed(
        call,
        statement,
        first,
        ("at", "id"),
        in_list,
        lambda row: (row[16], row[0]),
        where=condition,
        scan=True,
        find=find,
        tenant_id=tenant,
    )


async def replace_state(call: Call) -> Changed:
    """Write the state: the body is the document."""
    check_document(call.body)
    made = ReplaceState(call.path["id"], call.body, call.query["expected_sequence"])
    return await call.run(made)  # type: ignore[no-any-return]


async def merge_state(call: Call) -> Changed:
    """Merge the state: the body is the patch, as `application/json` or `application/merge-patch+json`."""
    check_document(call.body)
    made = MergeState(call.path["id"], call.body, call.query["expected_sequence"])
    return await call.run(made)  # type: ignore[no-any-return]


def check_document(body: bytes) -> None:
    """The body must be one JSON value."""
    check(body)
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except msgspec.DecodeError as error:
        raise StateError("request/json", f"The body is not JSON: {error}.") from None


CHANGE_ERRORS = ("not-found", "execution/terminal", "sequence/mismatch", "limit/events-per-execution")
ENDPOINTS = [
    Endpoint(
        "POST",
        "/v1/executions",
        "startExecution",
        "execution.write",
        "Start an execution",
        start,
        reply=Started,
        body=StartExecution,
        created=True,
        errors=(
            "execution/conflict",
            "not-found",
            "namespace/unknown",
            "namespace/deleting",
            "auth/queue",
            "limit/running-executions",
            "limit/payload-bytes",
            "limit/state-bytes",
            "limit/events-per-execution",
            "limit/ready-work-items",
            "work/conflict",
        ),
    ),
    Endpoint(
        "POST",
        "/v1/executions:batch",
        "startExecutions",
        "execution.write",
        "Start up to 1,000 executions",
        batch(StartExecution, prepared),
        reply=Batch,
        item=Started,
        body=list[StartExecution],
    ),
    Endpoint(
        "GET",
        "/v1/executions",
        "listExecutions",
        "read",
        "List executions",
        list_all,
        reply=Page,
        item=ListedExecution,
        writes=False,
        query=(
            LIMIT,
            CURSOR,
            Query("filter", str, None, "A filter: `status = 'failed' AND attr.customer IN ('a', 'b')`."),
            Query("status", Literal[tuple(sorted(STATUS.statuses))], None, "Only this status."),
            Query("workflow_id", str, None, "Only this workflow."),
            Query("workflow_type", str, None, "The same, in the word of workflows as code."),
            Query("task_queue", str, None, "Only those on this queue."),
            Query("version", str, None, "Only this version."),
            Query("namespace", str, None, "Only this namespace."),
            Query("parent_id", str, None, "Only its children."),
            Query(
                "sort",
                Literal["created", "created_asc", "updated"],
                "created",
                "Newest first, oldest first, or by last change.",
            ),
        ),
    ),
    Endpoint(
        "GET",
        "/v1/executions/{id}",
        "getExecution",
        "read",
        "One execution",
        get,
        reply=ShownExecution,
        writes=False,
        errors=("not-found",),
    ),
    Endpoint(
        "POST",
        "/v1/executions/{id}/status",
        "setExecutionStatus",
        "execution.write",
        "Move an execution to another status",
        command(SetStatus, execution_id="id"),
        reply=Changed,
        body=SetStatus,
        errors=(*CHANGE_ERRORS, "execution/transition", "limit/payload-bytes"),
    ),
    Endpoint(
        "PUT",
        "/v1/executions/{id}/state",
        "replaceState",
        "execution.write",
        "Replace the state",
        replace_state,
        reply=Changed,
        body=Any,
        query=(EXPECTED,),
        errors=(*CHANGE_ERRORS, "limit/state-bytes"),
    ),
    Endpoint(
        "PATCH",
        "/v1/executions/{id}/state",
        "mergeState",
        "execution.write",
        "Merge a patch into the state (RFC 7396)",
        merge_state,
        reply=Changed,
        body=Any,
        query=(EXPECTED,),
        errors=(*CHANGE_ERRORS, "limit/state-bytes"),
    ),
    Endpoint(
        "POST",
        "/v1/executions/{id}/state:append",
        "appendState",
        "execution.write",
        "Append to an array of the state",
        command(AppendState, execution_id="id"),
        reply=Changed,
        body=AppendState,
        errors=(*CHANGE_ERRORS, "state/not-an-array", "state/path", "limit/state-bytes"),
    ),
    Endpoint(
        "PATCH",
        "/v1/executions/{id}/attributes",
        "setAttributes",
        "execution.write",
        "Merge attributes and labels",
        command(SetAttributes, execution_id="id"),
        reply=Changed,
        body=SetAttributes,
        errors=CHANGE_ERRORS,
    ),
]
