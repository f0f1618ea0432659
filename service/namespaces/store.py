"""The table of namespaces, and how many of their executions are open."""

from service.kernel.tables import Table
from service.namespaces.model import BY_NAME, Namespace, NamespaceTurn, OpenIn

TABLES = [
    Table(NamespaceTurn, ("tenant_id", "name"), 3, "lock_namespaces"),
    Table(
        Namespace,
        ("tenant_id", "name"),
        4,
        "load_namespaces",
        "insert_namespaces",
        "update_namespaces",
        paths={BY_NAME: lambda key: key},
    ),
    Table(OpenIn, ("tenant_id", "name"), 5, "count_open_in_namespaces"),
]
