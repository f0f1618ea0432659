"""Who may import whom: the table of the architecture, held to."""

import ast
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import pytest

from service.capabilities import GROUND, GUESTS, NAMES, SPINE
from tests.tidy.house import Module, modules

PURE = tuple(
    f"service.kernel.{name}"
    for name in (
        "view", "tables", "command", "states", "events", "limits", "audit", "jobs", "raw", "json", "ids", "principal",
    )
)  # fmt: skip
SEAM = ("backends.protocol", "backends.errors")
SHARED = ("service.executions.prepare", "service.work.waiting")
"""Of one capability's files, what the routes of another may use besides models."""
MAY = {
    "model": (*PURE, "service.errors", "service.*.model"),
    "rules": (*PURE, "service.errors", "service.*.model", "service.*.rules", "service.*.rules_*"),
    "store": (*PURE, "{own}.model", *SEAM),
    "claims": ("service.kernel.*", "service.errors", "service.*.model", *SEAM),
    "routes": ("service.kernel.*", "service.http.*", "service.errors", "service.*.model", "{own}.*", *SEAM, *SHARED),
    "examples": ("service.http.*", "service.errors", "service.*.model", "{own}.*"),
    "sweeps": ("service.kernel.*", "service.errors", "service.*.model", "{own}.*", *SEAM),
    "": ("service.kernel.*", "service.errors", "service.*.model", "{own}", "{own}.*", *SEAM),
}
"""Part of a capability → what it may import of ours; `""` is any other file of it."""
EXCEPTIONS = {
    (
        "service.work.rules",
        "service.work.claims",
    ): "a Rule names the Chooser that picks its rows; claims decides nothing",
    ("service.workers.rules", "service.workers.claims"): "as above",
    ("service.executions.prepare", "service.http.endpoint"): "it reads what an endpoint is sent",
    ("service.work.waiting", "service.http.endpoint"): "it waits for whoever calls, over HTTP",
    ("service.work.waiting", "service.http.batch"): "a claim settles as a batch does, each for itself",
    ("service.work.waiting", "service.http.answer"): "what a repeat is answered is encoded anew",
    ("service.runs.commands", "service.http.endpoint"): "it reads what an endpoint is sent",
    ("service.runs.commands", "service.http.batch"): "as above",
    ("service.runs.commands", "service.capabilities"): "the commands of every capability, each known to its own only",
    ("service.history.rules", "service.history.fold"): "the fold is as pure as a rule, and has a file of its own",
    ("service.chains.rules", "service.history.fold"): "the fold is as pure as a rule: the state of a reset run",
    ("service.chains.rules", "service.runs.commands"): "a reset asks anew for what a step said, whoever's it is",
    ("service.schedules.rules", "service.schedules.times"): "the arithmetic of times is as pure as a rule",
    ("service.operations.routes", "service"): "the version",
    ("service.portability.tables", "backends.portable"): "which tables travel follows from the migrations",
    ("service.portability.tables", "backends.migrate"): "the schema of an export is the last migration",
}
"""(importer, imported) → why the table does not apply."""
UPWARDS = {
    ("service.definitions.model", "service.work.model"): "a start node carries a work item's Retry",
    ("service.definitions.routes", "service.work.model"): "a start node carries a work item's Retry",
}
"""(importer, imported) → why a lower tier imports a higher one."""
HTTP_KNOWS = {
    ("service.http.contract", "service.tokens.secret"): "the pattern of a token, for the document's security scheme",
    ("service.http.answer", "service.tokens.secret"): "what a token looks like, to keep it out of refusals",
}
"""(importer, imported) → why the server's own part knows something of a capability."""
IMPURE = frozenset(
    {"apsw", "asyncio", "os", "random", "secrets", "socket", "sqlite3", "subprocess", "threading", "time", "uuid"}
)
"""What no rule may import: clocks, chance and the outside. `view.now`, `view.chance` and `view.new_id()` are given."""
CONNECTING = (
    "backends.connect",
    "backends.sqlite",
    "backends.postgres",
    "backends.postgres_hosts",
    "backends.postgres_listen",
)


class Import(NamedTuple):
    """`importer` imports `imported`, at a line."""

    importer: str
    imported: str
    line: int


def imports(module: Module) -> Iterator[Import]:
    """Everything a module imports; `from x import y` is `x.y` where that is a module of ours."""
    ours = {one.name for one in modules()}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module.name, alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module.name}:{node.lineno} imports relatively; write the whole name"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield Import(
                    module.name, whole if whole in ours or whole in CONNECTING else node.module or "", node.lineno
                )


def all_imports() -> list[Import]:
    """Every import of the house."""
    return [one for module in modules() for one in imports(module)]


def ours(name: str) -> bool:
    """Whether a module belongs to us."""
    return name.split(".")[0] in ("service", "backends", "migrations")


def capability_of(name: str) -> str | None:
    """The capability that a module is part of."""
    return next((own for own in NAMES if f"{name}.".startswith(f"service.{own}.")), None)


def part_of(name: str) -> str:
    """The part of a capability: `rules` for `service.work.rules` and `service.work.rules_queues`; `""` for
    a file that only this capability has."""
    part = name.removeprefix(f"service.{capability_of(name)}.").partition("_")[0]
    return part if part in MAY else ""


def tier(capability: str) -> int:
    """Ground 0, spine 1, guests 2."""
    return next(index for index, names in enumerate((GROUND, SPINE, GUESTS)) if capability in names)


def against_the_table(one: Import) -> str | None:
    """What is wrong with an import by a part of a capability; None if nothing."""
    own = capability_of(one.importer)
    if own is None or not ours(one.imported) or (one.importer, one.imported) in EXCEPTIONS:
        return None
    may = [pattern.replace("{own}", f"service.{own}") for pattern in MAY[part_of(one.importer)]]
    if any(fnmatchcase(one.imported, pattern) for pattern in may):
        return None
    return f"{one.importer}:{one.line} imports {one.imported}; it may import {', '.join(may)}"


def against_the_tiers(one: Import) -> str | None:
    """What is wrong with an import of one capability by another; None if nothing."""
    own, other = capability_of(one.importer), capability_of(one.imported)
    if own is None or other is None or own == other or (one.importer, one.imported) in UPWARDS:
        return None
    if tier(other) > tier(own):
        return f"{one.importer}:{one.line} imports {one.imported}: {own} must not know {other}; tell a fact instead"
    if tier(own) == tier(other) == 2:
        return f"{one.importer}:{one.line} imports {one.imported}: guests do not know each other"
    return None


def test_backends_know_nothing_of_the_service() -> None:
    assert not [
        one for one in all_imports() if one.importer.startswith("backends") and one.imported.startswith("service")
    ]


def test_each_part_of_a_capability_imports_what_its_place_allows() -> None:
    assert not [said for one in all_imports() if (said := against_the_table(one))]


def test_the_spine_does_not_know_its_guests_and_guests_do_not_know_each_other() -> None:
    assert not [said for one in all_imports() if (said := against_the_tiers(one))]


def test_an_exception_that_is_no_longer_needed_is_taken_off_the_list() -> None:
    made = {(one.importer, one.imported) for one in all_imports()}
    assert not [pair for pair in (*EXCEPTIONS, *UPWARDS, *HTTP_KNOWS) if pair not in made]


@pytest.mark.parametrize("layer", ["service.kernel", "service.http"])
def test_kernel_and_http_know_no_capability(layer: str) -> None:
    below = [one for one in all_imports() if one.importer.startswith(layer) and capability_of(one.importer) is None]
    assert not [one for one in below if capability_of(one.imported) and (one.importer, one.imported) not in HTTP_KNOWS]
    assert layer == "service.http" or not [one for one in below if one.imported.startswith("service.http")]


def test_only_main_connects() -> None:
    inside = [one for one in all_imports() if one.importer.startswith("service") and one.importer != "service.main"]
    assert not [one for one in inside if one.imported.startswith(CONNECTING)]


def test_rules_are_pure() -> None:
    """No clock, no chance, no store, no framework, nothing to wait for."""
    for module in modules():
        if capability_of(module.name) is None or part_of(module.name) != "rules":
            continue
        outside = [one for one in imports(module) if one.imported.split(".")[0] in (*IMPURE, "backends", "litestar")]
        assert not outside, outside
        for node in ast.walk(module.tree):
            where = f"{module.name}:{getattr(node, 'lineno', 0)}"
            assert not isinstance(node, ast.AsyncFunctionDef | ast.Await), f"{where} waits"
            told = isinstance(node, ast.Attribute) and node.attr in ("now", "utcnow", "today")
            assert not told or ast.unparse(node) == "view.now", f"{where} reads a clock: {ast.unparse(node)}"


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("service.work.rules", "service.work.store"),
        ("service.work.rules", "service.kernel.run"),
        ("service.work.rules", "backends.protocol"),
        ("service.work.store", "service.work.rules"),
        ("service.executions.model", "service.executions.rules"),
        ("service.tenants.routes", "service.main"),
        ("service.work.claims", "service.http.endpoint"),
    ],
)
def test_a_planted_import_is_named(importer: str, imported: str) -> None:
    said = against_the_table(Import(importer, imported, 1))
    assert said is not None
    assert importer in said
    assert imported in said


def test_a_planted_import_upwards_is_named() -> None:
    assert "must not know operations" in (
        against_the_tiers(Import("service.work.routes", "service.operations.model", 1)) or ""
    )
    assert "must not know work" in (against_the_tiers(Import("service.tokens.rules", "service.work.model", 1)) or "")


def test_an_import_is_read_whatever_its_form() -> None:
    forms = (
        "import service.main\nfrom service import main\nfrom backends import connect\nfrom service.kernel import run\n"
    )
    module = Module("planted", Path("planted.py"), ast.parse(forms))
    assert [one.imported for one in imports(module)] == [
        "service.main", "service.main", "backends.connect", "service.kernel.run",
    ]  # fmt: skip
