"""One world again, with a trace of its last steps: `python -m tests.simulator --seed 7 --steps 1234`.

With `--worlds 50`, so many worlds from that seed on, and how fast they went. A failure is looked at once more: the
trace shows the steps before it, and of what came earlier the lines that speak of the same things.
"""

import argparse
import re
import sys
from collections import deque

from tests.simulator.simulate import Failed, many, simulate

NAMED = re.compile(r"'([\w-]{2,})'")
LAST, WIDE = 40, 400


def told(trace: deque[str], cause: str) -> list[str]:
    """The last lines, and of those before the ones that name what the failure names."""
    lines = list(trace)
    names = [name for name in NAMED.findall(cause) if name not in ("acme", "globex", "leased", "ready")][:3]
    earlier = [line for line in lines[:-LAST] if any(name in line for name in names)]
    return [line[:WIDE] for line in (*earlier[-LAST:], "        …", *lines[-LAST:])]


def again(seed: int, steps: int, engine: bool) -> int:
    """The world of a seed up to a step, traced if it fails."""
    trace: deque[str] = deque(maxlen=5_000)
    try:
        world = simulate(seed, steps, shape={"engine": engine}, trace=trace)
    except Failed as failure:
        print(*told(trace, str(failure.cause)), sep="\n")
        print(f"\n{failure}")
        return 1
    print(f"seed {seed} held for {steps} steps: {dict(sorted(world.counts.items()))}")
    return 0


def main() -> int:
    """As the command line says."""
    parser = argparse.ArgumentParser("python -m tests.simulator", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--worlds", type=int, default=1)
    parser.add_argument("--engine", action="store_true", help="a world of workflows")
    said = parser.parse_args()
    if said.worlds == 1:
        return again(said.seed, said.steps, said.engine)
    try:
        print(many(said.seed, said.steps, said.worlds, engine=said.engine))
    except Failed as failure:
        print(failure)
        return again(failure.seed, failure.step, said.engine)
    return 0


if __name__ == "__main__":
    sys.exit(main())
