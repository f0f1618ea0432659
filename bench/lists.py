"""How long lists and filters take over many executions: twenty workflows, a customer and an amount on each, one in ten
completed, one in a hundred failed.

Postgres is told to analyze the store first, which it does by itself within a minute or so: until then it cannot know
how rare a value is.
"""

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from bench import bodies, load, postgres, stock
from bench.engine import Engine
from bench.job import Job, Target
from bench.server import serving, settle
from bench.table import Table, verdict

EXECUTIONS, FULL_EXECUTIONS = 100_000, 1_000_000
CONNECTIONS, TIMES = 4, 200
P95 = 100.0
CUSTOMERS, AMOUNTS = 10_000, 1_000_000
FILTERS = {
    "customer": "attr.customer = 'c42'",
    "nobody's": "attr.customer = 'nobody' AND status = 'running'",
    "amounts from": f"attr.amount > {AMOUNTS - 1_000}",
    "failed of a workflow": "status = 'failed' AND workflow_id = 'wf7'",
    "running of two customers": "status = 'running' AND attr.customer IN ('c1', 'c2')",
}
QUERIES = {
    "the newest": "limit=50",
    "the oldest": "limit=50&sort=created_asc",
    "last changed": "limit=50&sort=updated",
    "failed": "limit=50&status=failed",
    "completed": "limit=50&status=completed",
    "of a workflow": "limit=50&workflow_id=wf7",
} | {name: f"limit=50&filter={quote(text)}" for name, text in FILTERS.items()}


class Listed(msgspec.Struct):
    """One list over so many executions, in milliseconds."""

    engine: str
    name: str
    executions: int
    p50: float
    p95: float
    p99: float
    errors: int


def start(at: int) -> dict[str, Any]:
    """The start of execution number `at`; the numbers are spread, so that neighbours have nothing in common."""
    spread = at * 7_919
    attributes = {"customer": f"c{spread % CUSTOMERS}", "amount": spread % AMOUNTS}
    return {"workflow_id": f"wf{spread % 20}", "execution_id": f"e{at}", "input": None, "attributes": attributes}


def end(at: int) -> dict[str, Any]:
    """The transition that ends execution number `at`."""
    status = "failed" if at % 100 == 0 else "completed"
    return {"execution_id": f"e{at}", "changes": [{"type": "set_status", "status": status}]}


def fill(target: Target, count: int) -> None:
    """Make them."""
    for path, make, step in ((f"{bodies.EXECUTIONS}:batch", start, 1), ("/v1/transitions:batch", end, 10)):
        numbers = iter(range(0, count, step))
        while chunk := list(itertools.islice(numbers, stock.AT_ONCE * 50)):
            cut = [chunk[at : at + stock.AT_ONCE] for at in range(0, len(chunk), stock.AT_ONCE)]
            stock.send(target, [target.post(path, [make(at) for at in one]) for one in cut])


def measure(engine: Engine, count: int = EXECUTIONS, times: int = TIMES) -> list[Listed]:
    """Every list, from a few connections at once."""
    found = []
    with engine.store() as url, serving(url) as running:
        fill(running.target, count)
        if engine.name == "postgres":
            asyncio.run(postgres.execute(url, "ANALYZE"))
        settle(2.0)
        for name, query in QUERIES.items():
            request = running.target.get(f"{bodies.EXECUTIONS}?{query}")
            load.run(Job(running.port, [request] * 8, CONNECTIONS, 120))
            outcome = load.run(Job(running.port, [request] * times, CONNECTIONS, 120, expect=(b'"next_cursor":', 1)))
            figures = outcome.p50, outcome.p95, outcome.p99, outcome.errors
            found.append(Listed(engine.name, name, count, *figures))
    return found


def table(found: Sequence[Listed]) -> Table:
    """One row a list."""
    rows = [
        (
            one.name,
            *(f"{value:.1f}" for value in (one.p50, one.p95, one.p99)),
            str(one.errors),
            verdict(f"p95 ≤ {P95:g} ms", one.p95 <= P95),
        )
        for one in found
    ]
    title = f"Lists of 50 over {found[0].executions:,} executions, {CONNECTIONS} connections" if found else "Lists"
    return Table(title, ("list", "p50 ms", "p95 ms", "p99 ms", "errors", "goal"), rows)
