"""The table of signals that came with an id."""

from service.kernel.tables import Table
from service.signals.model import Signal

TABLES = [
    Table(
        Signal,
        ("tenant_id", "execution_id", "signal_id"),
        27,
        "load_signals",
        "insert_signals",
        guarded=True,
        current=True,
    )
]
