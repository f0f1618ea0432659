"""Figures of the long forms: `python -m tests.faults.evidence` runs them and writes `docs/evidence.md`.

A test calls `record` with what it counted. Without the variable that the command sets, nothing is kept. Figures of the
promises that were run replace the older ones; the others stay as they are, with their dates.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from bench import machine

VARIABLE = "HOLDFAST_EVIDENCE"
PAGE = Path(__file__).parents[2] / "docs" / "evidence.md"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
LINE = re.compile(r"^\| (?P<promise>[^|]+) \| (?P<engine>[^|]+) \| (?P<date>[^|]+) \| (?P<figures>[^|]+) \|$", re.M)


class Kept(msgspec.Struct):
    """What one long form counted."""

    promise: str
    engine: str
    date: str
    figures: dict[str, Any]


def record(promise: str, engine: str, **figures: Any) -> None:
    """Keep the figures of a long form that held: `promise` is a short sentence, figures are counts and seconds."""
    if path := os.environ.get(VARIABLE):
        kept = Kept(promise, engine, datetime.now(UTC).strftime("%Y-%m-%d"), figures)
        with Path(path).open("ab") as file:
            file.write(msgspec.json.encode(kept) + b"\n")


def drawn(kept: list[Kept], before: str) -> str:
    """The table: what was run now over what stood there."""
    rows = {(found["promise"], found["engine"]): found.group(0) for found in LINE.finditer(before)}
    for one in kept:
        said = ", ".join(f"{name.replace('_', ' ')} {shown(value)}" for name, value in one.figures.items())
        rows[one.promise, one.engine] = f"| {one.promise} | {one.engine} | {one.date} | {said} |"
    head = "| Promise | Engine | Date | Figures |\n| --- | --- | --- | --- |\n"
    named = {at: row for at, row in rows.items() if at[0] not in ("Promise", "---")}
    return head + "\n".join(named[at] for at in sorted(named)) + "\n"


def shown(value: Any) -> str:
    """A figure as people write it."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.2f}" if isinstance(value, float) else str(value)


def write(kept: list[Kept]) -> None:
    """Put the table between the markers of the page."""
    head, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    body, _, tail = rest.partition(END)
    facts = machine.description()
    said = f"Latest run: {facts['cores']} cores, {facts['cpu']}, {facts['memory']}, Python {facts['python']}."
    PAGE.write_text(f"{head}{BEGIN}\n{said}\n\n{drawn(kept, body)}{END}{tail}", "utf-8")


def main() -> int:
    """Run the long forms that are named (default: all), and write down what the ones that held have counted."""
    parser = argparse.ArgumentParser("python -m tests.faults.evidence", description=__doc__)
    parser.add_argument("tests", nargs="*", default=["tests/faults"], help="files or folders, as pytest takes them")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="holdfast-evidence-") as folder:
        told = Path(folder, "figures")
        told.touch()
        command = [sys.executable, "-m", "pytest", "-m", "slow", "-n", "0", *chosen.tests]
        status = subprocess.run(command, env=os.environ | {VARIABLE: str(told)}, check=False).returncode
        write([msgspec.json.decode(line, type=Kept) for line in told.read_bytes().splitlines()])
    return status


if __name__ == "__main__":
    sys.exit(main())
