"""The table of alarms."""

from service.alarms.model import OF_OWNER, Alarm
from service.kernel.tables import Group, Table

TABLES = [
    Table(
        Alarm,
        ("tenant_id", "owner_id", "name"),
        45,
        "load_alarms",
        "insert_alarms",
        "update_alarms",
        "delete_alarms",
        groups=(Group(OF_OWNER, "alarms_of_owners", lambda alarm: (alarm.tenant_id, alarm.owner_id)),),
        guarded=True,
        current=True,
    )
]
