"""Rows, commands and replies of signals."""

from collections.abc import Iterable
from typing import Annotated

import msgspec

from service.executions.model import Execution, StartExecution
from service.kernel.command import PATH
from service.kernel.ids import Id, Name
from service.kernel.raw import ABSENT
from service.kernel.tables import Wanted
from service.runs.model import Command, Run, Seq

SignalId = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class Signal(msgspec.Struct, frozen=True):
    """A signal that came with an id: what it said, and the sequence of its event."""

    tenant_id: str
    execution_id: str
    signal_id: str
    digest: str
    sequence: int


class SendSignal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tell a running workflow something. With `signal_id` a repeat is recognised."""

    payload: msgspec.Raw = ABSENT
    signal_id: SignalId | None = None
    name: str = PATH
    execution_id: str = PATH


class Signalled(msgspec.Struct, frozen=True):
    """The signal's place in the log; `created` is false when it had come before."""

    execution_id: str
    sequence: int
    created: bool


class Told(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The signal of a start that carries one."""

    name: Name
    payload: msgspec.Raw = ABSENT
    signal_id: SignalId | None = None


class SignalWithStart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tell a workflow something, and start it first if it is not there. `start` must name its `execution_id`."""

    start: StartExecution
    signal: Told


class WaitForSignal(Command, frozen=True):
    """Say what the workflow waits for, and perhaps until which timer. Signals that came before are in the log."""

    name: Name
    timer_seq: Seq | None = None


class SignalExternal(Command, frozen=True):
    """Tell another workflow of the tenant something; the log says whether it could be told."""

    kind = "signal"
    seq: Seq
    execution_id: Id
    name: Name
    payload: msgspec.Raw = ABSENT

    def wants(self, tenant_id: str, execution_id: str) -> Iterable[Wanted]:
        """The step, the workflow that is told, and whatever came to it under the signal's id."""
        yield from super().wants(tenant_id, execution_id)
        yield Execution, (tenant_id, self.execution_id)
        yield Run, (tenant_id, self.execution_id)
        yield Signal, (tenant_id, self.execution_id, self.signal_id(execution_id))

    def signal_id(self, execution_id: str) -> str:
        """The id of the signal of this sender."""
        return f"{execution_id}/{self.seq}"


COMMANDS = (WaitForSignal, SignalExternal)
