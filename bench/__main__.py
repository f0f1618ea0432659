"""`python -m bench`: measure this checkout on this machine, on both engines, against its own floor."""

import argparse
import sys
from pathlib import Path

import msgspec

from bench import depth, machine, memory, passes, report, wake, wrk
from bench.cases import CASES
from bench.engine import Engine, opened
from bench.passes import Plan
from bench.report import Report

OTHERS = ("depth", "wake", "memory")
NAMES = (*[case.name for case in CASES], *OTHERS)


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("python -m bench", description=__doc__)
    parser.add_argument("--engine", choices=("sqlite", "postgres", "both"), default="both")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a pass; wrk takes whole seconds")
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--client", choices=("auto", "wrk", "python"), default="auto")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=NAMES, help=", ".join(NAMES))
    parser.add_argument("--full", action="store_true", help="also claim from a million ready items")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.add_argument("--write", action="store_true", help="write the tables into bench/README.md")
    return parser.parse_args()


def say(line: str) -> None:
    """Progress, beside the tables."""
    print(line, file=sys.stderr, flush=True)


def measure(engine: Engine, chosen: argparse.Namespace, found: Report) -> None:
    """Everything that was asked for, on one engine."""
    wanted = set(chosen.only or NAMES)
    for case in CASES:
        if case.name in wanted:
            found.results.append(passes.case(case, engine, found.plan))
            one = found.results[-1]
            say(
                f"{engine.name}: {one.name} {one.rate:,.0f}/s"
                + (f"; {one.errors} ERRORS: {one.said}" if one.errors else "")
            )
    if "depth" in wanted:
        say(f"{engine.name}: depth")
        found.claims += depth.measure(engine, depth.FULL_DEPTHS if chosen.full else depth.DEPTHS, chosen.connections)
    if "wake" in wanted:
        say(f"{engine.name}: wake")
        found.wakes.append(wake.measure(engine))
    if "memory" in wanted:
        say(f"{engine.name}: memory")
        found.idle.append(memory.measure(engine))


def main() -> int:
    """Measure, print, and say by the exit status whether any request went wrong; a missed goal is only shown."""
    chosen = options()
    client = chosen.client if chosen.client != "auto" else ("wrk" if wrk.there() else "python")
    plan = Plan(chosen.seconds, chosen.passes, chosen.connections, client)
    found = Report(machine.description(), plan, {}, at=report.now())
    for name in ("sqlite", "postgres") if chosen.engine == "both" else (chosen.engine,):
        with opened(name) as engine:
            found.engines[name] = engine.version
            measure(engine, chosen, found)
    print(report.text(found))
    if chosen.json:
        chosen.json.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1))
    if chosen.write:
        report.write(found)
    return 1 if any(one.errors for one in (*found.results, *found.claims, *found.wakes)) else 0


sys.exit(main())
