"""The steps of a run: the cases, then what is measured once on an engine."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from bench import flat, growth, history, lists, memory, passes, scale, since, timers, wake
from bench.cases import CASES
from bench.engine import Engine
from bench.report import TABLES, Report

NAMES = (*[case.name for case in CASES], "wake", "memory", *TABLES)


def steps(engine: Engine, full: bool, found: Report) -> Iterator[tuple[str, list[Any], Callable[[], Any]]]:
    """Each step: its name, the list that its figures join, and how to get them; `full` goes to the full sizes."""
    for case in CASES:
        yield case.name, found.results, partial(passes.case, case, engine, found.plan)
    yield "wake", found.wakes, partial(wake.measure, engine)
    yield "memory", found.idle, partial(memory.measure, engine)
    for name, measure in own(engine, full, found.plan.connections).items():
        yield name, found.own.setdefault(name, []), measure


def own(engine: Engine, full: bool, connections: int) -> dict[str, Callable[[], Any]]:
    """The steps with a table of their own."""
    return {
        "flat": partial(flat.measure, engine, connections, flat.FULL_SIZES if full else flat.SIZES),
        "history": partial(history.measure, engine, history.FULL_LENGTHS if full else history.LENGTHS),
        "lists": partial(lists.measure, engine, lists.FULL_EXECUTIONS if full else lists.EXECUTIONS),
        "growth": partial(growth.measure, engine, growth.FULL_OPERATIONS if full else growth.OPERATIONS),
        "scale": partial(scale.measure, engine),
        "timers": partial(
            timers.measure, engine, *((timers.FULL_DUE, timers.FULL_IN_TURN, timers.FULL_PENDING) if full else ())
        ),
        "history-since": partial(since.measure, engine),
    }
