"""The figures as tables: ratios first, each goal with whether it was reached."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from bench import flat, growth, history, lists, scale, since, timers, wake
from bench.cases import CASES, Goal
from bench.memory import Idle
from bench.passes import Plan, Result
from bench.table import Table, markdown, text, verdict
from bench.wake import Wake

README = Path(__file__).with_name("README.md")
IDLE_MIB = 120.0
COLUMNS = (
    "case",
    "of the floor",
    "per second",
    "p50 ms",
    "p99 ms",
    "server µs",
    "database µs",
    "others",
    "errors",
    "goal",
)
GOALS = {case.name: case.goal for case in CASES}
TABLES: dict[str, Callable[[Sequence[Any]], Table]] = {
    "flat": flat.table,
    "history": history.table,
    "lists": lists.table,
    "growth": growth.table,
    "scale": scale.table,
    "timers": timers.table,
    "history-since": since.table,
}
"""The steps that have a table of their own, in order."""


class Report(msgspec.Struct):
    """Everything that one run found out; `own` are the figures of the steps that have a table of their own."""

    machine: dict[str, str]
    plan: Plan
    engines: dict[str, str]
    results: list[Result] = []
    wakes: list[Wake] = []
    idle: list[Idle] = []
    own: dict[str, list[Any]] = {}
    failures: list[str] = []
    at: str = ""
    full: bool = False

    @property
    def errors(self) -> int:
        """Requests that were answered wrongly."""
        return sum(one.errors for one in (*self.results, *self.wakes, *(one for of in self.own.values() for one in of)))


def judged(goal: Goal, result: Result) -> str:
    """Each part of a goal with its verdict; a share of the floor also as a rate, of the floor that is asked for."""
    asked = (goal.ratio or 0) * (GOALS["floor"].rate or 0)
    parts = [
        (goal.ratio, f"≥ {goal.ratio}", result.ratio is not None and result.ratio >= (goal.ratio or 0)),
        (goal.ratio, f"≥ {asked:,.0f}/s", result.rate >= asked),
        (goal.rate, f"≥ {goal.rate:,.0f}/s" if goal.rate else "", result.rate >= (goal.rate or 0)),
        (goal.p99, f"p99 ≤ {goal.p99:g} ms" if goal.p99 else "", result.p99 <= (goal.p99 or 0)),
    ]
    return ", ".join(verdict(said, reached) for wanted, said, reached in parts if wanted is not None)


def rows(report: Report, engine: str) -> list[tuple[str, ...]]:
    """The rows of one engine's first table."""
    found = [row(one) for one in report.results if one.engine == engine]
    for one in (one for one in report.wakes if one.engine == engine):
        goals = ((one.p50, "p50", wake.P50), (one.p99, "p99", wake.P99))
        goal = ", ".join(verdict(f"{name} ≤ {most:g} ms", value <= most) for value, name, most in goals)
        latencies = f"{one.p50:.2f}", f"{one.p99:.2f}"
        found.append((f"wake-up, {one.parked} parked", "", "", *latencies, "", "", "", str(one.errors), goal))
    for idle in (one for one in report.idle if one.engine == engine):
        goal = verdict(f"≤ {IDLE_MIB:g} MiB", idle.mib <= IDLE_MIB)
        found.append((f"idle memory: {idle.mib:.0f} MiB", *[""] * 8, goal))
    return found


def row(result: Result) -> tuple[str, ...]:
    """A case's row."""
    ratio = "" if result.ratio is None else f"{result.ratio:.2f}"
    database = "" if result.database_us is None else f"{result.database_us:.0f}"
    latencies = f"{result.p50:.2f}", f"{result.p99:.2f}"
    spent = f"{result.server_us:.0f}", database, f"{result.strangers:.2f}", str(result.errors)
    goal = judged(GOALS[result.name].on(result.engine), result)
    return result.name, ratio, f"{result.rate:,.0f}", *latencies, *spent, goal


def tables(report: Report) -> list[Table]:
    """Every table of a run, engine by engine."""
    found = []
    for engine, version in report.engines.items():
        if first := rows(report, engine):
            found.append(Table(version, COLUMNS, first))
        for name, make in TABLES.items():
            if own := [one for one in report.own.get(name, ()) if one.engine == engine]:
                made = make(own)
                found.append(msgspec.structs.replace(made, title=f"{engine}. {made.title}"))
    return found


def printed(report: Report) -> str:
    """For the terminal."""
    failed = (f"FAILED {failure}" for failure in report.failures)
    return "\n".join([heading(report), *(text(one) for one in tables(report)), *failed])


def brief(one: Any) -> str:
    """One line while the run goes on."""
    if isinstance(one, Idle):
        return f"{one.mib:.0f} MiB, {one.started}"
    said = f"{one.rate:,.0f}/s" if hasattr(one, "rate") else ""
    if not said and hasattr(one, "p50"):
        said = f"p50 {one.p50:.2f}, p99 {one.p99:.2f} ms"
    if isinstance(one, Result) and one.ratio is not None:
        said += f", {one.ratio:.2f} of the floor"
    return said + (f", {one.errors} ERRORS {getattr(one, 'said', '')}" if one.errors else "")


def heading(report: Report) -> str:
    """Machine, time and manner."""
    m, plan = report.machine, report.plan
    return (
        f"{report.at}: {m['cores']} cores, {m['cpu']}, {m['memory']}, Python {m['python']}; medians of {plan.passes} "
        f"passes of {plan.seconds:g} s, {plan.connections} connections, client {plan.client}, client and database on "
        "the same cores."
    )


def write(report: Report) -> None:
    """Put the tables into the README, in place of those before; those of full sizes have a place of their own."""
    place(
        "full" if report.full else "figures", "\n".join([heading(report), *(markdown(one) for one in tables(report))])
    )


def place(name: str, body: str) -> None:
    """Put a text between the markers `<!-- name: begin -->` and `<!-- name: end -->` of the README."""
    begin, end = (f"<!-- {name}: {which} -->" for which in ("begin", "end"))
    before, _, rest = README.read_text("utf-8").partition(begin)
    after = rest.partition(end)[2]
    README.write_text(f"{before}{begin}\n{body}\n{end}{after}", "utf-8")


def now() -> str:
    """Today, UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%d")
