"""What row level security costs on Postgres: a server with it beside one without, in turn.

    python -m bench.fence --pairs 12

Each server has a store of its own on one Postgres. The two take turns, the first of a pair by turns as well, so that a
machine that changes its speed changes it for both. Throughput is the median of the pairs' ratios; processor time, of
server and database together, is the steadier figure.
"""

import argparse
import contextlib
import statistics

import msgspec

from bench import machine
from bench.cases import CASES, Case
from bench.engine import Engine, opened
from bench.passes import Pass, Plan, one_pass, warmed
from bench.server import Running, serving

GOAL = 0.05
NAMES = ("start", "claim", "complete", "transition-light", "append")


class Cost(msgspec.Struct, frozen=True):
    """Of one case: how much less is done with the fence (median of pairs), and how much more processor time it takes,
    as fractions; the least and the most of the pairs; and the microseconds without and with."""

    name: str
    less: float
    least: float
    most: float
    more: float
    without_us: float
    with_us: float

    @property
    def good(self) -> bool:
        """Whether the goal is met: in what is done, and in what it takes."""
        return max(self.less, self.more) <= GOAL


def cost(case: Case, engine: Engine, pairs: int) -> Cost:
    """Measure one case."""
    plan = Plan(seconds=1.0)
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(serving(stack.enter_context(engine.store()), postgres_unfenced=unfenced))
            for unfenced in (True, False)
        ]
        rates = [warmed(case, running, plan) for running in servers]
        found = [pair(case, engine, servers, plan, rates, number % 2) for number in range(pairs)]
    less = [1 - fenced.outcome.rate / plain.outcome.rate for plain, fenced in found]
    without, with_ = (statistics.median(work_us(two[at]) for two in found) for at in (0, 1))
    return Cost(case.name, statistics.median(less), min(less), max(less), with_ / without - 1, without, with_)


def pair(
    case: Case, engine: Engine, servers: list[Running], plan: Plan, rates: list[float], first: int
) -> tuple[Pass, Pass]:
    """A pass of each, that of `first` before the other; what each was capable of is remembered for its next one."""
    made: dict[int, Pass] = {}
    for at in (first, 1 - first):
        made[at] = one_pass(case, engine, servers[at], plan, rates[at])
        if made[at].outcome.errors:
            raise RuntimeError(f"{case.name}: {made[at].outcome.said}")
        rates[at] = max(rates[at], made[at].outcome.rate)
    return made[0], made[1]


def work_us(one: Pass) -> float:
    """Processor time of server and database for a request."""
    return one.server_us + (one.database_us or 0.0)


def line(one: Cost) -> str:
    """A case as a line of the table."""
    return (
        f"| {one.name} | {one.less:.1%} | {one.least:.0%} … {one.most:.0%} | {one.more:.1%} | "
        f"{one.without_us:.0f} | {one.with_us:.0f} | {'met' if one.good else 'missed'} |"
    )


def main() -> int:
    """Measure, print a line for each case, and say by the exit status whether the goal is met."""
    parser = argparse.ArgumentParser("python -m bench.fence", description=__doc__)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--only", nargs="+", metavar="CASE", choices=NAMES, default=NAMES, help=", ".join(NAMES))
    asked, good = parser.parse_args(), True
    print(", ".join(f"{name}: {value}" for name, value in machine.description().items()))
    print(f"goal: at most {GOAL:.0%} less done, and at most {GOAL:.0%} more processor time\n")
    print("| Case | Less done | Least … most | More CPU | µs without | with | Goal |")
    print("|---|---:|---:|---:|---:|---:|---|", flush=True)
    cases = [case for case in CASES if case.name in asked.only]
    with opened("postgres") as engine:
        for case in cases:
            one = cost(case, engine, asked.pairs)
            print(line(one), flush=True)
            good &= one.good
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
