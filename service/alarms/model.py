"""Rows, commands and facts of alarms."""

import msgspec

OF_OWNER = "alarms_of_owner"
"""All the alarms of an owner, asked for by (tenant, owner)."""


class Alarm(msgspec.Struct, frozen=True):
    """What rings at `due_at` (milliseconds); `detail` is its owner's business (JSON)."""

    tenant_id: str
    owner_id: str
    name: str
    due_at: int
    detail: bytes | None = None

    @property
    def kind(self) -> str:
        """Whose it is: the part of the name before the first `:`."""
        return self.name.partition(":")[0]

    @property
    def seq(self) -> int:
        """The counter of the step that it belongs to: the second part of the name."""
        return int(self.name.split(":")[1])


class RingAlarms(msgspec.Struct, frozen=True):
    """Ring alarms of one owner that are still due, in this order: those of a run are in its log as they were due."""

    owner_id: str
    names: tuple[str, ...]


class Rang(msgspec.Struct, frozen=True):
    """Fact: an alarm's time has come; it is gone already."""

    alarm: Alarm
