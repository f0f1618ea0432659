"""The checker of histories sees what it is there to see."""

import pytest

from tests.faults.histories import Delivery, History, Word, check, whole

FIRST = Delivery("i", 1, "a", 1.0, 1.1, 1_000, 2_000)
SECOND = Delivery("i", 2, "b", 2.0, 2.2, 2_100, 3_100)
RENEWED = Word("i", 1, "a", "renew", 1.2, 1.3, True, 2_050)
DONE = Word("i", 2, "b", "complete", 2.3, 2.4, True)


def history(*told: Delivery | Word) -> History:
    """A history of these."""
    made = History()
    made.deliveries = [one for one in told if isinstance(one, Delivery)]
    made.words = [one for one in told if isinstance(one, Word)]
    return made


GOOD = {
    "a lease that ran out": (FIRST, RENEWED, SECOND, DONE),
    "a refused late word": (FIRST, SECOND, DONE, Word("i", 1, "a", "complete", 2.5, 2.6, False)),
    "handed back early": (FIRST, Word("i", 1, "a", "release", 1.2, 1.3, True), SECOND._replace(at=1_300), DONE),
    "settled after its end, before it was taken": (FIRST, Word("i", 1, "a", "complete", 3.0, 3.1, True)),
}
BAD = {
    "the epoch did not rise": (FIRST, SECOND._replace(epoch=1)),
    "two holders at once": (FIRST, SECOND._replace(at=1_999)),
    "two holders at once: Delivery": (FIRST, RENEWED._replace(until=2_500), SECOND),
    "accepted after the item had gone": (FIRST, SECOND, Word("i", 1, "a", "fail", 2.3, 2.4, True)),
    "accepted after": (FIRST, SECOND, RENEWED._replace(asked=2.5)),
    "settled twice under one epoch": (FIRST, SECOND, DONE, DONE._replace(verb="fail")),
    "completed twice": (FIRST, SECOND, DONE, Word("i", 1, "a", "complete", 1.2, 1.3, True)),
    "delivered after it was completed": (FIRST, Word("i", 1, "a", "complete", 1.2, 1.3, True), SECOND),
    "not the holder's word": (FIRST, SECOND, DONE._replace(worker="a")),
    "nobody was given": (DONE,),
}


@pytest.mark.parametrize("told", GOOD.values(), ids=GOOD)
def test_a_history_that_holds_passes(told: tuple[Delivery | Word, ...]) -> None:
    check(history(*told))


@pytest.mark.parametrize(("said", "told"), BAD.items(), ids=BAD)
def test_a_history_that_does_not_hold_is_named(said: str, told: tuple[Delivery | Word, ...]) -> None:
    with pytest.raises(AssertionError, match=said):
        check(history(*told))


def test_an_item_that_was_not_completed_is_missed() -> None:
    whole(["i"], history(FIRST, SECOND, DONE))
    with pytest.raises(AssertionError):
        whole(["i", "j"], history(FIRST, SECOND, DONE))
