"""What workers were given and what they did with it, and the proof that no item had two holders at once.

Two clocks: `asked` and `answered` are read beside the worker (`time.monotonic`, the same in every process of a
machine), and what the store did for a request it did between them. `until` is the end of a lease by the store's clock,
milliseconds; `at` is that clock when the worker was told, read beside it. (The store's own time of a delivery is that
of its transaction's beginning: on Postgres it may lie a little before the commit of what it found, and proves nothing.)
"""

from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple


class Delivery(NamedTuple):
    """A worker was told, `at`, that it holds an item under an epoch, `until`."""

    item: str
    epoch: int
    worker: str
    asked: float
    answered: float
    at: int
    until: int


class Word(NamedTuple):
    """A worker said something of an item: `verb` is renew, complete, fail or release; `until` is a renewal's."""

    item: str
    epoch: int
    worker: str
    verb: str
    asked: float
    answered: float
    accepted: bool
    until: int = 0


class History:
    """All that workers were told, in any order."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.words: list[Word] = []

    def count(self, verb: str, accepted: bool) -> int:
        """How often a verb was accepted, or refused."""
        return sum(word.verb == verb and word.accepted == accepted for word in self.words)


def check(history: History) -> None:
    """Every item's story holds. Raises `AssertionError` with the part that does not."""
    words: dict[str, list[Word]] = defaultdict(list)
    for word in history.words:
        words[word.item].append(word)
    deliveries: dict[str, list[Delivery]] = defaultdict(list)
    for delivery in history.deliveries:
        deliveries[delivery.item].append(delivery)
    assert not words.keys() - deliveries.keys(), "something was said of an item that nobody was given"
    for item, told in deliveries.items():
        check_item(sorted(told, key=lambda one: (one.answered, one.epoch)), words[item])


def check_item(told: list[Delivery], words: list[Word]) -> None:
    """One item: epochs rise strictly, each holder's word ends before the next holder's begins, one end at most."""
    for before, after in pairwise(told):
        assert before.epoch < after.epoch, f"the epoch did not rise: {before}, then {after}"
    accepted: dict[int, list[Word]] = defaultdict(list)
    for word in words:
        if word.accepted:
            accepted[word.epoch].append(word)
    check_words(told, accepted)
    for before, after in pairwise(told):
        check_handed_on(before, after, accepted[before.epoch])


def check_words(told: list[Delivery], accepted: dict[int, list[Word]]) -> None:
    """A word counts only under an epoch that its worker was given; an epoch is settled once; what is complete stays."""
    holders = {one.epoch: one.worker for one in told}
    completed = [word for words in accepted.values() for word in words if word.verb == "complete"]
    assert len(completed) <= 1, f"completed twice: {completed}"
    for epoch, words in accepted.items():
        assert {word.worker for word in words} <= {holders.get(epoch)}, f"not the holder's word: {words}"
        assert len(settles(words)) <= 1, f"settled twice under one epoch: {words}"
    for word in completed:
        assert word.epoch == told[-1].epoch, f"delivered after it was completed: {word}, {told[-1]}"


def settles(words: Iterable[Word]) -> list[Word]:
    """The words that end a lease."""
    return [word for word in words if word.verb != "renew"]


def check_handed_on(before: Delivery, after: Delivery, words: list[Word]) -> None:
    """The next holder came when the one before had settled, or after its lease, last renewed, had run out."""
    for word in words:
        assert word.asked <= after.answered, f"accepted after the item had gone to another: {word}, {after}"
    if not settles(words):
        until = max([before.until, *(word.until for word in words)])
        assert until <= after.at, f"two holders at once: {before} until {until}, {after}"


def whole(items: Iterable[str], history: History) -> None:
    """Every item was completed: once, and nothing else was delivered."""
    completed = sorted(word.item for word in history.words if word.verb == "complete" and word.accepted)
    assert completed == sorted(items)
    assert {one.item for one in history.deliveries} == set(completed)
