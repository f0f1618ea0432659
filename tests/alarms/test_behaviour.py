"""Alarms: each rings once, in the order of their times, and not once it was moved or taken away."""

import msgspec
import pytest

from backends.statements import load
from service import capabilities
from service.alarms import rules as alarms
from service.alarms import sweeps
from service.alarms.model import Alarm, Rang, RingAlarms
from service.alarms.sweeps import ring_due
from service.errors import StateError
from service.kernel.command import Rule
from service.kernel.principal import internal
from service.kernel.run import Kernel
from service.kernel.view import View
from service.kernel.working_set import Schema
from tests.conftest import Api, Clock


class Arrange(msgspec.Struct, frozen=True):
    """Set alarms of `owner` (name → time), or take some away, or all."""

    owner: str
    times: dict[str, int] = {}
    away: tuple[str, ...] = ()
    every: bool = False


def arrange(view: View, command: Arrange) -> list[bool]:
    """What was new, or was there."""
    if command.every:
        alarms.disarm_all(view, view.tenant_id, command.owner)
    new = [alarms.set_alarm(view, view.tenant_id, command.owner, name, at) for name, at in command.times.items()]
    return new + [alarms.disarm(view, view.tenant_id, command.owner, name) for name in command.away]


class Bells:
    """A kernel whose only listener writes down what rang; what it hears may take another alarm away."""

    def __init__(self, api: Api) -> None:
        self.api, self.heard, self.silences = api, list[str](), dict[str, str]()
        tables = list(capabilities.schema().order)
        statements = load("sqlite")
        schema = Schema(tables, {Rang: [self.rang]}, lambda name: statements[name].columns)
        rules = {RingAlarms: alarms.RULES[0], Arrange: Rule(Arrange, arrange)}
        self.kernel = Kernel(api.service.services.backend, schema, rules)

    def rang(self, view: View, fact: Rang) -> None:
        """Listen, for this test's tenant only."""
        if fact.alarm.tenant_id == self.api.tenant:
            if fact.alarm.name == "broken":
                raise StateError("server/error", "This one cannot ring.")
            self.heard.append(fact.alarm.name)
            if (name := self.silences.get(fact.alarm.name)) is not None:
                alarms.disarm(view, fact.alarm.tenant_id, fact.alarm.owner_id, name)

    async def arrange(self, owner: str = "o", **said: object) -> list[bool]:
        """Set or take away."""
        made = msgspec.convert({"owner": owner} | said, Arrange)
        return list(await self.kernel.run(internal(self.api.tenant), made))

    async def ring(self) -> list[str]:
        """What rings now."""
        self.heard.clear()
        await ring_due(self.api.service.services.backend, self.kernel)
        return list(self.heard)


async def test_an_alarm_rings_once_and_not_before_its_time(api: Api, clock: Clock) -> None:
    bells = Bells(api)
    assert await bells.arrange(times={"a": clock.now + 10}) == [True]
    assert await bells.ring() == []
    clock.advance(10)
    assert await bells.ring() == ["a"]
    assert await bells.ring() == []


async def test_alarms_of_an_owner_ring_in_the_order_of_their_times(api: Api, clock: Clock) -> None:
    """However many there are, and whoever else's ring between them."""
    bells, count = Bells(api), 2 * sweeps.TOGETHER + 7
    names = [f"a{n:03}" for n in range(count)]
    await bells.arrange(times={name: clock.now + count - n for n, name in enumerate(names)})
    await bells.arrange("other", times={"middle": clock.now + count // 2, "last": clock.now + count})
    clock.advance(count)
    rang = await bells.ring()
    assert [name for name in rang if name in names] == names[::-1]
    assert [name for name in rang if name not in names] == ["middle", "last"]


async def test_an_alarm_that_is_moved_rings_at_its_new_time(api: Api, clock: Clock) -> None:
    bells = Bells(api)
    await bells.arrange(times={"a": clock.now + 1})
    assert await bells.arrange(times={"a": clock.now + 5}) == [False]
    clock.advance(1)
    assert await bells.ring() == []
    clock.advance(4)
    assert await bells.ring() == ["a"]


async def test_alarms_that_are_taken_away_do_not_ring(api: Api, clock: Clock) -> None:
    bells = Bells(api)
    await bells.arrange(times={"a": clock.now, "b": clock.now})
    await bells.arrange("other", times={"c": clock.now, "d": clock.now})
    assert await bells.arrange(away=["a", "unknown"]) == [True, False]
    await bells.arrange("other", every=True)
    assert await bells.ring() == ["b"]


async def test_one_alarm_may_silence_another_that_is_due(api: Api, clock: Clock) -> None:
    bells = Bells(api)
    await bells.arrange(times={"first": clock.now - 2, "second": clock.now - 1})
    bells.silences["first"] = "second"
    assert await bells.ring() == ["first"]
    assert await bells.ring() == []


async def test_an_alarm_that_cannot_ring_holds_up_no_other(
    api: Api, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeps, "PAGE", 2)
    bells = Bells(api)
    await bells.arrange(times={"broken": clock.now - 9} | {f"a{n}": clock.now - 5 + n for n in range(5)})
    with pytest.raises(StateError):
        await bells.ring()
    assert bells.heard == [f"a{n}" for n in range(5)]
    await bells.arrange(away=["broken"])


def test_the_kind_of_an_alarm_is_the_first_part_of_its_name() -> None:
    assert Alarm("t", "o", "timer:7", 0).kind == "timer"
