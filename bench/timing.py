"""`python -m bench.timing`: whether the time of a refusal says anything about the secret that was presented.

A wrong secret is refused by its reject tag, an unknown id by a tag that nobody has. Each of the classes below is timed
against wrong secrets that share nothing with the right one, one after the other in a random order, and the differences
are judged (t, in pairs). The goal: |t| under 4.5 over 50,000 samples each, which is what is asked of code that leaks
nothing.
"""

import argparse
import gc
import random
import statistics
import time
from collections.abc import Callable

from bench import machine
from service.tokens.secret import ALPHABET, Presented, mint, reject_tag
from service.tokens.verify import NO_TAG, Verifier

GOAL = 4.5
CUT = 0.9
"""The share of the samples that counts: the longest are interrupts."""
CONTROL = "wrong from the first place"


def wrong_from(right: str, at: int) -> str:
    """A secret that is right up to a place, and wrong from there on."""
    rest = mint("tenant")[1].secret[at:]
    other = ALPHABET[(ALPHABET.index(right[at]) + 1) % len(ALPHABET)]
    return right[:at] + other + rest[1:]


def classes(right: Presented) -> dict[str, Callable[[], tuple[Presented, bytes]]]:
    """What is presented, and the tag that it is held against."""
    tag = reject_tag(right.id, right.secret)

    def at(place: int) -> Callable[[], tuple[Presented, bytes]]:
        return lambda: (Presented("tenant", right.id, wrong_from(right.secret, place)), tag)

    return (
        {CONTROL: at(0)}
        | {f"wrong from place {place}": at(place) for place in (1, 21, 42)}
        | {"unknown id": lambda: (mint("tenant")[1], NO_TAG)}
    )


def sampled(verifier: Verifier, right: Presented, samples: int) -> dict[str, list[int]]:
    """Nanoseconds of each class, and of `base`."""
    made = {"base": classes(right)[CONTROL], **classes(right)}
    taken: dict[str, list[int]] = {name: [] for name in made}
    names = list(made)
    for _ in range(samples):
        random.shuffle(names)  # what was made first is a little slower, whatever it is
        ready = [(name, *made[name]()) for name in names]
        random.shuffle(ready)
        verifier.seen(ready[0][1], ready[0][2], "")
        for name, presented, tag in ready:
            began = time.perf_counter_ns()
            verifier.seen(presented, tag, "")
            taken[name].append(time.perf_counter_ns() - began)
    return taken


def paired(one: list[int], other: list[int]) -> float:
    """The t of the differences of two classes, each in its own round, the largest left out."""
    found = sorted((mine - its for mine, its in zip(one, other, strict=True)), key=abs)
    kept = found[: int(len(found) * CUT)]
    spread = statistics.pstdev(kept) / len(kept) ** 0.5
    return statistics.fmean(kept) / spread if spread else 0.0


def main() -> int:
    """Measure, print a line for each class, and say by the exit status whether the goal is met."""
    parser = argparse.ArgumentParser("python -m bench.timing", description=__doc__)
    parser.add_argument("--samples", type=int, default=50_000)
    asked = parser.parse_args()
    print(", ".join(f"{name}: {value}" for name, value in machine.description().items()))
    print(f"{asked.samples:,} samples of each; goal: |t| < {GOAL}\n")
    verifier, right = Verifier(workers=1), mint("tenant")[1]
    sampled(verifier, right, 1_000)
    gc.disable()
    taken = sampled(verifier, right, asked.samples)
    gc.enable()
    verifier.close()
    base = taken.pop("base")
    print("| Presented | Median ns | t | Goal |\n|---|---:|---:|---|")
    good = True
    for name, times in taken.items():
        t = paired(times, base)
        good &= abs(t) < GOAL
        print(f"| {name} | {statistics.median(times):,.0f} | {t:+.2f} | {'met' if abs(t) < GOAL else 'missed'} |")
    print(f"\n{CONTROL!r} is the same as what it is held against: where it misses, the machine is too busy to tell.")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
