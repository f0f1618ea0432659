"""How alarms are set, put off and rung: pure decisions over the rows of a batch."""

from collections.abc import Iterable

import msgspec

from service.alarms.model import OF_OWNER, Alarm, Rang, RingAlarm
from service.executions.model import Execution
from service.kernel.command import Rule
from service.kernel.principal import Principal, Standing
from service.kernel.tables import Wanted
from service.kernel.view import View


def set_alarm(
    view: View,
    tenant_id: str,
    owner_id: str,
    name: str,
    due_at: int,
    detail: bytes | None = None,
    *,
    new: bool = False,
) -> bool:
    """Let `name` ring at `due_at`, or move it there; whether it is new. With `new` nobody looks: it cannot be there."""
    before = None if new else view.get(Alarm, tenant_id, owner_id, name)
    if before is None:
        view.add(Alarm(tenant_id, owner_id, name, due_at, detail))
        return True
    view.put(msgspec.structs.replace(before, due_at=due_at, detail=detail))
    return False


def disarm(view: View, tenant_id: str, owner_id: str, name: str) -> bool:
    """Take an alarm away; whether there was one."""
    found = view.get(Alarm, tenant_id, owner_id, name)
    if found is not None:
        view.remove(found)
    return found is not None


def disarm_all(view: View, tenant_id: str, owner_id: str) -> None:
    """Take all the alarms of an owner away."""
    for alarm in view.group(Alarm, OF_OWNER, tenant_id, owner_id):
        view.remove(alarm)


def ring_keys(command: RingAlarm, who: Principal, _standing: Standing) -> Iterable[Wanted]:
    """The alarm and its owner, which is an execution if the alarm belongs to a run."""
    yield Alarm, (who.tenant_id, command.owner_id, command.name)
    yield Execution, (who.tenant_id, command.owner_id)


def ring(view: View, command: RingAlarm) -> bool:
    """Ring an alarm that is still due; whether it rang."""
    alarm = view.get(Alarm, view.tenant_id, command.owner_id, command.name)
    if alarm is None or alarm.due_at > view.now:
        return False  # taken away or put off since it was found
    view.remove(alarm)
    view.tell(Rang(alarm))
    return True


RULES = [Rule(RingAlarm, ring, ring_keys, while_suspended=True)]
