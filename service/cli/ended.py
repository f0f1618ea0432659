"""Being told to end in the middle of something that would leave half of it."""

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

UNTOUCHED = (signal.SIG_DFL, signal.default_int_handler)


def through_the_door() -> contextlib.AbstractContextManager[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does, so that it takes away what it has begun; exit code 128 and the
    signal. What is ignored (nohup) stays so."""
    return answered((signal.SIGTERM, signal.SIGHUP), leave)


def in_peace() -> contextlib.AbstractContextManager[None]:
    """The same for what goes on until it is told to end, before it begins and after it ended: the exit code is 0, also
    for Ctrl-C."""
    return answered((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), retire)


@contextlib.contextmanager
def answered(signals: tuple[signal.Signals, ...], by: Callable[[int, Any], None]) -> Iterator[None]:
    """Signals to which nobody else sees."""
    before = {one: how for one in signals if (how := signal.getsignal(one)) in UNTOUCHED}
    for one in before:
        signal.signal(one, by)
    try:
        yield
    finally:
        for one, how in before.items():
            signal.signal(one, how)


def leave(number: int, _frame: Any) -> None:
    """Go, by every `finally` on the way."""
    sys.exit(128 + number)


def retire(_number: int, _frame: Any) -> None:
    """Go so with nothing amiss."""
    sys.exit(0)
