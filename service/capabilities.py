"""The capabilities, in order: ground, spine, guests. The only registry.

Each is a package of `service` that may bring `store.TABLES`, `rules.RULES`, `rules.LISTENERS`, `routes.ENDPOINTS` and
`examples.EXAMPLES`. The order is the order in which listeners hear a fact.
"""

from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from backends.statements import load
from service.kernel import audit, idempotency, jobs, limits
from service.kernel.command import Rule
from service.kernel.working_set import Listener, Schema

GROUND = ("tenants", "tokens", "definitions")
SPINE = ("executions", "history", "work", "transitions", "alarms", "runs")
GUESTS = (
    "activities",
    "timers",
    "signals",
    "schedules",
    "children",
    "chains",
    "namespaces",
    "workers",
    "operations",
    "retention",
    "audit",
    "portability",
    "http.pages",
)
NAMES = (*GROUND, *SPINE, *GUESTS)


def parts(module: str, name: str, capabilities: Sequence[str] = NAMES) -> Iterator[Any]:
    """What every capability puts into the list `name` of its `module`."""
    for capability in capabilities:
        path = f"service.{capability}.{module}"
        if find_spec(path) is not None:
            yield from getattr(import_module(path), name, ())


def schema() -> Schema:
    """All tables and listeners."""
    listeners: dict[type, list[Listener]] = {}
    for fact, listener in parts("rules", "LISTENERS"):
        listeners.setdefault(fact, []).append(listener)
    own = [idempotency.TABLE, *limits.TABLES, *audit.TABLES, *jobs.TABLES]
    statements = load("sqlite")
    return Schema([*own, *parts("store", "TABLES")], listeners, lambda name: statements[name].columns)


def rules() -> dict[type, Rule]:
    """The rule of every command."""
    return {rule.command: rule for rule in parts("rules", "RULES")}


def endpoints() -> list[Any]:
    """Every endpoint, in the order of the capabilities."""
    return list(parts("routes", "ENDPOINTS"))


def endpoints_by_capability() -> dict[str, list[Any]]:
    """The same, by the name of the capability."""
    return {name: list(parts("routes", "ENDPOINTS", (name,))) for name in NAMES}
