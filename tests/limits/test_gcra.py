"""The bucket, by arithmetic."""

import pytest

from service.errors import StateError
from service.kernel import rate as rates
from service.kernel.gcra import Rate, pour, rate_of
from service.kernel.principal import Standing
from service.kernel.rate import Rates, too_fast

NOW = 1_000_000_000_000


def taken(rate: Rate, *at: float) -> list[bool]:
    """Whether each request of a series got in."""
    empty_at, out = 0.0, []
    for now in at:
        poured = pour(rate, empty_at, NOW + now)
        empty_at = poured.empty_at
        out.append(poured.count == 1)
    return out


def test_a_burst_gets_in_at_once_and_then_one_in_an_nth_of_a_second() -> None:
    assert taken(Rate(10, 3), 0, 0, 0, 0, 99, 100, 100, 200) == [True, True, True, False, False, True, False, True]


def test_in_any_second_no_more_get_in_than_the_rate_and_the_burst() -> None:
    assert sum(taken(Rate(50, 10), *range(1_000))) == 10 + 49
    assert sum(taken(Rate(50, 10), *range(10_000))) == 10 + 499


def test_who_is_refused_is_told_when_it_will_get_in() -> None:
    rate, empty_at = Rate(3, 2), 0.0
    empty_at = pour(rate, empty_at, NOW, 2).empty_at
    refused = pour(rate, empty_at, NOW)
    assert refused.count == 0
    assert refused.empty_at == empty_at, "a refusal costs nothing"
    assert pour(rate, empty_at, NOW + refused.wait - 1).count == 0
    assert pour(rate, empty_at, NOW + refused.wait).count == 1


def test_of_many_at_once_as_many_get_in_as_fit() -> None:
    assert pour(Rate(100, 30), 0, NOW, 1_000).count == 30
    assert pour(Rate(100, 30), 0, NOW, 12).count == 12


@pytest.mark.parametrize("rate", [Rate(0, 5), Rate(5, 0)])
def test_a_rate_or_a_burst_of_zero_lets_nothing_through(rate: Rate) -> None:
    assert pour(rate, 0, NOW).count == 0
    assert too_fast(rate, pour(rate, 0, NOW).wait).facts["retry_after"] == 60


def test_a_clock_that_is_set_back_locks_nobody_out() -> None:
    full = pour(Rate(10, 10), 0, NOW, 10).empty_at
    assert pour(Rate(10, 10), full, NOW - 3_600_000).count == 1


def test_without_a_burst_a_second_s_worth_may_come_at_once() -> None:
    def said(**limits: int | None) -> Rate | None:
        return rate_of(Standing("active", dict(limits)))

    assert said() is None
    assert said(burst=9) is None
    assert said(requests_per_second=7) == said(requests_per_second=7, burst=None) == Rate(7, 7)
    assert said(requests_per_second=7, burst=9) == Rate(7, 9)
    assert said(requests_per_second=0) == Rate(0, 0)


async def test_the_buckets_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "BUCKETS_MAX", 3)
    found, one = Rates(), Rate(1, 1)
    for name in ("a", "b", "c", "d"):
        await found.take(name, one, NOW)
    assert len(found._empty_at) == 3
    with pytest.raises(StateError) as refused:
        await found.take("d", one, NOW)
    assert (refused.value.code, refused.value.facts) == (
        "limit/requests-per-second",
        {"limit": 1, "burst": 1, "retry_after": 1},
    )
