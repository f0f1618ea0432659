"""stdout as it may come: closed, full, or a pipe whose reader has gone."""

import os
import sys


def open_the_closed() -> None:
    """What came closed (`holdfast … >&-`) says nothing, and leaves its number to no file that is opened later."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  for as long as the process lives


def say_no_more() -> None:
    """Drop what could not be written: it would fail again at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def announce(line: str) -> None:
    """Print a line, or lose it: that nobody can read it is no reason not to serve."""
    try:
        print(line, flush=True)
    except OSError:
        say_no_more()
