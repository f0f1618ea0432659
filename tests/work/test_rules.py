"""The rules of work that are arithmetic: backoff, and which errors are kept."""

import msgspec
import pytest

from service.work.model import ERRORS_BYTES, ERRORS_KEPT, Retry
from service.work.rules_settling import backoff, latest


def plain(**policy: object) -> Retry:
    """A policy without jitter."""
    return msgspec.convert({"jitter": False, **policy}, Retry)


def delays(retry: Retry, attempts: int = 5) -> list[int]:
    return [backoff(retry, attempt, 0.5) for attempt in range(1, attempts + 1)]


def test_a_fixed_backoff_waits_the_same_each_time() -> None:
    assert delays(plain(backoff="fixed", initial_delay_ms=700)) == [700] * 5


def test_a_linear_backoff_grows_by_the_first_delay() -> None:
    assert delays(plain(backoff="linear", initial_delay_ms=100)) == [100, 200, 300, 400, 500]


def test_an_exponential_backoff_grows_by_its_coefficient() -> None:
    assert delays(plain(initial_delay_ms=100, coefficient=3)) == [100, 300, 900, 2700, 8100]


@pytest.mark.parametrize("kind", ["fixed", "linear", "exponential"])
def test_no_delay_is_longer_than_the_longest(kind: str) -> None:
    retry = plain(backoff=kind, initial_delay_ms=400, max_delay_ms=1000, coefficient=100)
    assert max(delays(retry, 1000)) == (400 if kind == "fixed" else 1000)


@pytest.mark.parametrize("kind", ["fixed", "linear", "exponential"])
@pytest.mark.parametrize("attempt", [1, 2, 9, 1000])
def test_full_jitter_draws_between_nothing_and_the_whole_delay(kind: str, attempt: int) -> None:
    whole = backoff(plain(backoff=kind, initial_delay_ms=250), attempt, 0)
    drawn = msgspec.convert({"backoff": kind, "initial_delay_ms": 250}, Retry)
    assert backoff(drawn, attempt, 0.0) == 0
    assert backoff(drawn, attempt, 0.5) == whole // 2
    assert whole - 1 <= backoff(drawn, attempt, 1 - 2**-53) <= whole


def test_without_a_policy_retries_are_exponential_with_jitter() -> None:
    retry = Retry()
    assert (retry.backoff, retry.initial_delay_ms, retry.coefficient, retry.jitter) == ("exponential", 1_000, 2.0, True)


def errors(sizes: list[int]) -> list[msgspec.Raw]:
    return [msgspec.Raw(b'"' + b"x" * (size - 2) + b'"') for size in sizes]


def test_the_latest_hundred_errors_are_kept() -> None:
    many = errors([10] * (ERRORS_KEPT + 5))
    assert latest(many) == many[5:]


def test_large_errors_push_out_older_ones_but_never_the_last() -> None:
    half = errors([ERRORS_BYTES // 2] * 3)
    assert latest(half) == half[1:]
    huge = errors([10, ERRORS_BYTES * 2])
    assert latest(huge) == huge[1:]
