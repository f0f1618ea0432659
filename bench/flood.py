"""`python -m bench.flood`: what tokens that are not ours cost those who have one.

Starts are measured on many connections, in turns without and with a flood beside them, and the medians compared. A
flood sends one kind of wrong token at a steady rate on connections of its own, every token another one; `all` is every
kind at that rate at once. The goal: at least 90 % of the quiet throughput, no answer from 500 on to anybody, and no
valid request refused.

A machine that others use at the same time moves both rates. What the flood takes of the server's CPU does not depend on
them: a server that is busy all the time loses that share of its throughput, and no more.
"""

import argparse
import asyncio
import contextlib
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import msgspec

from bench import bodies, load, machine, wrk
from bench.engine import Engine, opened
from bench.job import Job, Outcome, Target
from bench.server import TENANT, Running, serving, settle
from service.tokens.secret import ALPHABET, _checksum, mint

GOAL = 0.90
CONNECTIONS = 32
WARM_SECONDS, SPARE_SECONDS = 1.0, 5.0
HEAD = b"GET /v1/tokens/self HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %b\r\n\r\n"


def bad_shape(_token: str) -> str:
    """Too short to be one."""
    return mint("tenant")[0][:60]


def bad_crc(_token: str) -> str:
    """One character wrong."""
    text = mint("tenant")[0]
    return text[:-1] + ALPHABET[ALPHABET.index(text[-1]) - 1]


def unknown_id(_token: str) -> str:
    """Well formed, and nobody's."""
    return mint("tenant")[0]


def wrong_secret(token: str) -> str:
    """The id of a token of ours with another secret."""
    body = token[:23] + mint("tenant")[0][23:66]
    return body + _checksum(body)


KINDS: dict[str, tuple[Callable[[str], str], ...]] = {
    "bad shape": (bad_shape,),
    "bad CRC": (bad_crc,),
    "unknown id": (unknown_id,),
    "wrong secret": (wrong_secret,),
    "all": (bad_shape, bad_crc, unknown_id, wrong_secret),
}


class Result(msgspec.Struct):
    """A kind on an engine: medians of requests a second without and with the flood, and of the server's CPU µs that a
    wrong token took; and what the flood was told."""

    engine: str
    kind: str
    quiet: float
    flooded: float
    sent: float
    each_us: float
    statuses: dict[str, int]
    errors: int

    @property
    def share(self) -> float:
        """Of the quiet throughput, what is left."""
        return self.flooded / self.quiet if self.quiet else 0.0

    @property
    def taken(self) -> float:
        """The share of a core that the flood takes of the server."""
        return self.sent * self.each_us / 1e6

    @property
    def good(self) -> bool:
        """Whether the goal is met."""
        return self.share >= GOAL and not self.errors and not any(code >= "500" for code in self.statuses)


class Flood:
    """Sends wrong tokens at `rate` a second from a thread of its own while the `with` lasts; counts the answers."""

    def __init__(self, running: Running, kinds: tuple[Callable[[str], str], ...], rate: float, seconds: float) -> None:
        self.running, self.rate = running, rate / CONNECTIONS
        count = int(self.rate * (seconds + SPARE_SECONDS))
        self.requests = [
            [HEAD % kind(running.token).encode() for _ in range(count)] for kind in kinds for _ in range(CONNECTIONS)
        ]
        self.statuses: Counter[str] = Counter()
        self.seconds = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Flood":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        began = time.monotonic()
        asyncio.run(self._all())
        self.seconds = time.monotonic() - began

    async def _all(self) -> None:
        await asyncio.gather(*(self._connection(requests) for requests in self.requests))

    async def _connection(self, requests: list[bytes]) -> None:
        """One connection at its share of the rate; what falls behind is caught up."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.running.port)
        due = time.monotonic()
        for request in requests:
            due += 1 / self.rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if self._stop.is_set():
                break
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
            await reader.readexactly(int(length))
            self.statuses[head[9:12].decode()] += 1
        writer.close()


def starts(running: Running, seconds: float, connections: int) -> Outcome:
    """Valid traffic: starts, over and over."""
    request = Target(running.port, running.token).post(bodies.EXECUTIONS, bodies.start())
    job = Job(running.port, [request], connections, seconds, again=True)
    settle()
    return wrk.run(job) if wrk.there() else load.run(job)


class Turn(msgspec.Struct):
    """A quiet pass and a flooded one: their rates, wrong tokens a second, the server's CPU µs for each of those."""

    quiet: float
    flooded: float
    sent: float
    each_us: float


def turn(running: Running, kind: str, asked: argparse.Namespace, told: Counter[str]) -> tuple[Turn, int]:
    """Quiet, then flooded; how many valid requests were refused."""
    flood = Flood(running, KINDS[kind], asked.rate, asked.seconds)
    used = [machine.cpu_seconds(running.pid)]
    calm = starts(running, asked.seconds, asked.connections)
    used.append(machine.cpu_seconds(running.pid))
    with flood:
        rough = starts(running, asked.seconds, asked.connections)
    used.append(machine.cpu_seconds(running.pid))
    told += flood.statuses
    wrong = sum(flood.statuses.values())
    valid = (used[1] - used[0]) / max(calm.requests, 1)
    each = (used[2] - used[1] - valid * rough.requests) / max(wrong, 1)
    return Turn(calm.rate, rough.rate, wrong / flood.seconds, each * 1e6), calm.errors + rough.errors


def measured(engine: Engine, running: Running, kind: str, asked: argparse.Namespace) -> Result:
    """Quiet, flooded, quiet, flooded …"""
    told: Counter[str] = Counter()
    turns = [turn(running, kind, asked, told) for _ in range(asked.passes)]

    def median(name: str) -> float:
        return float(statistics.median(getattr(one, name) for one, _ in turns))

    return Result(
        engine=engine.name,
        kind=kind,
        quiet=median("quiet"),
        flooded=median("flooded"),
        sent=median("sent"),
        each_us=median("each_us"),
        statuses=dict(told),
        errors=sum(errors for _, errors in turns),
    )


def results(asked: argparse.Namespace) -> Iterator[Result]:
    """Every kind on every engine, each engine on one server of its own."""
    for name in ("sqlite", "postgres") if asked.engine == "both" else (asked.engine,):
        with contextlib.ExitStack() as stack:
            engine = stack.enter_context(opened(name))
            running = stack.enter_context(serving(stack.enter_context(engine.store())))
            starts(running, WARM_SECONDS, asked.connections)
            for kind in asked.only or KINDS:
                yield measured(engine, running, kind, asked)


def line(one: Result) -> str:
    """A result as a line of the table."""
    told = ", ".join(f"{status} × {count}" for status, count in sorted(one.statuses.items()))
    return (
        f"| {one.engine} | {one.kind} | {one.quiet:,.0f} | {one.flooded:,.0f} | {one.share:.1%} | {one.sent:,.0f} |"
        f" {one.each_us:,.0f} | {one.taken:.1%} |"
        f" {told} | {one.errors} | {'met' if one.good else 'missed'} |"
    )


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("python -m bench.flood", description=__doc__)
    parser.add_argument("--engine", choices=("sqlite", "postgres", "both"), default="both")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of a pass; the goal is for 60")
    parser.add_argument("--passes", type=int, default=1)
    parser.add_argument("--connections", type=int, default=64, help="of the valid traffic")
    parser.add_argument("--rate", type=float, default=200.0, help="wrong tokens a second, of each kind")
    parser.add_argument("--only", nargs="+", metavar="KIND", choices=KINDS, help=", ".join(KINDS))
    return parser.parse_args()


def main() -> int:
    """Measure, print a line for each kind as it is known, and say by the exit status whether all goals are met."""
    asked, good = options(), True
    print(", ".join(f"{name}: {value}" for name, value in machine.description().items()))
    print(f"{asked.passes} × {asked.seconds:g} s quiet and flooded, {asked.connections} connections, tenant {TENANT}")
    print(f"goal: {GOAL:.0%} of the quiet rate left, no status from 500 on, no valid request refused\n")
    print("| Engine | Flood of | Quiet/s | Flooded/s | Left | Sent/s | µs each | Of a core | Told | Refused | Goal |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---|---:|---|", flush=True)
    for one in results(asked):
        print(line(one), flush=True)
        good &= one.good
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
