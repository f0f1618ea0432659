"""Being told to end in the middle of something that would leave half of it."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def through_the_door() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does, so that it takes away what it has begun; exit code 128 and the
    signal. What is ignored (nohup) stays so."""
    ends = [one for one in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) is signal.SIG_DFL]
    for one in ends:
        signal.signal(one, leave)
    try:
        yield
    finally:
        for one in ends:
            signal.signal(one, signal.SIG_DFL)


def leave(number: int, _frame: Any) -> None:
    """Go, by every `finally` on the way."""
    sys.exit(128 + number)
