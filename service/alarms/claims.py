"""What only the database can choose: the alarms whose time has come."""

from collections.abc import Sequence
from typing import Any

from backends.protocol import Row, Tx
from service.alarms.model import Alarm, RingAlarms
from service.executions.model import Execution
from service.kernel.command import Chooser
from service.kernel.principal import Principal
from service.kernel.tables import Key, Wanted


def anywhere(_command: Any, _who: Principal) -> Any:
    """Sweeps of all tenants choose together."""
    return None


async def choose_due(
    tx: Tx, commands: Sequence[RingAlarms], _whos: Sequence[Principal], _taken: set[Key]
) -> list[list[Row]]:
    """Alarms whose time has come, the most overdue first; the first command gets them all."""
    limit = max(command.limit for command in commands)
    return [await tx.all("due_alarms", now=tx.now, limit=limit), *([] for _ in commands[1:])]


def alarm_and_owner(values: Row) -> list[Wanted]:
    """The alarm, and its owner in case it is an execution."""
    tenant, owner, name = values
    return [(Alarm, (tenant, owner, name)), (Execution, (tenant, owner))]


DUE = Chooser(Alarm, anywhere, choose_due, alarm_and_owner)
