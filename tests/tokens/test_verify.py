"""Promises of token verification. argon2 is real but tiny, or a stand-in that counts; time is an argument."""

import asyncio
import gc
import pickle
from collections.abc import Callable, Iterator
from threading import Event
from types import FunctionType, ModuleType
from typing import Any

import pytest

from service.errors import StateError
from service.tokens.matches import Matches
from service.tokens.secret import Presented, mint, reject_tag
from service.tokens.verify import WRONG_MAX, Parameters, Verifier, check, derive, needs_rehash

TINY = Parameters(memory_kib=8, time=1)


class Argon2:
    """A stand-in: counts its calls, and holds them until the gate is open."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.gate = Event()
        self.gate.set()

    def __call__(self, secret: str, verifier: str) -> bool:
        self.calls.append((secret, verifier))
        assert self.gate.wait(5), "nobody opened the gate"
        return verifier == "verifier of " + secret


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Row:
    """A token and what the store keeps of it."""

    def __init__(self, verifier: Callable[[str], str] = "verifier of {}".format) -> None:
        self.presented = mint("tenant")[1]
        self.tag = reject_tag(self.presented.id, self.presented.secret)
        self.verifier = verifier(self.presented.secret)
        self.all = (self.presented, self.tag, self.verifier)


@pytest.fixture
def argon2() -> Iterator[Argon2]:
    stand_in = Argon2()
    yield stand_in
    stand_in.gate.set()


@pytest.fixture
def build(argon2: Argon2) -> Iterator[Callable[..., Verifier]]:
    built: list[Verifier] = []

    def build(**settings: Any) -> Verifier:
        built.append(Verifier(TINY, **{"check": argon2, **settings}))
        return built[-1]

    yield build
    for verifier in built:
        verifier.close()


async def turns(count: int = 5) -> None:
    """Let every ready task run."""
    for _ in range(count):
        await asyncio.sleep(0)


def test_a_derived_verifier_carries_its_scheme_and_parameters() -> None:
    verifier = derive("s" * 43, TINY)
    assert verifier.startswith("$argon2id$v=19$m=8,t=1,p=1$")
    assert derive("s" * 43, TINY) != verifier, "each verifier has a salt of its own"
    assert check("s" * 43, verifier) and not check("t" * 43, verifier)


def test_a_verifier_of_other_parameters_or_schemes_is_derived_anew() -> None:
    verifier = derive("s" * 43, TINY)
    assert not needs_rehash(verifier, TINY)
    assert needs_rehash(verifier, Parameters(memory_kib=16, time=1))
    assert needs_rehash(verifier, Parameters(memory_kib=8, time=2))
    assert needs_rehash("$scrypt$x", TINY)


@pytest.mark.parametrize(
    "verifier", ["", "$argon2id$", "$scrypt$x", "$argon2i$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2g"]
)
def test_a_broken_verifier_is_an_error_and_never_an_answer(verifier: str) -> None:
    with pytest.raises(StateError) as refused:
        check("s" * 43, verifier)
    assert refused.value.code == "server/error"


async def test_a_right_secret_matches_by_real_argon2_and_then_from_memory(build: Callable[..., Verifier]) -> None:
    verifier = build(check=check)
    row = Row(lambda secret: derive(secret, TINY))
    assert verifier.seen(*row.all) is None
    assert await verifier.matches(*row.all) is True
    assert verifier.seen(*row.all) is True


async def test_a_wrong_secret_never_reaches_argon2(build: Callable[..., Verifier], argon2: Argon2) -> None:
    verifier, row = build(), Row()
    for _ in range(100):
        guess = Presented("tenant", row.presented.id, mint("tenant")[1].secret)
        assert verifier.seen(guess, row.tag, row.verifier) is False
        assert await verifier.matches(guess, row.tag, row.verifier) is False
    assert argon2.calls == []


async def test_a_secret_presented_under_another_id_never_reaches_argon2(
    build: Callable[..., Verifier], argon2: Argon2
) -> None:
    verifier, row, other = build(), Row(), Row()
    assert await verifier.matches(*row.all)
    moved = Presented("tenant", other.presented.id, row.presented.secret)
    assert await verifier.matches(moved, other.tag, other.verifier) is False
    assert len(argon2.calls) == 1


async def test_a_tag_alone_is_not_enough(build: Callable[..., Verifier], argon2: Argon2) -> None:
    verifier, row = build(), Row()
    for _ in range(100):
        assert await verifier.matches(row.presented, row.tag, "verifier of another") is False
    assert len(argon2.calls) == 1, "and whoever forged the tag has argon2 run for it once"
    assert await verifier.matches(*row.all), "the right secret is not held up by that"


async def test_a_forged_secret_is_forgotten_in_time_and_in_number(
    build: Callable[..., Verifier], argon2: Argon2
) -> None:
    clock = Clock()
    verifier, row = build(clock=clock, idle_s=300.0), Row()
    assert not await verifier.matches(row.presented, row.tag, "verifier of another")
    clock.now += 300.0
    assert not await verifier.matches(row.presented, row.tag, "verifier of another")
    assert len(argon2.calls) == 2
    for _ in range(WRONG_MAX + 5):
        forged = Row()
        assert not await verifier.matches(forged.presented, forged.tag, "verifier of another")
    assert len(verifier._wrong) == WRONG_MAX


async def test_an_unknown_id_never_reaches_argon2_whatever_its_secret(
    build: Callable[..., Verifier], argon2: Argon2, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifier, row = build(), Row()
    monkeypatch.setattr("service.tokens.verify.NO_TAG", row.tag)  # as one secret in 2³² would have it
    assert verifier.refuse(row.presented) is False
    assert argon2.calls == []


async def test_minting_leaves_half_of_the_queue_to_those_who_have_a_token(
    build: Callable[..., Verifier], argon2: Argon2
) -> None:
    verifier, rows = build(workers=1, waiting=4), [Row() for _ in range(5)]
    argon2.gate.clear()
    tasks = [asyncio.create_task(verifier.matches(*row.all)) for row in rows[:3]]
    await turns()
    with pytest.raises(StateError) as refused:
        await verifier.derive("s" * 43)
    assert refused.value.code == "auth/busy"
    tasks += [asyncio.create_task(verifier.matches(*row.all)) for row in rows[3:]]
    await turns()
    argon2.gate.set()
    assert await asyncio.gather(*tasks) == [True] * 5


async def test_argon2_runs_once_for_a_secret_in_use(build: Callable[..., Verifier], argon2: Argon2) -> None:
    verifier, row = build(), Row()
    assert [await verifier.matches(*row.all) for _ in range(50)] == [True] * 50
    assert len(argon2.calls) == 1


async def test_a_match_counts_for_the_verifier_it_was_found_with_only(
    build: Callable[..., Verifier], argon2: Argon2
) -> None:
    verifier, row = build(), Row()
    assert await verifier.matches(*row.all)
    assert verifier.seen(row.presented, row.tag, "verifier of another") is None
    assert await verifier.matches(row.presented, row.tag, "verifier of another") is False
    assert len(argon2.calls) == 2


async def test_concurrent_first_sights_share_one_argon2(build: Callable[..., Verifier], argon2: Argon2) -> None:
    verifier, row = build(workers=1, waiting=0), Row()
    argon2.gate.clear()
    tasks = [asyncio.create_task(verifier.matches(*row.all)) for _ in range(100)]
    await turns()
    argon2.gate.set()
    assert await asyncio.gather(*tasks) == [True] * 100
    assert len(argon2.calls) == 1


async def test_a_cancelled_waiter_does_not_break_the_flight(build: Callable[..., Verifier], argon2: Argon2) -> None:
    verifier, row = build(workers=1, waiting=0), Row()
    argon2.gate.clear()
    first, second, third = (asyncio.create_task(verifier.matches(*row.all)) for _ in range(3))
    await turns()
    first.cancel()
    third.cancel()
    await turns()
    assert first.cancelled() and third.cancelled() and not second.done()
    argon2.gate.set()
    assert await second is True
    assert verifier.seen(*row.all) is True and len(argon2.calls) == 1


async def test_a_flight_that_all_have_left_keeps_its_place_until_it_ends(
    build: Callable[..., Verifier], argon2: Argon2
) -> None:
    verifier, row, other = build(workers=1, waiting=0), Row(), Row()
    argon2.gate.clear()
    task = asyncio.create_task(verifier.matches(*row.all))
    await turns()
    task.cancel()
    await turns()
    with pytest.raises(StateError):
        await verifier.matches(*other.all)
    back = asyncio.create_task(verifier.matches(*row.all))
    await turns()
    argon2.gate.set()
    assert await back is True and len(argon2.calls) == 1
    assert await verifier.matches(*other.all) is True


async def test_a_full_queue_says_busy_and_when_to_come_back(build: Callable[..., Verifier], argon2: Argon2) -> None:
    verifier, rows, late = build(workers=1, waiting=2), [Row() for _ in range(3)], Row()
    assert await verifier.matches(*(known := Row()).all)
    argon2.gate.clear()
    tasks = [asyncio.create_task(verifier.matches(*row.all)) for row in rows]
    await turns()
    for _ in range(3):
        with pytest.raises(StateError) as refused:
            await verifier.matches(*late.all)
        assert (refused.value.code, refused.value.status) == ("auth/busy", 503)
        assert refused.value.facts == {"retry_after": 1}
    with pytest.raises(StateError, match="try again"):
        await verifier.derive("s" * 43)
    assert await verifier.matches(*known.all), "who is known passes"
    assert not await verifier.matches(late.presented, bytes(4), late.verifier), "who is wrong is refused as ever"
    argon2.gate.set()
    assert await asyncio.gather(*tasks) == [True] * 3
    assert await verifier.matches(*late.all), "a refusal leaves nothing behind"


@pytest.mark.parametrize("same", ["source", "tenant"])
async def test_one_who_floods_the_queue_leaves_places_for_others(
    same: str, build: Callable[..., Verifier], argon2: Argon2
) -> None:
    verifier, rows = build(workers=1, waiting=5), [Row() for _ in range(5)]
    whom = [("203.0.113.66", f"tenant {i}") if same == "source" else (f"203.0.113.{i}", "tenant x") for i in range(5)]
    argon2.gate.clear()
    tasks = [asyncio.create_task(verifier.matches(*row.all, whom[i])) for i, row in enumerate(rows[:3])]
    await turns()
    with pytest.raises(StateError) as refused:
        await verifier.matches(*rows[3].all, whom[3])
    assert (refused.value.code, refused.value.facts) == ("auth/busy", {"retry_after": 1})
    tasks.append(asyncio.create_task(verifier.matches(*rows[4].all, ("198.51.100.1", "tenant y"))))
    await turns()
    argon2.gate.set()
    assert await asyncio.gather(*tasks) == [True] * 4
    assert await verifier.matches(*rows[3].all, whom[3]), "its places are free again"
    assert not verifier._taken, "and nothing is kept of who has gone"


async def test_one_tenant_that_mints_leaves_places_for_others_that_do(
    build: Callable[..., Verifier], argon2: Argon2
) -> None:
    verifier, rows = build(workers=1, waiting=4), [Row(), Row()]
    argon2.gate.clear()
    tasks = [asyncio.create_task(verifier.matches(*row.all, ("tenant x",))) for row in rows]
    await turns()
    with pytest.raises(StateError, match="try again"):
        await verifier.derive("s" * 43, ["tenant x"])
    derived = asyncio.create_task(verifier.derive("s" * 43, ["tenant y"]))
    await turns()
    argon2.gate.set()
    assert await asyncio.gather(*tasks) == [True] * 2
    assert (await derived).startswith("$argon2id$")


async def test_an_error_reaches_every_waiter_and_is_not_remembered(build: Callable[..., Verifier]) -> None:
    outcomes = [StateError("server/error", "broken"), None]

    def failing_once(secret: str, verifier: str) -> bool:
        if error := outcomes.pop(0):
            raise error
        return True

    verifier, row = build(workers=1, waiting=0, check=failing_once), Row()
    found = await asyncio.gather(*(verifier.matches(*row.all) for _ in range(3)), return_exceptions=True)
    assert [type(one) for one in found] == [StateError] * 3
    assert verifier.seen(*row.all) is None and await verifier.matches(*row.all) is True


async def test_an_idle_match_expires_and_a_used_one_does_not(build: Callable[..., Verifier], argon2: Argon2) -> None:
    clock = Clock()
    verifier, row = build(clock=clock, idle_s=300.0), Row()
    assert await verifier.matches(*row.all)
    for _ in range(10):
        clock.now += 299.9
        assert verifier.seen(*row.all) is True
    clock.now += 300.0
    assert verifier.seen(*row.all) is None
    assert await verifier.matches(*row.all) is True and len(argon2.calls) == 2


async def test_a_forgotten_token_is_proven_again(build: Callable[..., Verifier], argon2: Argon2) -> None:
    verifier, row, other = build(), Row(), Row()
    assert await verifier.matches(*row.all) and await verifier.matches(*other.all)
    verifier.forget(row.presented.id)
    assert (verifier.seen(*row.all), verifier.seen(*other.all)) == (None, True)
    assert await verifier.matches(*row.all) and len(argon2.calls) == 3


def test_the_least_recently_used_match_makes_room() -> None:
    matches = Matches(limit=2, idle_s=10)
    matches.remember(b"a", "id", "v", now=0)
    matches.remember(b"b", "id", "v", now=1)
    assert matches.holds(b"a", "v", now=2)
    matches.remember(b"c", "id", "v", now=3)
    assert [matches.holds(digest, "v", now=4) for digest in (b"a", b"b", b"c")] == [True, False, True]


def test_idle_matches_leave_when_another_comes() -> None:
    matches = Matches(limit=100, idle_s=10)
    for now in range(5):
        matches.remember(bytes([now]), "id", "v", now=now)
    matches.remember(b"late", "id", "v", now=12)
    assert len(matches) == 3


async def test_the_memory_of_matches_holds_no_secret(build: Callable[..., Verifier]) -> None:
    verifier = build(check=check)
    rows = [Row(lambda secret: derive(secret, TINY)) for _ in range(3)]
    for row in rows:
        assert await verifier.matches(*row.all)
    await turns()
    texts, entries = everything(verifier), pickle.dumps(verifier._cache)
    for row in rows:
        assert any(row.verifier in text for text in texts), "the search reaches the entries"
        assert not any(row.presented.secret in text for text in texts)
        assert row.verifier.encode() in entries and row.presented.secret.encode() not in entries


async def test_two_processes_know_a_secret_by_different_digests(build: Callable[..., Verifier]) -> None:
    row = Row()
    assert build()._digest(row.presented) != build()._digest(row.presented)


async def test_the_kind_in_the_prefix_does_not_make_another_secret(build: Callable[..., Verifier]) -> None:
    verifier, row = build(), Row()
    assert await verifier.matches(*row.all)
    renamed = Presented("system", row.presented.id, row.presented.secret)
    assert verifier.seen(renamed, row.tag, row.verifier) is True, "the row, not the prefix, says what a token may do"


async def test_deriving_happens_under_the_given_parameters(build: Callable[..., Verifier]) -> None:
    derived = await build().derive("s" * 43)
    assert not needs_rehash(derived, TINY) and check("s" * 43, derived)


async def test_closing_answers_what_has_begun_and_begins_nothing(
    build: Callable[..., Verifier], argon2: Argon2
) -> None:
    verifier, rows = build(workers=1), [Row(), Row()]
    argon2.gate.clear()
    tasks = [asyncio.create_task(verifier.matches(*row.all)) for row in rows]
    await turns()
    verifier.close()
    with pytest.raises(StateError) as refused:
        await verifier.matches(*Row().all)
    assert refused.value.code == "server/draining"
    argon2.gate.set()
    assert await asyncio.gather(*tasks) == [True, True]


def everything(root: object) -> list[str]:
    """The repr of all that `root` leads to: attributes, slots, keys, values; not through types, functions, modules."""
    found: list[str] = []
    known: set[int] = set()
    todo: list[object] = [root]
    while todo:
        here = todo.pop()
        if id(here) in known or isinstance(here, type | FunctionType | ModuleType):
            continue
        known.add(id(here))
        found.append(repr(here))
        todo += gc.get_referents(here)
    return found
