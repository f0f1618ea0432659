"""The tables of work."""

from backends.protocol import Row
from service.kernel.tables import Group, Heirs, Key, Table
from service.work.model import BY_DEDUP, OPEN, OPEN_ITEMS, Queue, Shelf, WorkItem, channel_to


def of_execution(item: WorkItem) -> Key | None:
    """The group of an execution's open items that an item belongs to."""
    return (item.tenant_id, item.execution_id) if item.execution_id and item.status in OPEN else None


def of_dedup_key(item: WorkItem) -> Key | None:
    """The group of its dedup key, while it is open."""
    return (item.tenant_id, item.dedup_key) if item.dedup_key and item.status in OPEN else None


def heir(row: Row) -> tuple[Key, str]:
    """Of a shelf on which something waits for a concurrency key: that key, and where claims wait for the shelf."""
    tenant, key, queue, requires = row
    return (tenant, key), channel_to(tenant, queue, requires)


def happened(before: WorkItem | None, after: WorkItem | None) -> Key | None:
    """What a commit did to an item as its queue's rates count it: tenant, queue, and one of `HAPPENED`; None for what
    they do not count (a release, a renewal, a cancel)."""
    if after is None or (before is not None and before.status == after.status):
        return None
    if before is None or (before.status == "dead" and after.status in OPEN):
        what = "enqueued"
    elif after.status in WHAT:
        what = WHAT[after.status]
    elif before.status == "leased" and after.status in OPEN and after.attempt == before.attempt:
        what = "failed"  # to be tried again; a release gives the attempt back
    else:
        return None
    return after.tenant_id, after.queue, what


WHAT = {"leased": "claimed", "completed": "completed", "dead": "failed"}
ATTEMPT = ("attempt", "ready_at", "worker_id", "lease_ms")
SETTLED = ("settled_at", "result", "settle_digest", "settle_reply", "cancel_requested_at")
NEVER_LEASED = (
    "worker_id", "token_id", "lease_ms", "expires_at", "progress", "errors", "error_type", "settle_digest",
    "settle_reply", "cancel_requested_at", "settled_at", "result",
)  # fmt: skip
REMEMBERED_MS = 30_000
"""How long a process remembers a shelf: half of what a tenant or a namespace that is deleted waits before its name is
free again, for clocks differ, and a batch goes by the time at which it began."""
TABLES = [
    Table(
        WorkItem,
        ("tenant_id", "id"),
        30,
        "load_work_items",
        "insert_work_items",
        "update_work_items",
        narrow={
            "settle_work_items": ("epoch", *ATTEMPT, "progress", "errors", "payload"),
            "lease_work_items": ("ready_at", "progress", "errors", *SETTLED),
        },
        blank={"attempt": 0, "epoch": 0} | dict.fromkeys(NEVER_LEASED),
        groups=(
            Group(OPEN_ITEMS, "open_items_of_executions", of_execution),
            Group(BY_DEDUP, "open_items_by_dedup_key", of_dedup_key),
        ),
        heirs=Heirs("shelves_of_keys", heir),
        metered=happened,
        guarded=True,
        current=True,
    ),
    Table(Shelf, ("tenant_id", "queue", "requires"), 40, "load_shelves", "insert_shelves", lasting_ms=REMEMBERED_MS),
    Table(Queue, ("tenant_id", "name"), 41, "load_queues", "insert_queues", "update_queues"),
]
