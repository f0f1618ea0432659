"""The tables of executions, and how they are read for an answer."""

from service.executions.model import FACETS, OF_ITEM, Attributed, Execution, Facet, State
from service.kernel.tables import ONLY_BY_GROUP, Group, Table

TABLES = [
    Table(
        Execution,
        ("tenant_id", "id"),
        20,
        "load_executions",
        "insert_executions",
        "update_executions",
        narrow={"advance_executions": ("status",)},
        blank={"snapshot_sequence": 0, "completed_at": None, "result": None, "error": None},
        paths={OF_ITEM: lambda key: (key[0], None, key[1])},
        wide=1,
        tallied=True,
    ),
    Table(Attributed, ("tenant_id", "id"), 21, "load_attributed", update="update_attributed", guarded=True),
    Table(
        State,
        ("tenant_id", "execution_id"),
        22,
        "load_states",
        "insert_states",
        "update_states",
        guarded=True,
        current=True,
    ),
    Table(
        Facet,
        ("tenant_id", "execution_id", "family", "name"),
        23,
        ONLY_BY_GROUP,
        "insert_facets",
        "update_facets",
        "delete_facets",
        groups=(Group(FACETS, "facets_of_executions", lambda row: (row.tenant_id, row.execution_id)),),
        guarded=True,
    ),
]
