"""How alarms are set, put off and rung: pure decisions over the rows of a batch."""

from collections.abc import Iterable
from functools import partial

import msgspec

from service.alarms.model import OF_OWNER, Alarm, Rang, RingAlarms
from service.errors import StateError
from service.executions.model import Execution
from service.kernel.command import Rule
from service.kernel.limits import usage_keys
from service.kernel.principal import Principal, Standing
from service.kernel.tables import Wanted
from service.kernel.view import View
from service.runs.model import Run, Step


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


def ring_keys(command: RingAlarms, who: Principal, standing: Standing) -> Iterable[Wanted]:
    """The alarms and their owner, which is an execution if they belong to a run; then the run, and the steps that the
    alarms are named after, too: what the listeners need, so that they need not ask one after another."""
    owner = who.tenant_id, command.owner_id
    yield Execution, owner
    yield Run, owner
    if "/" in command.owner_id:  # no execution is called so: it may be what starts some
        yield from usage_keys(who.tenant_id, standing, "running_executions")
    for name in command.names:
        kind, _, seq = name.partition(":")
        yield Alarm, (*owner, name)
        if seq.isdecimal():
            yield Step, (*owner, kind, int(seq))


def ring(view: View, command: RingAlarms) -> list[bool | StateError]:
    """Ring each alarm that is still due: whether it rang, or why it cannot; that holds up no other."""
    return [view.attempt(partial(ring_one, view, command.owner_id, name)) for name in command.names]


def ring_one(view: View, owner_id: str, name: str) -> bool:
    """Ring an alarm that is still due; whether it rang."""
    alarm = view.get(Alarm, view.tenant_id, owner_id, name)
    if alarm is None or alarm.due_at > view.now:
        return False  # taken away or put off since it was found
    view.remove(alarm)
    view.tell(Rang(alarm))
    return True


RULES = [Rule(RingAlarms, ring, ring_keys, while_suspended=True)]
