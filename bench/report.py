"""The figures as tables: ratios first, each goal with whether it was reached."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bench.cases import CASES, Goal
from bench.depth import Claimed
from bench.memory import Idle
from bench.passes import Plan, Result
from bench.wake import Wake

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
DEEP, DEEP_RATIO = 1_000_000, 0.9
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


class Report(msgspec.Struct):
    """Everything that one run found out."""

    machine: dict[str, str]
    plan: Plan
    engines: dict[str, str]
    results: list[Result] = []
    claims: list[Claimed] = []
    wakes: list[Wake] = []
    idle: list[Idle] = []
    failures: list[str] = []
    at: str = ""


def judged(goal: Goal, result: Result) -> str:
    """Each part of a goal with its verdict."""
    parts = [
        (goal.ratio, f"≥ {goal.ratio}", result.ratio is not None and result.ratio >= (goal.ratio or 0)),
        (goal.rate, f"≥ {goal.rate:,.0f}/s" if goal.rate else "", result.rate >= (goal.rate or 0)),
        (goal.p99, f"p99 ≤ {goal.p99:g} ms" if goal.p99 else "", result.p99 <= (goal.p99 or 0)),
    ]
    return ", ".join(f"{said} {verdict(reached)}" for wanted, said, reached in parts if wanted is not None)


def verdict(reached: bool) -> str:
    return "pass" if reached else "MISS"


def rows(report: Report, engine: str) -> list[tuple[str, ...]]:
    """The rows of one engine's table."""
    found = [row(one) for one in report.results if one.engine == engine]
    for claimed in (one for one in report.claims if one.engine == engine):
        goal = f"≥ {DEEP_RATIO} {verdict(claimed.ratio >= DEEP_RATIO)}" if claimed.depth == DEEP else ""
        name, ratio = f"claim, {claimed.depth:,} ready", f"{claimed.ratio:.2f} of {report.claims[0].depth:,}"
        figures = (
            f"{claimed.rate:,.0f}",
            "",
            f"{claimed.p99:.1f}",
            f"{claimed.server_us:.0f}",
            "",
            "",
            str(claimed.errors),
        )
        found.append((name, ratio, *figures, goal))
    for wake in (one for one in report.wakes if one.engine == engine):
        found.append(
            ("wake-up of a claim", "", "", f"{wake.p50:.2f}", f"{wake.p99:.2f}", "", "", "", str(wake.errors), "")
        )
    for idle in (one for one in report.idle if one.engine == engine):
        goal = f"≤ {IDLE_MIB:g} MiB {verdict(idle.mib <= IDLE_MIB)}"
        found.append((f"idle memory: {idle.mib:.0f} MiB", *[""] * 8, goal))
    return found


def row(result: Result) -> tuple[str, ...]:
    """A case's row."""
    ratio = "" if result.ratio is None else f"{result.ratio:.2f}"
    database = "" if result.database_us is None else f"{result.database_us:.0f}"
    latencies = f"{result.p50:.2f}", f"{result.p99:.2f}"
    spent = f"{result.server_us:.0f}", database, f"{result.strangers:.2f}", str(result.errors)
    return result.name, ratio, f"{result.rate:,.0f}", *latencies, *spent, judged(GOALS[result.name], result)


def text(report: Report) -> str:
    """For the terminal."""
    parts = [heading(report)]
    for engine, version in report.engines.items():
        lines = [COLUMNS, *rows(report, engine)]
        widths = [max(len(line[at]) for line in lines) for at in range(len(COLUMNS))]
        parts.append(f"\n{version}\n" + "\n".join(aligned(line, widths) for line in lines))
    return "\n".join([*parts, *(f"FAILED {failure}" for failure in report.failures)])


def aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    """Names and goals to the left, figures to the right."""
    last = len(line) - 1
    return "  ".join(
        cell.ljust(width) if at in (0, last) else cell.rjust(width)
        for at, (cell, width) in enumerate(zip(line, widths, strict=True))
    ).rstrip()


def brief(one: Result | Claimed | Wake | Idle) -> str:
    """One line while the run goes on."""
    if isinstance(one, Idle):
        return f"{one.mib:.0f} MiB, {one.started}"
    said = f"p50 {one.p50:.2f}, p99 {one.p99:.2f} ms" if isinstance(one, Wake) else f"{one.rate:,.0f}/s"
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


def markdown(report: Report) -> str:
    """For the README."""
    parts = [heading(report)]
    for engine, version in report.engines.items():
        parts.append(f"\n**{version}**\n")
        parts.append(table_line(COLUMNS))
        parts.append(table_line("---" if at in (0, len(COLUMNS) - 1) else "---:" for at in range(len(COLUMNS))))
        parts += [table_line(line) for line in rows(report, engine)]
    return "\n".join(parts)


def table_line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def write(report: Report) -> None:
    """Put the tables between the markers of the README."""
    before, _, rest = README.read_text("utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    README.write_text(f"{before}{BEGIN}\n{markdown(report)}\n{END}{after}", "utf-8")


def now() -> str:
    """Today, UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%d")
