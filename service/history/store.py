"""The tables of the log and its snapshots. Events are only inserted, by the kernel; here they are read for a fold."""

from service.history.model import LATEST, TAIL, WHOLE, LoggedEvent, Snapshot
from service.kernel.tables import ONLY_BY_GROUP, Group, Table

TABLES = [
    Table(
        Snapshot,
        ("tenant_id", "execution_id", "sequence"),
        50,
        ONLY_BY_GROUP,
        "insert_snapshots",
        delete="delete_snapshots",
        groups=(Group(LATEST, "kept_snapshots", lambda row: (row.tenant_id, row.execution_id)),),
        guarded=True,
    ),
    Table(
        LoggedEvent,
        ("tenant_id", "execution_id", "sequence"),
        51,
        "load_events",
        groups=(
            Group(TAIL, "events_since_snapshots", lambda row: (row.tenant_id, row.execution_id)),
            Group(WHOLE, "events_of_executions", lambda row: (row.tenant_id, row.execution_id)),
        ),
        guarded=True,
    ),
]
