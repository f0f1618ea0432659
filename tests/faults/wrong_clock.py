"""A server process whose own clock is wrong, and may be set while it runs: by a number of milliseconds in a file.

Python imports `sitecustomize` before anything else; ours replaces the functions by which a program asks for the time.
"""

from pathlib import Path

PATCH = """
import os, time
path, real, real_ns = os.environ["HOLDFAST_TEST_CLOCK"], time.time, time.time_ns
def off():
    with open(path) as file:
        return int(file.read() or 0)
time.time = lambda: real() + off() / 1000
time.time_ns = lambda: real_ns() + off() * 1_000_000
"""


class WrongClock:
    """The clock of servers that are started while it is in their environment."""

    def __init__(self, folder: Path, off_ms: int) -> None:
        folder.mkdir()
        self._file = folder / "off"
        (folder / "sitecustomize.py").write_text(PATCH)
        self.environment = {"PYTHONPATH": str(folder), "HOLDFAST_TEST_CLOCK": str(self._file)}
        self.set(off_ms)

    def set(self, off_ms: int) -> None:
        """From now on the clock is wrong by so much."""
        new = self._file.with_name("new")
        new.write_text(str(off_ms))
        new.rename(self._file)
