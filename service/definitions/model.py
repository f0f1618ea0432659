"""Rows, commands and replies of definitions."""

from typing import Annotated

import msgspec

from service.work.model import Retry

SNAPSHOT_EVENTS, SNAPSHOT_BYTES, SNAPSHOT_KEEP = 200, 0, 3
"""After how many events, or bytes of their bodies (0: never), a log is folded by itself; how many folds are kept."""
VERSION_MAX = 64
Version = Annotated[str, msgspec.Meta(min_length=1, max_length=VERSION_MAX)]


class StartNode(msgspec.Struct, frozen=True):
    """The node a run begins with, as far as its first work item needs to know."""

    id: str
    kind: str
    max_attempts: int | None = None
    retry: Retry | None = None


class Definition(msgspec.Struct, frozen=True):
    """A stored version without its body. `start` is a `StartNode` as JSON, if the document has one."""

    tenant_id: str
    workflow_id: str
    version: str
    revision: int
    digest: str
    validated: int
    snapshot_events: int
    snapshot_bytes: int
    snapshot_keep: int
    start: bytes | None
    created_at: int
    created_by: str
    body: bytes | None = None


class Workflow(msgspec.Struct, frozen=True):
    """The versions of one workflow taken together: how many were ever stored, the last number given out."""

    tenant_id: str
    workflow_id: str
    revision: int


class StoreDefinition(msgspec.Struct, frozen=True):
    """Store a version: a document that was validated (or is kept as it is) at the edge."""

    workflow_id: str
    version: str
    body: bytes
    digest: str
    validated: bool
    start: bytes | None
    snapshot_events: int = SNAPSHOT_EVENTS
    snapshot_bytes: int = SNAPSHOT_BYTES
    snapshot_keep: int = SNAPSHOT_KEEP


class Stored(msgspec.Struct, frozen=True):
    """A stored version; `created` is false when the same digest was there before."""

    workflow_id: str
    version: str
    digest: str
    revision: int
    created_at: int
    created: bool


class DeleteDefinition(msgspec.Struct, frozen=True):
    """Delete a version that no execution uses."""

    workflow_id: str
    version: str


class DefinitionTurn(msgspec.Struct, frozen=True):
    """The right to delete a version: its row, locked against starts before its uses are counted."""

    tenant_id: str
    workflow_id: str
    version: str


class InUse(msgspec.Struct, frozen=True):
    """How many executions use a version (counted up to a few), those that this batch starts included."""

    tenant_id: str
    workflow_id: str
    version: str
    count: int


class Deleted(msgspec.Struct, frozen=True):
    """What was deleted."""

    workflow_id: str
    version: str


def start_node_of(definition: Definition) -> StartNode | None:
    """The start node of a stored version."""
    return msgspec.json.decode(definition.start, type=StartNode) if definition.start else None
