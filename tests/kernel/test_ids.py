"""What ids promise: unique, of the right form, and in the order in which they were made."""

import uuid

import pytest

from service.kernel.ids import Last, uuid7


@pytest.fixture(autouse=True)
def first_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no id had been made yet, whatever other tests did before."""
    monkeypatch.setattr(Last, "now", 0)
    monkeypatch.setattr(Last, "count", 0)


def test_an_id_is_a_uuid_of_version_7_that_tells_its_millisecond() -> None:
    made = uuid.UUID(uuid7(1_795_000_000_123))
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == 1_795_000_000_123


def test_ids_of_one_millisecond_sort_as_they_were_made() -> None:
    made = [uuid7(1_795_000_100_000) for _ in range(1_000)]
    assert made == sorted(made)
    assert len(set(made)) == 1_000


def test_ids_of_a_later_millisecond_sort_later() -> None:
    made = [uuid7(1_795_000_200_000 + n // 3) for n in range(300)]
    assert made == sorted(made)


def test_ids_past_what_a_millisecond_holds_and_after_a_clock_was_set_back_still_sort() -> None:
    made = [uuid7(1_795_000_300_000) for _ in range(10_000)] + [uuid7(1_795_000_200_000) for _ in range(10_000)]
    assert made == sorted(made)
