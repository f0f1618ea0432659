"""What a filter of work items may speak of."""

from service.kernel.filters import Field, Vocabulary

STATUSES = frozenset({"ready", "delayed", "leased", "completed", "dead", "cancelled", "discarded"})
VOCABULARY = Vocabulary(
    fields=(
        Field("queue", "w.queue", "text"),
        Field("status", "w.status", "text", STATUSES),
        Field("error_type", "w.error_type", "text"),
        Field("execution_id", "w.execution_id", "text"),
        Field("node_id", "w.node_id", "text"),
        Field("worker_id", "w.worker_id", "text"),
        Field("concurrency_key", "w.concurrency_key", "text"),
        Field("priority", "w.priority", "int"),
        Field("attempt", "w.attempt", "int"),
        Field("created_at", "w.created_at", "time"),
        Field("settled_at", "w.settled_at", "time"),
        Field("ready_at", "w.ready_at", "time"),
    )
)
