"""stdout as it may come: closed, full, short of letters, or a pipe whose reader has gone."""

import io
import os
import sys


def open_the_closed() -> None:
    """What came closed (`holdfast … >&-`) says nothing, and leaves its number to no file that is opened later."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  for as long as the process lives


def spell_out() -> None:
    """What the locale's letters cannot write (a dash in ASCII, a name that is no text) is written as an escape, as on
    stderr, and is no reason to fail."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def fits(text: str) -> bool:
    """Whether the locale's letters can write it."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def print_document(text: str) -> None:
    """Print what programs read: in UTF-8, whatever the locale."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace"))
    sys.stdout.buffer.flush()


def say_no_more() -> None:
    """Drop what could not be written: it would fail again at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def announce(line: str) -> None:
    """Print a line, or lose it: that nobody can read it is no reason not to serve."""
    try:
        print(line, flush=True)
    except OSError:
        say_no_more()
