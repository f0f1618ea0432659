"""Passes: a case is run several times on a store of its own, each time beside a short pass of the floor.

The machine's speed drifts (and others may use it), so a ratio compares a pass with the floor measured just before it;
what is reported is the median over the passes.
"""

import contextlib
import math
import statistics
from collections.abc import Callable

import msgspec

from bench import load, machine, wrk
from bench.cases import FLOOR_CASE, WARM, Case
from bench.engine import Engine
from bench.job import Job, Outcome
from bench.server import Running, serving, settle

FLOOR_SECONDS = 1.0
SPARE = 1.5
CALM, TRIES = 0.15, 2


class Plan(msgspec.Struct, frozen=True):
    """How long, how often and from how many connections to measure; `client` is `wrk` or `python`."""

    seconds: float = 3.0
    passes: int = 3
    connections: int = 64
    client: str = "wrk"


class Pass(msgspec.Struct):
    """One pass: the outcome, CPU µs per request of server and database, cores that strangers used meanwhile."""

    outcome: Outcome
    server_us: float
    database_us: float | None
    strangers: float
    floor: float = 0.0


class Result(msgspec.Struct):
    """A case on an engine: medians over its passes; `rate` counts commands, not requests."""

    engine: str
    name: str
    rate: float
    ratio: float | None
    p50: float
    p99: float
    server_us: float
    database_us: float | None
    errors: int
    said: str
    strangers: float
    rates: list[float]
    client: str


def job_of(case: Case, running: Running, requests: list[bytes], plan: Plan, seconds: float) -> Job:
    """The job of a case."""
    then = case.then and case.then(running.target)
    return Job(running.port, requests, case.connections or plan.connections, seconds, case.again, case.expect, then)


def client_of(case: Case, plan: Plan) -> tuple[str, Callable[[Job], Outcome]]:
    """Who sends: `wrk`, but for batches, where a 200 may hold refusals and every answer must be looked into."""
    return ("wrk", wrk.run) if plan.client == "wrk" and case.per == 1 and case.then is None else ("python", load.run)


def measured(engine: Engine, running: Running, run: Callable[[Job], Outcome], job: Job) -> Pass:
    """Run a job and read the clocks of everybody involved, before and after."""

    def clocks() -> tuple[float, float, float, float]:
        database = machine.family_seconds(engine.postmaster) if engine.postmaster else 0.0
        return machine.cpu_seconds(running.pid), database, machine.own_seconds(), machine.busy_seconds()

    before = clocks()
    outcome = run(job)
    server, database, own, busy = (now - then for now, then in zip(clocks(), before, strict=True))
    each = 1e6 / max(outcome.requests, 1)
    strangers = max(0.0, busy - server - database - own) / max(job.seconds, outcome.seconds)
    return Pass(outcome, server * each, database * each if engine.postmaster else None, strangers)


def warmed(case: Case, running: Running, plan: Plan) -> float:
    """Send a little of everything and look into every answer; the rate that the passes are stocked for."""
    rate = 0.0
    for one in (FLOOR_CASE, case):
        requests = one.make(running.target, max(int(WARM // max(one.per, 1)), 40))
        outcome = load.run(job_of(one, running, requests, plan, FLOOR_SECONDS))
        if outcome.errors:
            raise RuntimeError(
                f"{outcome.errors} of {outcome.requests} answers to {one.name} are wrong: {outcome.said}"
            )
        rate = outcome.rate
    return rate


def one_pass(case: Case, engine: Engine, running: Running, plan: Plan, rate: float) -> Pass:
    """Stock, floor, case."""
    client = client_of(case, plan)[1]
    requests = case.make(running.target, math.ceil(rate * plan.seconds * SPARE) + 64)
    settle()
    if case is FLOOR_CASE:
        return measured(engine, running, client, job_of(case, running, requests, plan, plan.seconds))
    floor = FLOOR_CASE.make(running.target, 1)
    beside = measured(
        engine, running, client_of(FLOOR_CASE, plan)[1], job_of(FLOOR_CASE, running, floor, plan, FLOOR_SECONDS)
    )
    found = measured(engine, running, client, job_of(case, running, requests, plan, plan.seconds))
    found.floor, found.strangers = beside.outcome.rate, max(found.strangers, beside.strangers)
    return found


def calm_pass(case: Case, engine: Engine, running: Running, plan: Plan, rate: float) -> Pass:
    """A pass that others did not disturb; where they always do, the one that they disturbed least."""
    best = one_pass(case, engine, running, plan, rate)
    for _ in range(TRIES - 1):
        if best.strangers > CALM:
            best = min(best, one_pass(case, engine, running, plan, rate), key=lambda found: found.strangers)
    return best


def case(case: Case, engine: Engine, plan: Plan) -> Result:
    """A case on a fresh store and server."""
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(serving(stack.enter_context(engine.store())))
        rate, passes = warmed(case, running, plan), []
        for _ in range(plan.passes):
            passes.append(calm_pass(case, engine, running, plan, rate))
            rate = max(rate, passes[-1].outcome.rate)
    return result(case, engine, plan, passes)


def result(case: Case, engine: Engine, plan: Plan, passes: list[Pass]) -> Result:
    """The medians."""
    rates = [one.outcome.rate * case.per for one in passes]
    # The floor is measured on many connections: it says nothing about one alone.
    beside = [] if case.connections == 1 else [one.floor for one in passes]
    ratios = [rate / floor for rate, floor in zip(rates, beside, strict=False) if floor]
    databases = [one.database_us / case.per for one in passes if one.database_us is not None]
    return Result(
        engine=engine.name,
        name=case.name,
        rate=statistics.median(rates),
        ratio=statistics.median(ratios) if ratios else None,
        p50=statistics.median(one.outcome.p50 for one in passes),
        p99=statistics.median(one.outcome.p99 for one in passes),
        server_us=statistics.median(one.server_us / case.per for one in passes),
        database_us=statistics.median(databases) if databases else None,
        errors=sum(one.outcome.errors for one in passes),
        said=next((one.outcome.said for one in passes if one.outcome.said), ""),
        strangers=statistics.median(one.strangers for one in passes),
        rates=rates,
        client=client_of(case, plan)[0],
    )
