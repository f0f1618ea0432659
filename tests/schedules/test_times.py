"""When occurrences are, held against a walk through every minute."""

import functools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.schedules import times
from service.schedules.model import Spec
from service.schedules.times import after, between, jitter, problems, stamp, zone

ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "Asia/Kolkata", "UTC")
MINUTE, DAY = 60_000, 86_400_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def ms(at: datetime) -> int:
    """A time in milliseconds."""
    return (at - EPOCH) // timedelta(milliseconds=1)


def local(time: int, name: str) -> str:
    """What the clocks of a zone show."""
    return f"{(EPOCH + timedelta(milliseconds=time)).astimezone(zone(name)):%Y-%m-%d %H:%M%z}"


BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))


def fitting(field: str, low: int, high: int) -> set[int]:
    """The values that match a field of a cron: stars, numbers, ranges, steps, lists."""
    found = set[int]()
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        start, end = (low, high) if span == "*" else (int(first), int(last or (high if step else first)))
        found.update(range(start, end + 1, int(step or 1)))
    return found


def matcher(cron: str) -> Callable[[datetime], bool]:
    """Whether clocks that show a time are at one of the cron."""
    fields = cron.split()
    minute, hour, day, month, weekday = (fitting(field, *bounds) for field, bounds in zip(fields, BOUNDS, strict=True))
    both = "*" in (fields[2][0], fields[4][0])

    def matches(wall: datetime) -> bool:
        if not (wall.minute in minute and wall.hour in hour and wall.month in month):
            return False
        by_day, by_weekday = wall.day in day, wall.isoweekday() % 7 in weekday
        return by_day and by_weekday if both else by_day or by_weekday

    return matches


@functools.cache
def shown(place: ZoneInfo, start: datetime, minutes: int) -> list[tuple[datetime, list[datetime]]]:
    """What the clocks show at each minute from `start` on, and what they had left out before it."""
    found = []
    last = None
    for n in range(minutes):
        wall = (start + timedelta(minutes=n)).astimezone(place).replace(tzinfo=None, fold=0)
        passed = 0 if last is None else (wall - last) // timedelta(minutes=1)
        found.append((wall, [last + timedelta(minutes=m) for m in range(1, passed)] if last else []))
        last = wall
    return found


def walked(cron: str, place: ZoneInfo, start: datetime, minutes: int) -> list[datetime]:
    """The occurrences from `start` on, minute by minute."""
    matches, wild = matcher(cron), "*" in (cron.split()[0][0], cron.split()[1][0])
    found, seen = [], set()
    for n, (wall, gap) in enumerate(shown(place, start, minutes)):
        due = matches(wall) if wild else wall not in seen and any(matches(one) for one in (*gap, wall))
        if due:
            found.append(start + timedelta(minutes=n))
        if not wild:
            seen.update((wall, *gap))
    return found


NUMBER = {
    "minute": st.integers(0, 59), "hour": st.integers(0, 5), "day": st.integers(1, 31), "weekday": st.integers(0, 6),
}  # fmt: skip


def field(name: str, *, star: int) -> st.SearchStrategy[str]:
    """One field of a cron."""
    number = NUMBER[name]
    several = st.lists(number, min_size=1, max_size=3).map(lambda them: ",".join(map(str, them)))
    span = st.tuples(number, number).map(lambda two: f"{min(two)}-{max(two)}")
    stepped = st.integers(1, 40).map(lambda step: f"*/{step}") if name in ("minute", "hour") else st.just("*")
    return st.one_of(*[st.just("*")] * star, several, span, stepped)


CRONS = st.tuples(
    field("minute", star=1), field("hour", star=1), field("day", star=8), st.just("*"), field("weekday", star=8)
).map(" ".join)
CHANGES = [
    ("Europe/Berlin", datetime(2026, 3, 28, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2026, 10, 24, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 3, 7, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 10, 31, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 4, 4, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 10, 3, tzinfo=UTC)),
    ("Africa/Cairo", datetime(2026, 4, 23, tzinfo=UTC)),
    ("Africa/Cairo", datetime(2026, 10, 29, tzinfo=UTC)),
    ("Asia/Kolkata", datetime(2026, 2, 27, tzinfo=UTC)),
]


DRAWN = (CRONS, st.sampled_from(CHANGES), st.integers(0, 1_440), st.integers(0, 59_999))


@settings(max_examples=75, deadline=None)
@given(*DRAWN)
def test_a_cron_means_what_a_walk_through_every_minute_finds(
    cron: str, around: tuple[str, datetime], late: int, ms_late: int
) -> None:
    compare(cron, around, late, ms_late)


@pytest.mark.slow
@settings(max_examples=2_000, deadline=None)
@given(*DRAWN)
def test_two_thousand_crons_mean_what_a_walk_through_every_minute_finds(
    cron: str, around: tuple[str, datetime], late: int, ms_late: int
) -> None:
    compare(cron, around, late, ms_late)


def compare(cron: str, around: tuple[str, datetime], late: int, ms_late: int) -> None:
    """Hold the occurrences of a cron around a change of clocks to a walk through every minute."""
    name, day = around
    if problems(Spec(cron, name)):
        return
    begin = day - timedelta(days=1)  # the walk must have seen what came before
    expected = walked(cron, zone(name), begin, 5 * 1_440)
    first = ms(day) + late * MINUTE + ms_late
    last = ms(begin) + 5 * DAY - MINUTE
    assert between(Spec(cron, name), first, last, 10_000) == [ms(at) for at in expected if ms(at) >= first]


@pytest.mark.parametrize(
    ("name", "day", "shown"),
    [
        ("Europe/Berlin", "2026-03-29", "2026-03-29 03:00+0200"),  # 02:30 is left out
        ("Europe/Berlin", "2026-10-25", "2026-10-25 02:30+0200"),  # comes twice
        ("America/New_York", "2026-03-08", "2026-03-08 03:00-0400"),
        ("America/New_York", "2026-11-01", "2026-11-01 02:30-0500"),
        ("Australia/Lord_Howe", "2026-10-04", "2026-10-04 02:30+1100"),  # from 02:00 to 02:30
        ("Australia/Lord_Howe", "2026-04-05", "2026-04-05 02:30+1030"),
    ],
)
def test_a_daily_half_past_two_comes_once_when_clocks_change(name: str, day: str, shown: str) -> None:
    noon = datetime.fromisoformat(f"{day} 12:00").replace(tzinfo=zone(name))
    found = between(Spec("30 2 * * *", name), ms(noon) - 36 * 60 * MINUTE, ms(noon) + 36 * 60 * MINUTE, 100)
    assert [local(one, name) for one in found if local(one, name).startswith(day)] == [shown]
    assert len(found) == 3


def test_what_comes_twice_and_was_taken_is_not_taken_again_from_within_the_second_time() -> None:
    second = ms(datetime(2026, 10, 25, 1, 10, tzinfo=UTC))  # 02:10 in Berlin, for the second time
    found = after(Spec("30 2 * * *", "Europe/Berlin"), second)
    assert found is not None
    assert local(found, "Europe/Berlin") == "2026-10-26 02:30+0100"


def test_what_comes_once_in_28_years_is_not_looked_for_at_each_change_of_clocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks, walls = [], times.walls
    monkeypatch.setattr(times, "walls", lambda cron, wall: looks.append(wall) or walls(cron, wall))
    found = after(Spec("*/30 * * 2 1#5", "Europe/Berlin"), ms(datetime(2026, 11, 22, tzinfo=UTC)))
    assert found == ms(datetime(2044, 2, 28, 23, tzinfo=UTC)), "the 29th, a Monday, by the clocks there"
    assert len(looks) == 1


@given(st.integers(1_000, 10**9), st.integers(0, 10**9), st.integers(0, 2**42))
def test_an_interval_counts_from_the_epoch(every: int, offset: int, time: int) -> None:
    spec = Spec(every_ms=every, offset_ms=offset % every)
    found = after(spec, time)
    assert found is not None
    assert time < found <= time + every
    assert (found - spec.offset_ms) % every == 0


def test_a_start_and_an_end_bound_a_schedule() -> None:
    spec = Spec(every_ms=1_000, start_at=5_000, end_at=7_000)
    assert between(spec, 0, 100_000, 10) == [5_000, 6_000, 7_000]
    assert after(spec, 7_000) is None


def test_jitter_is_the_same_for_whoever_asks_and_spreads() -> None:
    spec = Spec(every_ms=1_000, jitter_ms=500)
    drawn = [jitter("a", spec, at) for at in range(0, 100_000, 1_000)]
    assert drawn == [jitter("a", spec, at) for at in range(0, 100_000, 1_000)]
    assert len(set(drawn)) > 50
    assert all(0 <= one < 500 for one in drawn)
    assert drawn != [jitter("b", spec, at) for at in range(0, 100_000, 1_000)]


@pytest.mark.parametrize(
    ("spec", "pointers"),
    [
        (Spec("61 * * * *"), ["/cron"]),
        (Spec("* * * *"), ["/cron"]),
        (Spec("0 * * * * *"), ["/cron"]),
        (Spec("@daily"), ["/cron"]),
        (Spec("0 0 31 2 *"), ["/cron"]),
        (Spec("0 0 * * *", "Europe/Atlantis"), ["/time_zone"]),
        (Spec("0 0 * * *", "../../etc/passwd"), ["/time_zone"]),
        (Spec("x * * * *", "Mars"), ["/cron", "/time_zone"]),
        (Spec(), ["/cron"]),
        (Spec("* * * * *", every_ms=5_000), ["/cron"]),
        (Spec(every_ms=5_000, offset_ms=5_000), ["/offset_ms"]),
        (Spec("* * * * *", start_at=2, end_at=1), ["/end_at"]),
        (Spec("0 0 * * *", "Europe/Berlin"), []),
    ],
)
def test_what_is_wrong_with_a_spec_is_said_with_its_place(spec: Spec, pointers: list[str]) -> None:
    assert [pointer for pointer, _ in problems(spec)] == pointers


@settings(max_examples=500, deadline=None)
@given(st.text("0123456789*,-/#LWMONJA ?", max_size=24))
def test_any_text_is_a_cron_or_is_refused(text: str) -> None:
    if not problems(Spec(text)):
        after(Spec(text, "Europe/Berlin"), 0)


def test_a_time_in_an_id_says_its_milliseconds() -> None:
    assert stamp(ms(datetime(2026, 10, 25, 0, 30, tzinfo=UTC)) + 7) == "20261025T003000007Z"
