"""How alarms are set, put off and rung: pure decisions over the rows of a batch."""

import msgspec

from service.alarms.claims import DUE
from service.alarms.model import OF_OWNER, Alarm, Rang, RingAlarms
from service.kernel.command import Rule
from service.kernel.view import View


def set_alarm(view: View, tenant_id: str, owner_id: str, name: str, due_at: int, detail: bytes | None = None) -> bool:
    """Let `name` ring at `due_at`, or move it there; whether it is new."""
    before = view.get(Alarm, tenant_id, owner_id, name)
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


def ring(view: View, _command: RingAlarms) -> int:
    """Ring every chosen alarm that is still due, in the order of their times; how many rang."""
    due = sorted((one for one in view.pick(Alarm) if one.due_at <= view.now), key=lambda one: (one.due_at, one.name))
    for alarm in due:
        now = view.get(Alarm, alarm.tenant_id, alarm.owner_id, alarm.name)
        if now is not None and now.due_at <= view.now:  # an alarm before it may have taken it away
            view.remove(now)
            view.tell(Rang(now))
    return len(due)


RULES = [Rule(RingAlarms, ring, chooser=DUE, while_suspended=True)]
