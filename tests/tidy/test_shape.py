"""The shape of the house: what is described, how long it is, what must not stand anywhere, what belongs together."""

import ast
import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from service import capabilities
from tests.tidy import house

LINES_OF_A_FUNCTION = 70
LINES_OF_A_FILE = 1_000
LONG: dict[str, str] = {}
"""Functions that are longer, and why."""
FRAME = frozenset({"kernel", "http", "cli"})
"""Packages of `service` that are no capability."""
ACROSS = {
    "tokens_by_id": "a request says its token's public id, and by it whose it is",
    "idempotency_keys_by_age": "the sweep forgets by age, whoever's they are",
    "work_due": "the sweep of due items goes by time",
    "work_leased": "the sweep of leases that ran out goes by time",
    "alarms_due": "the sweep of alarms goes by time",
    "jobs_running": "the sweep of jobs goes by time",
    "workers_due": "the sweep of workers that were lost goes by time",
    "queue_rates_by_age": "the sweep forgets by age, whoever's they are",
    "events position": "SQLite's row id, in the order of its commits",
}
"""Keys and indexes of tenants' tables that do not begin with tenant_id, and why."""
UNREACHED: dict[str, str] = {}
"""Commands that no endpoint, sweep or start-up runs, and why they are there."""


# ── words ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def public(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """The functions and classes that a module shows."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node


def test_every_package_and_module_says_what_it_is() -> None:
    assert not [module.name for module in house.modules() if not ast.get_docstring(module.tree)]


def test_every_public_function_and_class_says_what_it_does() -> None:
    silent = [
        f"{module.name}:{node.lineno} {node.name}"
        for module in house.modules()
        for node in public(module.tree)
        if not ast.get_docstring(node)
    ]
    assert not silent


def test_every_statement_says_what_it_promises() -> None:
    for source in sorted((house.ROOT / "backends" / "sql").glob("*.sql")):
        lines = source.read_text("utf-8").splitlines()
        named = [at for at, line in enumerate(lines) if line.startswith("-- name:")]
        assert not [lines[at] for at in named if not lines[at + 1].startswith("-- ")], source.name


# ── lengths ────────────────────────────────────────────────────────────────────────────────────────────────────────


def functions() -> list[tuple[int, str]]:
    """Every function of the house with its length, the longest first."""
    found = [
        ((node.end_lineno or 0) - node.lineno + 1, f"{module.name}.{node.name}")
        for module in house.modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return sorted(found, reverse=True)


def test_no_function_is_longer_than_a_page() -> None:
    assert not [(lines, name) for lines, name in functions() if lines > LINES_OF_A_FUNCTION and name not in LONG]


def test_no_file_is_longer_than_can_be_read() -> None:
    long = [(path.name, count) for path, text in texts().items() if (count := text.count("\n")) > LINES_OF_A_FILE]
    assert not [one for one in long if one[0] not in ("openapi.json",)]


# ── what must not stand anywhere ───────────────────────────────────────────────────────────────────────────────────

TEXT = frozenset({".py", ".sql", ".md", ".toml", ".json", ".html", ".css", ".js", ".yml", ".yaml", ".sh", ".txt", ""})
FOREIGN = {
    "a path of somebody's machine": r"(?<![\w.])/(?:root|home/\w+|Users/\w+|work)/",
    "a package registry": r"pypi\.org|pythonhosted|(?:extra-)?index-url|artifactory|devpi",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a cloud's key": r"\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}\b",
}
PLANTED = "a planted one"
"""A line that shows such a text on purpose says so."""


MADE = ("__pycache__", "dist", "build", "node_modules", "results")


@functools.cache
def texts() -> dict[Path, str]:
    """Every text file of the tree that is ours; nothing that a tool left behind."""
    found = {}
    for folder, folders, names in os.walk(house.ROOT):
        folders[:] = sorted(one for one in folders if one == ".ci" or not (one.startswith(".") or one in MADE))
        for path in (Path(folder, name) for name in sorted(names) if not name.startswith(".") and name not in MADE):
            if path.suffix in TEXT and path.is_file():
                found[path] = path.read_text("utf-8")
    return found


@pytest.mark.parametrize(("what", "pattern"), FOREIGN.items(), ids=[name.replace(" ", "-") for name in FOREIGN])
def test_the_tree_holds_nothing_foreign(what: str, pattern: str) -> None:
    found = []
    for path, text in texts().items():
        if path == Path(__file__) or not re.search(pattern, text):
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if re.search(pattern, line) and PLANTED not in line:
                found.append(f"{path.relative_to(house.ROOT)}:{number} {line.strip()[:80]}")
    assert not found, f"{what}: {found}"


def test_the_tree_holds_no_token_that_could_be_real() -> None:
    """A text of a token's form whose checksum is right is a token; examples carry a wrong one."""
    from service.tokens.secret import parse

    found = []
    for path, text in texts().items():
        for token in re.findall(r"\bhold[ts]_[0-9A-Za-z]{16}_[0-9A-Za-z]{49}\b", text):
            if parse(token) is not None:
                found.append(f"{path.relative_to(house.ROOT)}: {token[:22]}…")
    assert not found


# ── migrations ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_migrations_are_numbered_without_gaps() -> None:
    names = sorted(path.name for path in (house.ROOT / "migrations").glob("*.sql"))
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
    assert not [name for name in names if not re.fullmatch(r"\d{4}_[a-z0-9_]+\.sql", name)]


def test_every_key_and_index_of_a_tenants_table_begins_with_the_tenant() -> None:
    """So tables can be partitioned by tenant, and one tenant's rows never stand in another's way."""
    found = {name for table in house.tenant_tables() for name, first in indexes(table) if first != "tenant_id"}
    assert found == set(ACROSS), f"not on the list: {found - set(ACROSS)}; no longer so: {set(ACROSS) - found}"


def indexes(table: str) -> Iterator[tuple[str, str]]:
    """Each key and index of a table with its first column; a row id that is a key counts."""
    db = house.store()
    for row in db.execute(f"PRAGMA index_list({table})"):
        yield row[1], db.execute(f"PRAGMA index_info({row[1]})").fetchone()[2]
    for column in db.execute(f"PRAGMA table_info({table})"):
        if column[5] == 1 and column[2] == "INTEGER":
            yield f"{table} {column[1]}", column[1]


def test_every_foreign_key_stays_within_the_tenant() -> None:
    for table in house.tenant_tables():
        keys: dict[int, list[tuple[str, str]]] = {}
        for row in house.store().execute(f"PRAGMA foreign_key_list({table})"):
            keys.setdefault(row[0], []).append((row[3], row[4]))
        for pairs in keys.values():
            assert ("tenant_id", "tenant_id") in pairs, f"{table} points at another tenant's row by {pairs}"


# ── capabilities ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_package_of_the_service_is_a_capability_or_part_of_the_frame() -> None:
    folders = {path.parent.name for path in (house.ROOT / "service").glob("*/__init__.py")}
    assert folders == {name.split(".")[0] for name in capabilities.NAMES} | FRAME


@pytest.mark.parametrize("name", capabilities.NAMES)
def test_a_capability_is_described_and_tested(name: str) -> None:
    folder, top = Path(*name.split(".")), name.split(".")[0]
    words = ast.get_docstring(house.module_of(house.ROOT / "service" / folder / "__init__.py").tree) or ""
    assert len(words) > 80, f"service.{name} needs a paragraph: what it is, its states, its events"
    assert list((house.ROOT / "tests" / top).glob("test_*.py")), f"tests/{top} has no tests"


def constructed(kinds: frozenset[str]) -> set[str]:
    """The names of commands that modules outside models and rules make or hand over."""
    edge = [module for module in house.modules() if not module.name.endswith((".model", ".rules", ".claims"))]
    names = {node.id for module in edge for node in ast.walk(module.tree) if isinstance(node, ast.Name)}
    return names & kinds


def test_every_command_can_be_reached() -> None:
    """From an endpoint, a sweep, or the service's own start."""
    kinds = frozenset(command.__name__ for command in capabilities.rules())
    unreached = kinds - constructed(kinds)
    assert unreached == set(UNREACHED), f"nobody runs {sorted(unreached)}"


def test_every_command_that_is_run_has_a_rule() -> None:
    """`command(X)`, `batch(X)` and `….run(…, X(…))` at the edge."""
    known = {command.__name__ for command in capabilities.rules()}
    for module in house.modules():
        if not module.name.endswith((".routes", ".sweeps")):
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and (name := handed_over(node)):
                assert name in known, f"{module.name}:{node.lineno} runs {name}, which has no rule"


def handed_over(call: ast.Call) -> str | None:
    """The command that a call hands to the kernel, if it is written there."""
    if isinstance(call.func, ast.Name) and call.func.id in ("command", "batch") and call.args:
        return call.args[0].id if isinstance(call.args[0], ast.Name) else None
    if isinstance(call.func, ast.Attribute) and call.func.attr == "run" and call.args:
        last = call.args[-1]
        return last.func.id if isinstance(last, ast.Call) and isinstance(last.func, ast.Name) else None
    return None
