"""When a schedule's occurrences are: pure functions of a spec and a time, in milliseconds since the epoch, UTC.

A cron that names its hours and minutes means times of the day: one that a change of the clocks leaves out comes at the
end of the gap, one that comes twice is taken the first time, so a daily occurrence is once a day. A cron with `*` as
its minutes or hours goes by the time that passes: it matches whenever the wall clock does.

The zones are those of the package `tzdata`, the same in every process, not those of the machine.
"""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from importlib.resources import files
from itertools import islice
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from service.schedules.model import Spec

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST = 7_258_118_400_000  # 2200-01-01: what is later than that never comes
SECOND, WEEK = timedelta(seconds=1), timedelta(days=7)
FIELDS = 5


@lru_cache(maxsize=1)
def zone_names() -> frozenset[str]:
    """Every IANA name that there is."""
    return frozenset((files("tzdata") / "zones").read_text("utf-8").split())


@lru_cache(maxsize=1_024)
def zone(name: str) -> ZoneInfo:
    """The zone of a name of the list."""
    with (files("tzdata") / "zoneinfo").joinpath(*name.split("/")).open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


def problems(spec: Spec) -> list[tuple[str, str]]:
    """Everything that is wrong with a spec: (JSON pointer within it, sentence)."""
    found = []
    if (spec.cron is None) == (spec.every_ms is None):
        found.append(("/cron", "give one of cron and every_ms"))
    if spec.cron is not None and (wrong := wrong_cron(spec.cron)):
        found.append(("/cron", wrong))
    if spec.cron is not None and spec.offset_ms:
        found.append(("/offset_ms", "an offset goes with every_ms; a cron says its minutes itself"))
    if spec.every_ms is not None and spec.offset_ms >= spec.every_ms:
        found.append(("/offset_ms", f"an offset is less than every_ms, which is {spec.every_ms}"))
    if spec.time_zone not in zone_names():
        found.append(("/time_zone", f"{spec.time_zone!r} is no IANA time zone; write it like 'Europe/Berlin'"))
    if spec.start_at is not None and spec.end_at is not None and spec.end_at < spec.start_at:
        found.append(("/end_at", "the end is before the start"))
    return found


def wrong_cron(text: str) -> str | None:
    """What is wrong with a cron: it has five fields, each in its range, and comes at some time."""
    if len(text.split()) != FIELDS:
        return "a cron has five fields: minute, hour, day of the month, month, day of the week"
    try:
        next(CronSim(text, datetime(2000, 1, 1)))
    except CronSimError as error:
        return f"{error}".lower()
    except StopIteration:
        return "no date ever matches this cron"
    return None


def after(spec: Spec, time: int) -> int | None:
    """The first occurrence later than `time`; None when there is none."""
    time = max(time, 0 if spec.start_at is None else spec.start_at - 1)
    if time >= LAST:
        return None
    found = by_interval(spec, time) if spec.cron is None else by_cron(spec.cron, zone(spec.time_zone), time)
    end = LAST if spec.end_at is None else min(LAST, spec.end_at)
    return None if found is None or found > end else found


def occurrences(spec: Spec, time: int) -> Iterator[int]:
    """The occurrences later than `time`, in order."""
    while (found := after(spec, time)) is not None:
        yield (time := found)


def between(spec: Spec, first: int, last: int, most: int) -> list[int]:
    """Up to `most` occurrences from `first` to `last`, both included."""
    found = []
    for time in islice(occurrences(spec, first - 1), most):
        if time > last:
            break
        found.append(time)
    return found


def by_interval(spec: Spec, time: int) -> int:
    """The next multiple of the interval, with the offset, since the epoch."""
    every = spec.every_ms or 1
    return ((time - spec.offset_ms) // every + 1) * every + spec.offset_ms


def by_cron(cron: str, place: ZoneInfo, time: int) -> int | None:
    """The next time that a cron means in a zone."""
    at = EPOCH + timedelta(milliseconds=time)
    minutes, hours = cron.split()[:2]
    wild = minutes.startswith("*") or hours.startswith("*")
    found = passing(cron, place, at) if wild else daily(cron, place, at)
    return None if found is None else (found - EPOCH) // timedelta(milliseconds=1)


def walls(cron: str, wall: datetime) -> Iterator[datetime]:
    """The wall times later than `wall` that a cron matches, as if clocks never changed."""
    return CronSim(cron, wall)


def offset(place: ZoneInfo, at: datetime) -> timedelta:
    """How far the zone's clocks are ahead of UTC at a time."""
    return at.astimezone(place).utcoffset() or timedelta()


def wall_of(place: ZoneInfo, at: datetime) -> datetime:
    """What the zone's clocks show at a time."""
    return at.astimezone(place).replace(tzinfo=None, fold=0)


def daily(cron: str, place: ZoneInfo, at: datetime) -> datetime | None:
    """The next of a cron's times of the day, each once."""
    for wall in walls(cron, wall_of(place, at)):
        if (found := once(place, wall)) > at:
            return found
    return None


def once(place: ZoneInfo, wall: datetime) -> datetime:
    """The first time at which clocks show `wall`; where they never do, the end of that gap."""
    early, late = (wall.replace(tzinfo=place, fold=fold).astimezone(UTC) for fold in (0, 1))
    return change(place, late, early) or early if late < early else early


def passing(cron: str, place: ZoneInfo, at: datetime) -> datetime | None:
    """The next time at which clocks show what a cron matches: looked for between one change of clocks and the next."""
    ahead = offset(place, at)
    wall = since = (at + ahead).replace(tzinfo=None)
    found = next(walls(cron, wall), None)
    while found is not None:
        there = found.replace(tzinfo=UTC) - ahead
        changed = change(place, at, there)
        if changed is None:
            return there
        at, ahead = changed, offset(place, changed)
        wall = (at + ahead).replace(tzinfo=None) - SECOND
        if not since <= wall < found:  # else nothing lies between them, and of what comes rarely to look takes long
            since, found = wall, next(walls(cron, wall), None)
    return None


def change(place: ZoneInfo, start: datetime, end: datetime) -> datetime | None:
    """The first change of clocks after `start`, up to `end`, to the second; None if there is none."""
    before = offset(place, start)
    while start < end:
        step = min(start + WEEK, end)
        if offset(place, step) != before:
            return halved(place, start.replace(microsecond=0), step)
        start = step
    return None


def halved(place: ZoneInfo, start: datetime, end: datetime) -> datetime:
    """The second at which the offset stops being that of `start`; at `end` it has."""
    before, low, high = offset(place, start), 0, -((start - end) // SECOND)
    while high - low > 1:
        middle = (low + high) // 2
        if offset(place, start + middle * SECOND) == before:
            low = middle
        else:
            high = middle
    return start + high * SECOND


def jitter(schedule_id: str, spec: Spec, nominal: int) -> int:
    """How much later than its nominal time an occurrence starts: chance, but the same for whoever asks."""
    if not spec.jitter_ms:
        return 0
    drawn = hashlib.blake2b(f"{schedule_id}\n{nominal}".encode(), digest_size=8).digest()
    return int.from_bytes(drawn, "big") % spec.jitter_ms


def stamp(nominal: int) -> str:
    """A nominal time as part of an id: `20261025T023000000Z`."""
    at = EPOCH + timedelta(milliseconds=nominal)
    return f"{at:%Y%m%dT%H%M%S}{at.microsecond // 1000:03}Z"
