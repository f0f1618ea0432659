"""`python -m bench`: measure this checkout on this machine, on both engines, against its own floor.

`python -m bench counts` counts what commands cost the store; `python -m bench peers` measures other job systems beside
this one.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from bench import counts, machine, report, wrk
from bench.engine import Engine, opened
from bench.passes import Plan
from bench.peers import run as peers
from bench.report import Report
from bench.steps import NAMES, steps

COMMANDS: dict[str, Callable[[list[str]], int]] = {"counts": counts.main, "peers": peers.main}


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("python -m bench", description=__doc__)
    parser.add_argument("--engine", choices=("sqlite", "postgres", "both"), default="both")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a pass; wrk takes whole seconds")
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--client", choices=("auto", "wrk", "python"), default="auto")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=NAMES, help=", ".join(NAMES))
    parser.add_argument("--full", action="store_true", help="up to a million executions and operations")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.add_argument(
        "--write", action="store_true", help="write the tables into bench/README.md, if no request failed"
    )
    return parser.parse_args()


def say(line: str) -> None:
    """Progress, beside the tables."""
    print(line, file=sys.stderr, flush=True)


def measure(engine: Engine, chosen: argparse.Namespace, found: Report) -> None:
    """Everything that was asked for, on one engine; what fails is told, and the rest goes on."""
    for name, figures, step in steps(engine, chosen.full, found):
        if chosen.only and name not in chosen.only:
            continue
        try:
            got = step()
        except Exception as error:
            found.failures.append(f"{engine.name} {name}: {type(error).__name__}: {error}")
            say(found.failures[-1])
            continue
        figures += got if isinstance(got, list) else [got]
        say(f"{engine.name} {name}: {report.brief(figures[-1])}")


def main() -> int:
    """Measure, print, and say by the exit status whether anything went wrong; a missed goal is only shown."""
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        return COMMANDS[sys.argv[1]](sys.argv[2:])
    chosen = options()
    client = chosen.client if chosen.client != "auto" else ("wrk" if wrk.there() else "python")
    plan = Plan(chosen.seconds, chosen.passes, chosen.connections, client)
    found = Report(machine.description(), plan, {}, at=report.now(), full=chosen.full)
    for name in ("sqlite", "postgres") if chosen.engine == "both" else (chosen.engine,):
        with opened(name) as engine:
            found.engines[name] = engine.version
            measure(engine, chosen, found)
    print(report.printed(found))
    if chosen.json:
        chosen.json.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1))
    wrong = bool(found.failures or found.errors)
    if chosen.write and not wrong:
        report.write(found)
    return 1 if wrong else 0


sys.exit(main())
