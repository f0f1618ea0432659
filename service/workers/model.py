"""Rows, commands and replies of workers."""

from typing import Annotated

import msgspec

from service.kernel.command import PATH
from service.kernel.ids import Name

QUEUES_OF = "queues_of_worker"
"""The queues of a worker, asked for by (tenant, worker)."""
HEARTBEAT_MS = 10_000
MISSED_MAX = 3
"""A worker is lost when so many heartbeats have not come."""
LOST_MS = 600_000
"""How long a lost worker is still listed."""
LEASES_SHOWN = 100
ID_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_.:@~-]{0,127}$(?!\n)"
Names = Annotated[list[Name], msgspec.Meta(max_length=256)]
ShownNames = Annotated[msgspec.Raw, msgspec.Meta(extra={"shape": list[str]})]
Capacity = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class Worker(msgspec.Struct, frozen=True):
    """A worker; `queues`, `types` and `activities` are JSON arrays of names, `capacities` a JSON object. Its heartbeats
    are `heartbeat_ms` apart, and it is lost at `expires_at` unless it is heard of."""

    tenant_id: str
    id: str
    namespace: str
    identity: str
    queues: str
    types: str
    activities: str
    capacities: str
    build_id: str | None
    heartbeat_ms: int
    registered_at: int
    heartbeat_at: int
    expires_at: int


class WorkerQueue(msgspec.Struct, frozen=True):
    """A queue of a worker, as work items know it."""

    tenant_id: str
    queue: str
    worker_id: str


class RegisterWorker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Say who works: `queues` of a namespace, workflow `types` and `activities` that it can run, how many of each at a
    time (`capacities`), and which build it is. It promises to be heard of every `heartbeat_ms`."""

    queues: Annotated[list[Name], msgspec.Meta(min_length=1, max_length=64)]
    namespace: Name = "main"
    identity: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] | None = None
    types: Names = []
    activities: Names = []
    capacities: Annotated[dict[Name, Capacity], msgspec.Meta(max_length=16)] = {}
    build_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None
    heartbeat_ms: Annotated[int, msgspec.Meta(ge=1_000, le=600_000)] = HEARTBEAT_MS
    id: str = PATH


class BeatWorker(msgspec.Struct, frozen=True):
    """A sign of life."""

    id: str


class ReapWorkers(msgspec.Struct, frozen=True):
    """Forget workers that were lost long enough ago, of any tenant."""

    limit: int = 500


class Heard(msgspec.Struct, frozen=True):
    """Until when the worker counts as alive; its next heartbeat should come `heartbeat_ms` from now."""

    worker_id: str
    heartbeat_ms: int
    expires_at: int
    created: bool = False


class ListedWorker(msgspec.Struct, frozen=True):
    """A worker as it is listed. `status` is `alive`, or `lost` after three missed heartbeats."""

    worker_id: str
    namespace: str
    identity: str
    queues: ShownNames
    types: ShownNames
    activities: ShownNames
    capacities: Annotated[msgspec.Raw, msgspec.Meta(extra={"shape": dict[str, int]})]
    build_id: str | None
    status: str
    heartbeat_ms: int
    registered_at: int
    heartbeat_at: int
    expires_at: int


class HeldLease(msgspec.Struct, frozen=True):
    """A lease of a worker: the item, and until when it holds it."""

    id: str
    execution_id: str | None
    queue: str
    drives: str
    attempt: int
    epoch: int
    expires_at: int


class ShownWorker(ListedWorker, frozen=True):
    """A worker with what it holds: the first hundred leases, and whether there are more."""

    leases: list[HeldLease]
    more_leases: bool
