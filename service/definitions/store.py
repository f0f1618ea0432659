"""The tables of definitions."""

from service.definitions.model import Definition, DefinitionTurn, InUse, Workflow
from service.kernel.tables import Table

TABLES = [
    Table(Workflow, ("tenant_id", "workflow_id"), 12, "load_workflows", "insert_workflows", "update_workflows"),
    Table(DefinitionTurn, ("tenant_id", "workflow_id", "version"), 12, "lock_definitions"),
    Table(
        Definition,
        ("tenant_id", "workflow_id", "version"),
        13,
        "load_definitions",
        "insert_definitions",
        delete="delete_definitions",
    ),
    Table(InUse, ("tenant_id", "workflow_id", "version"), 14, "count_uses"),
]
