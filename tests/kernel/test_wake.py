"""Wake-ups: who is woken, in which order, and that none is lost or shared."""

import asyncio
from collections.abc import Callable

import pytest

from service.kernel import wake
from service.kernel.command import Request
from service.kernel.principal import internal
from service.kernel.wake import ALL, Place, Wakes, topic_of


@pytest.fixture(autouse=True)
def no_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a wake-up ends a rest."""
    monkeypatch.setattr(wake, "LOOK_SECONDS", 3_600.0)


def anything(_channel: str) -> bool:
    return True


def only(channel: str) -> Callable[[str], bool]:
    return lambda told: told == channel


class Sleeper:
    """A waiter in a task: it rests once, then leaves."""

    def __init__(self, wakes: Wakes, accepts: Callable[[str], bool] = anything, topic: str = "work/t") -> None:
        self.place = wakes.park(topic, accepts)
        self.task = asyncio.create_task(self._sleep())

    async def _sleep(self) -> bool:
        with self.place as place:
            return await place.rest(3_600)


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def woken(sleepers: list[Sleeper]) -> list[bool]:
    """Which of them have been woken; the others are sent away."""
    await turns()
    done = [sleeper.task.done() for sleeper in sleepers]
    for sleeper in sleepers:
        sleeper.task.cancel()
    await asyncio.gather(*(sleeper.task for sleeper in sleepers), return_exceptions=True)
    return done


async def asleep(wakes: Wakes, *accepts: Callable[[str], bool], topic: str = "work/t") -> list[Sleeper]:
    """Waiters that are all at rest."""
    sleepers = [Sleeper(wakes, one, topic) for one in accepts]
    await turns()
    return sleepers


def test_a_topic_is_a_channel_up_to_its_second_slash() -> None:
    assert topic_of("work/acme/emails/gpu,cpu") == "work/acme"
    assert topic_of("tail/acme/e/1") == "tail/acme"
    assert topic_of("*") == "*"


async def test_a_channel_wakes_who_accepts_it() -> None:
    wakes = Wakes()
    sleepers = await asleep(wakes, only("work/t/a/"), only("work/t/b/"))
    wakes.heard("work/t/b/", 1)
    assert await woken(sleepers) == [False, True]


@pytest.mark.parametrize("count", [1, 2, 5])
async def test_work_wakes_as_many_as_there_are_items_the_longest_waiting_first(count: int) -> None:
    wakes = Wakes()
    sleepers = await asleep(wakes, *[anything] * 3)
    wakes.heard("work/t/q/", count)
    assert await woken(sleepers) == [at < count for at in range(3)]


async def test_two_commits_wake_two() -> None:
    wakes = Wakes()
    sleepers = await asleep(wakes, *[anything] * 3)
    wakes.heard("work/t/q/", 1)
    wakes.heard("work/t/q/", 1)
    assert await woken(sleepers) == [True, True, False]


async def test_news_that_is_not_work_wakes_everybody_it_is_for() -> None:
    wakes = Wakes()
    sleepers = await asleep(wakes, anything, anything, only("tail/t/other"), topic="tail/t")
    wakes.heard("tail/t/e1", 1)
    assert await woken(sleepers) == [True, True, False]


async def test_a_line_may_be_woken_as_a_whole_and_no_other_with_it() -> None:
    wakes = Wakes()
    mine = await asleep(wakes, only("work/t/a/"), only("work/t/b/"))
    theirs = await asleep(wakes, anything, topic="work/u")
    wakes.heard("work/t/*", 1)
    assert (await woken(mine), await woken(theirs)) == ([True, True], [False])


async def test_everybody_may_be_woken() -> None:
    wakes = Wakes()
    mine, theirs = await asleep(wakes, only("x")), await asleep(wakes, only("x"), topic="tail/u")
    wakes.heard(ALL, 1)
    assert (await woken(mine), await woken(theirs)) == ([True], [True])


async def test_what_nobody_waits_for_is_no_trouble() -> None:
    wakes = Wakes()
    wakes.heard("work/t/q/", 3)
    wakes.heard("work/t/*", 1)
    wakes.heard(ALL, 1)


async def test_a_wake_up_between_looking_and_resting_is_kept() -> None:
    wakes = Wakes()
    with wakes.park("work/t", anything) as place:
        wakes.heard("work/t/q/", 1)
        async with asyncio.timeout(5):
            assert await place.rest(3_600)


async def test_a_waiter_rests_again_after_each_wake_up() -> None:
    wakes = Wakes()
    with wakes.park("work/t", anything) as place:
        for _ in range(3):
            wakes.heard("work/t/q/", 1)
            async with asyncio.timeout(5):
                assert await place.rest(3_600)
        assert await place.rest(0)  # nothing new: it ends because the time is up


async def test_a_wake_up_that_comes_too_late_goes_to_the_next_in_line() -> None:
    wakes = Wakes()
    leaving = wakes.park("work/t", anything)
    leaving.__enter__()
    [other] = await asleep(wakes, anything)
    wakes.heard("work/t/q/", 1)
    await turns()
    assert not other.task.done()
    leaving.__exit__(None, None, None)
    assert await woken([other]) == [True]


async def test_news_for_all_is_not_passed_on() -> None:
    wakes = Wakes()
    leaving: Place = wakes.park("tail/t", anything)
    leaving.__enter__()
    wakes.heard("tail/t/e", 1)
    [other] = await asleep(wakes, anything, topic="tail/t")
    leaving.__exit__(None, None, None)
    assert await woken([other]) == [False]


async def test_closing_sends_everybody_home_and_lets_nobody_rest() -> None:
    wakes = Wakes()
    sleepers = [*await asleep(wakes, anything), *await asleep(wakes, only("x"), topic="tail/u")]
    wakes.close()
    async with asyncio.timeout(5):
        assert [await sleeper.task for sleeper in sleepers] == [False, False]
    with wakes.park("work/t", anything) as place:
        assert not await place.rest(3_600)


async def test_a_rest_ends_with_what_it_was_tied_to() -> None:
    wakes = Wakes()
    gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    with wakes.park("work/t", anything) as place:
        gone.set_result(None)
        async with asyncio.timeout(5):
            assert not await place.rest(3_600, gone)


async def test_the_store_is_told_which_topics_are_waited_for() -> None:
    told: list[frozenset[str]] = []
    wakes = Wakes(told.append)
    with wakes.park("work/t", anything), wakes.park("tail/t", anything):
        with wakes.park("work/t", anything):
            pass
        assert told[-1] == {"work/t", "tail/t"}
    assert told[-1] == frozenset()
    assert frozenset({"work/t"}) in told


class Asked:
    """Accepts nothing, and counts how often it was asked."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, _channel: str) -> bool:
        self.count += 1
        return False


async def test_waiters_that_are_alike_are_asked_once_and_woken_in_the_order_in_which_they_came() -> None:
    wakes, asked = Wakes(), Asked()
    for _ in range(50):
        wakes.park("work/t", asked, "alike").__enter__()
    wakes.heard("work/t/q/", 1)
    assert asked.count == 1
    lines = [wakes.park("work/t", anything, alike) for alike in ("a", "b", None, "a")]
    for place in lines:
        place.__enter__()
    order = []
    for _ in lines:
        wakes.heard("work/t/q/", 1)
        order.append([place._parked.woken.done() for place in lines].count(True))
        assert all(place._parked.woken.done() for place in lines[: order[-1]])
    assert order == [1, 2, 3, 4]


async def test_wake_ups_past_many_that_differ_take_turns_and_no_topic_waits_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wake, "LOOKS", 10)
    monkeypatch.setattr(wake, "LATE_MAX", 5)
    wakes, asked = Wakes(), Asked()
    for _ in range(10):
        wakes.park("work/flood", asked).__enter__()
    for n in range(20):
        wakes.heard(f"work/flood/{n}/", 1)
    assert asked.count == 10, "one of the twenty: the looks of a turn"
    (quiet,) = await asleep(wakes, anything, topic="work/quiet")
    wakes.heard("work/quiet/q/", 1)
    assert await woken([quiet]) == [True]
    await turns()
    assert asked.count == 10 * (1 + 5), "five more, later; the others were dropped"
    assert not wakes._late


REQUEST = Request(internal("t"), "look")


def may(_request: Request) -> bool:
    return True


async def resting(wakes: Wakes, most: int = 1, accepts: Callable[[str], bool] = anything) -> Sleeper:
    """A waiter with a request, at rest."""
    sleeper = Sleeper(wakes, accepts)
    sleeper.place._parked.request, sleeper.place._parked.most = REQUEST, most
    await turns()
    return sleeper


async def test_who_rests_with_a_request_is_held_and_served_and_no_wake_up_is_spent_on_him() -> None:
    wakes = Wakes()
    one, other = await resting(wakes), await resting(wakes)
    [(held, channel)] = wakes.hold({"work/t/q/": 1}, 64, may)
    assert (held, channel) == (one.place._parked, "work/t/q/")
    wakes.heard("work/t/q/", 1)
    held.serve("answer")
    wakes.let_go(held, channel)
    async with asyncio.timeout(5):
        assert await one.task and await other.task
    assert (one.place.answer, other.place.answer) == ("answer", None)


async def test_who_is_held_and_given_nothing_looks_by_himself() -> None:
    wakes = Wakes()
    sleeper = await resting(wakes)
    wakes.let_go(*wakes.hold({"work/t/q/": 1}, 64, may)[0])
    async with asyncio.timeout(5):
        assert await sleeper.task
    assert sleeper.place.answer is None


async def test_who_is_held_waits_for_the_commit_even_if_his_time_is_up_or_the_server_closes() -> None:
    wakes = Wakes()
    sleeper = await resting(wakes)
    [(held, channel)] = wakes.hold({"work/t/q/": 1}, 64, may)
    held.stir()
    wakes.close()
    await turns()
    assert not sleeper.task.done()
    held.serve("answer")
    wakes.let_go(held, channel)
    async with asyncio.timeout(5):
        await sleeper.task
    assert sleeper.place.answer == "answer"


@pytest.mark.parametrize("gone", [True, False], ids=["gone", "on its way out"])
async def test_a_waiter_that_leaves_while_it_is_held_leaves_its_work_to_the_next(gone: bool) -> None:
    wakes = Wakes()
    leaving, other = await resting(wakes), await resting(wakes)
    [(held, channel)] = wakes.hold({"work/t/q/": 1}, 64, may)
    leaving.task.cancel()
    if gone:
        await turns()
    assert not other.task.done()
    wakes.let_go(held, channel)
    assert await woken([other]) == [True]


async def test_who_looks_just_then_is_not_held() -> None:
    """He may be given something already: nobody would be told of what he is given besides."""
    wakes = Wakes()
    with wakes.park("work/t", anything, request=REQUEST) as place:
        assert wakes.hold({"work/t/q/": 1}, 64, may) == []
        wakes.heard("work/t/q/", 1)
        async with asyncio.timeout(5):
            assert await place.rest(3_600)
        assert wakes.hold({"work/t/q/": 1}, 64, may) == []


async def test_as_many_are_held_as_take_what_there_is() -> None:
    wakes = Wakes()
    sleepers = [await resting(wakes, most) for most in (1, 5, 1, 1)]
    assert len(wakes.hold({"work/t/q/": 4}, 64, may)) == 2, "one, and up to five"
    assert len(wakes.hold({"work/t/q/": 4}, 1, may)) == 1, "at most one"
    assert wakes.hold({"work/t/q/": 4}, 64, lambda _: False) == []
    assert wakes.hold({"work/t/*": 1, "tail/t/e": 1, "work/u/q/": 1}, 64, may) == []
    await woken(sleepers)


async def test_where_waiters_differ_much_or_channels_are_many_the_rest_is_woken_in_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wake, "KINDS_MAX", 2)
    wakes = Wakes()
    sleepers = [await resting(wakes) for _ in range(3)]
    assert wakes.hold({"work/t/q/": 1}, 64, may) == []
    await woken(sleepers[:1])
    assert len(wakes.hold({"work/t/q/": 1}, 64, may)) == 1
    await woken(sleepers[1:])
    sleepers = [await resting(wakes, accepts=only(f"work/t/{at}/")) for at in range(2)]
    assert len(wakes.hold({"work/t/0/": 1, "work/t/1/": 1}, 64, may)) == 1
    await woken(sleepers)
