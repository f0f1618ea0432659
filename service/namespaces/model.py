"""Rows, commands and replies of namespaces."""

from typing import Annotated

import msgspec

from service.executions.model import NAMESPACE
from service.kernel.ids import Name

BY_NAME = NAMESPACE
"""A namespace, asked for by (tenant, name) by whoever makes something in it."""
DELETE_JOB = "namespace.delete"
COUNTED_MAX = 5_000
"""Open work, schedules and workers are counted up to so many: what a reader needs, at a cost that does not grow."""
Note = Annotated[str, msgspec.Meta(max_length=1024)] | None


class Namespace(msgspec.Struct, frozen=True):
    """A namespace other than `main`; `job_id` is the job that takes it away, once it is `deleting`."""

    tenant_id: str
    name: str
    note: str | None
    status: str
    job_id: str | None
    created_at: int


class NamespaceTurn(msgspec.Struct, frozen=True):
    """The right to delete a namespace: its row, locked against starts."""

    tenant_id: str
    name: str


class OpenIn(msgspec.Struct, frozen=True):
    """How many executions of a namespace have not ended, this batch's included, counted up to a thousand."""

    tenant_id: str
    name: str
    count: int


class CreateNamespace(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Make a namespace; the note says what it is for."""

    name: Name
    note: Note = None


class DeleteNamespace(msgspec.Struct, frozen=True):
    """Close a namespace in which nothing runs, and have everything that is in it taken away."""

    name: str


class Emptying(msgspec.Struct, frozen=True):
    """What the job that takes a namespace away knows."""

    namespace: str


class ShownNamespace(msgspec.Struct, frozen=True):
    """A namespace as it is answered; `status` is `active` or `deleting`."""

    name: str
    note: str | None
    status: str
    job_id: str | None
    created_at: int
    created: bool = False


class OpenWork(msgspec.Struct, frozen=True):
    """Open work of one kind: what may be claimed now, what was put off, what workers hold."""

    ready: int
    delayed: int
    leased: int


class NamespaceStats(msgspec.Struct, frozen=True):
    """How a namespace stands. `executions` is exact to the last commit, by status. The rest is counted up to 5,000
    of each; `at_least` names what was cut there, such as `schedules` or `ready`."""

    name: str
    executions: dict[str, int]
    workflow_tasks: OpenWork
    activities: OpenWork
    other_work: OpenWork
    schedules: int
    workers: int
    at_least: list[str]
