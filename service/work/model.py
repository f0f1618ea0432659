"""Rows, commands and replies of work items, leases and dead letters."""

from typing import Annotated, Literal

import msgspec

from service.kernel.command import PATH
from service.kernel.ids import Id, Name, QueueGlob
from service.kernel.raw import ABSENT

OPEN = ("ready", "delayed", "leased")
YEAR_MS = 31_536_000_000
BACKOFF_MS_MAX = 604_800_000
Moment = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1, description="milliseconds since the epoch, UTC")]
Delay = Annotated[int, msgspec.Meta(ge=0, le=YEAR_MS)]
Span = Annotated[int, msgspec.Meta(ge=1, le=10 * YEAR_MS, description="milliseconds, at most ten years")]
Epoch = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
LeaseMs = Annotated[int, msgspec.Meta(ge=1_000, le=3_600_000)]
Attempts = Annotated[int, msgspec.Meta(ge=1, le=1_000)]
Priority = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
Capabilities = Annotated[list[Name], msgspec.Meta(max_length=32)]
ErrorType = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
LEASE_MS = 30_000
ERRORS_KEPT, ERRORS_BYTES = 100, 262_144

REDRIVE_JOB = "work.redrive"

OPEN_ITEMS = "open_items"
"""The items of an execution that have not ended, asked for by (tenant, execution)."""
HAPPENED = ("enqueued", "claimed", "completed", "failed")
"""What is counted of the items of a queue, for its rates."""
BUCKET_MS, RATES_MS, SETTLED_MS = 10_000, 60_000, 5_000
"""Rates are counted ten seconds at a time, and told of the last sixty that ended long enough ago that every process has
said what it did in them."""
BY_DEDUP = "open_item_by_dedup_key"
"""The open item with a dedup key, asked for by (tenant, key)."""


class Retry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a failed attempt is retried: attempt n+1 comes after `initial_delay_ms` (`fixed`), that times n (`linear`) or
    that times `coefficient`^(n-1) (`exponential`), at most `max_delay_ms`; with `jitter`, after less, by chance."""

    backoff: Literal["fixed", "linear", "exponential"] = "exponential"
    initial_delay_ms: Annotated[int, msgspec.Meta(ge=0, le=86_400_000)] = 1_000
    coefficient: Annotated[float, msgspec.Meta(ge=1, le=100)] = 2.0
    max_delay_ms: Annotated[int, msgspec.Meta(ge=0, le=BACKOFF_MS_MAX)] = 300_000
    jitter: bool = True
    non_retryable: Annotated[list[ErrorType], msgspec.Meta(max_length=64)] = []


DEFAULT_RETRY = Retry()
MAX_ATTEMPTS = 3
"""How an item is retried that does not say it, and how often it is tried."""


class WorkError(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What went wrong in an attempt."""

    type: ErrorType
    message: Annotated[str, msgspec.Meta(max_length=16_384)] = ""
    details: msgspec.Raw = ABSENT


class ShownError(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error of an attempt as it is kept and shown: which attempt, when, and whose."""

    type: str
    message: str = ""
    details: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    attempt: int | None = None
    at: int | None = None
    worker_id: str | None = None


ShownErrors = Annotated[msgspec.Raw, msgspec.Meta(extra={"shape": list[ShownError]})]


class ShownLease(msgspec.Struct, frozen=True):
    """Who holds an item, under which epoch and until when."""

    worker_id: str
    epoch: int
    expires_at: int


class WorkItem(msgspec.Struct, frozen=True):
    """A work item without its payload, which only a claim reads and only an enqueue or requeue writes."""

    tenant_id: str
    id: str
    execution_id: str | None
    node_id: str | None
    queue: str
    requires: str
    drives: str
    priority: int
    ready_at: int
    attempt: int
    max_attempts: int
    retry: bytes | None
    dedup_key: str | None
    concurrency_key: str | None
    status: str
    worker_id: str | None
    token_id: str | None
    epoch: int
    lease_ms: int | None
    expires_at: int | None
    progress: bytes | None
    errors: bytes | None
    error_type: str | None
    digest: str
    settle_digest: str | None
    settle_reply: bytes | None
    cancel_requested_at: int | None
    created_at: int
    settled_at: int | None
    payload: bytes | None = None
    result: bytes | None = None


class Shelf(msgspec.Struct, frozen=True):
    """A queue and one set of required capabilities; claims look for items shelf by shelf."""

    tenant_id: str
    queue: str
    requires: str


class Queue(msgspec.Struct, frozen=True):
    """A queue that was paused or annotated; one without a row is simply open."""

    tenant_id: str
    name: str
    paused_at: int | None
    note: str | None
    created_at: int


class Enqueue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something for a worker to do. `ready_at` or `delay_ms` puts it off; `dedup_key` makes an equal open item stand
    for it; of the items with one `concurrency_key` at most one is leased at a time."""

    queue: Name = "default"
    id: Id | None = None
    node_id: Name | None = None
    drives: Literal["nothing", "execution"] = "nothing"
    payload: msgspec.Raw = ABSENT
    priority: Priority = 0
    ready_at: Moment | None = None
    delay_ms: Delay = 0
    max_attempts: Attempts | None = None
    retry: Retry | None = None
    required_capabilities: Capabilities = []
    dedup_key: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] | None = None
    concurrency_key: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] | None = None


class EnqueueWork(Enqueue, frozen=True, forbid_unknown_fields=True):
    """Enqueue an item, of an execution or on its own."""

    execution_id: Id | None = None


LEASE_AT_MOST = "lease-ms:"
"""Begins the `node_id` of a workflow task that is leased for at most so long at a time: `lease-ms:5000`."""
MAIN = "main"
"""The namespace that every tenant has."""
TASKS_ALONE = "|"
"""Among the capabilities of a claim: it is for tasks, and plain items are not for it. No caller can say it."""
OF_TASKS = ("workflow:", "activity:")
"""How the capability begins that a task requires: what its worker said that it can run."""
TASKS = frozenset({"activity", "decision"})
"""What is settled by a capability of its own, which tells of it in its own words: no event of work is appended."""


class Task(Enqueue, frozen=True, forbid_unknown_fields=True):
    """An item that the service itself enqueues for an execution, settled by the capability that made it."""

    drives: Literal["activity", "decision"] = "activity"  # type: ignore[assignment]
    max_attempts: int | None = None


def queue_in(namespace: str, queue: str) -> str:
    """A queue of a namespace as work items know it: those of others than `main` have their namespace before them."""
    return queue if namespace == MAIN else f"{namespace}|{queue}"


def apart(queue: str) -> tuple[str, str]:
    """The namespace of a queue as work items know it, and its own name."""
    namespace, mark, name = queue.partition("|")
    return (namespace, name) if mark else (MAIN, queue)


def channel_of(item: "WorkItem") -> str:
    """Where claims wait for such an item: of its queue, with the capabilities that it requires."""
    return channel_to(item.tenant_id, item.queue, item.requires)


def channel_to(tenant_id: str, queue: str, requires: str) -> str:
    """Where claims wait for what stands on a shelf."""
    return f"work/{tenant_id}/{queue}/{requires}"


def key_of(item: "WorkItem") -> tuple[str, str] | None:
    """Its concurrency key, which is its tenant's; None if it has none."""
    return None if item.concurrency_key is None else (item.tenant_id, item.concurrency_key)


def shown_status(status: str) -> str:
    """`delayed` is ours: to the caller an item is ready, at `ready_at`."""
    return "ready" if status == "delayed" else status


class Enqueued(msgspec.Struct, frozen=True):
    """The item that an enqueue led to; `created` is false when it was there before."""

    id: str
    status: str
    ready_at: int
    created: bool
    sequence: int | None = None


class ClaimWork(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ask for items of some queues, up to 16 of them globs. With `wait_ms` the answer waits for work that long."""

    worker_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    queues: Annotated[list[QueueGlob], msgspec.Meta(min_length=1, max_length=64)]
    max_items: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 1
    lease_ms: LeaseMs = LEASE_MS
    capabilities: Capabilities = []
    wait_ms: Annotated[int, msgspec.Meta(ge=0, le=60_000)] = 0
    namespace: Name = MAIN


class Claimed(msgspec.Struct, frozen=True):
    """One item as its holder sees it."""

    id: str
    execution_id: str | None
    node_id: str | None
    queue: str
    drives: str
    payload: msgspec.Raw
    priority: int
    attempt: int
    max_attempts: int
    epoch: int
    expires_at: int
    progress: msgspec.Raw


class Claims(msgspec.Struct, frozen=True):
    """What a claim got, best first; empty when there is nothing."""

    items: list[Claimed]

    @property
    def nothing_happened(self) -> bool:
        """An empty claim changed nothing."""
        return not self.items


class RenewLease(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Keep a lease: it then ends at now + `lease_ms` (default: as claimed). `progress` is kept and handed to the next
    holder."""

    epoch: Epoch
    lease_ms: LeaseMs | None = None
    progress: msgspec.Raw = ABSENT
    id: str = PATH


class Renewed(msgspec.Struct, frozen=True):
    """The lease's new end, and whether its work was asked to stop."""

    id: str
    epoch: int
    expires_at: int
    cancel_requested: bool


class CompleteWork(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settle an item as done."""

    epoch: Epoch
    result: msgspec.Raw = ABSENT
    id: str = PATH


class FailWork(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settle an attempt as failed: retried with backoff, or dead-lettered when attempts are used up or it cannot be
    retried."""

    epoch: Epoch
    error: WorkError
    retryable: bool = True
    id: str = PATH


class ReleaseWork(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hand an item back unworked; the attempt does not count."""

    epoch: Epoch
    delay_ms: Delay = 0
    id: str = PATH


class DeadLetterWork(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Take an item out for good: by its holder (with the epoch) or, without one, by an operator."""

    error: WorkError
    epoch: Epoch | None = None
    id: str = PATH


class Settled(msgspec.Struct, frozen=True):
    """How an item stands after it was settled. `outcome`: completed, retry_scheduled, dead_lettered, released or
    cancelled; of a dead letter requeued or discarded. `ready_at` is there if it is to be claimed again."""

    id: str
    outcome: str
    status: str
    attempt: int
    ready_at: int | None = None
    execution_id: str | None = None
    execution_status: str | None = None
    sequence: int | None = None


class RequeueDead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Give a dead letter another life: attempts start again, the payload may be replaced."""

    payload: msgspec.Raw = ABSENT
    delay_ms: Delay = 0
    id: str = PATH


class RedriveDead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Requeue every dead letter that matches, as a job; with `dry_run`, only count them."""

    filter: Annotated[str, msgspec.Meta(min_length=1, max_length=2_000)] | None = None
    queue: Name | None = None
    error_type: ErrorType | None = None
    rate_per_second: Annotated[int, msgspec.Meta(ge=1, le=10_000)] | None = None
    dry_run: bool = False


class Redriving(msgspec.Struct, frozen=True):
    """How many dead letters matched, and the job that requeues them; none for a dry run."""

    count: int
    job_id: str | None
    created: bool


class Redrive(msgspec.Struct, frozen=True):
    """What the job knows: which dead letters it takes (those that were dead at `until`), the last one that it looked
    at, and what became of them."""

    filter: str | None
    queue: str | None
    error_type: str | None
    rate_per_second: int | None
    until: int = 0
    at: int = 0
    after: str = ""
    requeued: int = 0
    skipped: int = 0


class StartRedrive(msgspec.Struct, frozen=True):
    """Begin to redrive the `total` dead letters that match."""

    detail: Redrive
    total: int


class Letter(msgspec.Struct, frozen=True):
    """A dead letter of a page."""

    settled_at: int
    id: str
    dedup_key: str | None


class RedrivePage(msgspec.Struct, frozen=True):
    """One page of a redrive, read from `position` (time, id) on: the dead letters up to `end` that match; `last` if
    nothing follows it."""

    job_id: str
    position: tuple[int, str]
    letters: tuple[Letter, ...]
    end: tuple[int, str]
    last: bool


class DiscardDead(msgspec.Struct, frozen=True):
    """Put a dead letter away: it is no longer listed."""

    id: str


class PauseQueue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Stop (or go on) handing out a queue's items; leases that are out go on."""

    note: Annotated[str, msgspec.Meta(max_length=1024)] | None = None
    paused: bool | None = None
    name: str = PATH


class ReclaimLeases(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Take back leases that ran out, of any tenant."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 100


class ReclaimedItem(msgspec.Struct, frozen=True):
    """An item that was taken back: ids only."""

    tenant_id: str
    id: str
    epoch: int
    attempt: int


class Reclaimed(msgspec.Struct, frozen=True):
    """What a reclaim took back: for another attempt, or as dead letters."""

    retryable: list[ReclaimedItem]
    exhausted: list[ReclaimedItem]


class PromoteDue(msgspec.Struct, frozen=True):
    """Move delayed items whose time has come onto the ready shelves."""

    limit: int = 1_000


class TasksWithdrawn(msgspec.Struct, frozen=True):
    """Fact: somebody has cancelled tasks of an execution that goes on; told once, with all of them."""

    items: list[WorkItem]


class WorkSettled(msgspec.Struct, frozen=True):
    """Fact: an item has ended. `outcome` is completed, failed or cancelled."""

    item: WorkItem
    outcome: str
    result: bytes | None
    error: bytes | None


class TasksLeased(msgspec.Struct, frozen=True):
    """Fact: these tasks are handed to a worker, all by one claim; they are as they were before."""

    items: list[WorkItem]


class LeasesExpired(msgspec.Struct, frozen=True):
    """Fact: these leases may have run out and are about to be judged; whoever hears it says which rows it will need."""

    items: list[WorkItem]


class TaskPutBack(msgspec.Struct, frozen=True):
    """Fact: a task is on its shelf again, for another attempt at its `ready_at`."""

    item: WorkItem
